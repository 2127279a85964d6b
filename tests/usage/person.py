"""A person's process, like a notebook's: ``python person.py`` runs cells that come as lines of JSON.

Each line is ``{"cell": SOURCE}``; each answer is a line of JSON with ``value`` (of the last expression, if it is
plain) or with ``error`` and ``said``. What cells print goes to standard error.
"""

from __future__ import annotations

import ast
import faulthandler
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

PREAMBLE = """
import asyncio, copy, gc, os, pickle, signal, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
import shoal
"""


def set_clock(seconds: float, real: Any = time.time) -> None:
    """From now on this process's clock is ahead by so many seconds."""
    time.time = (lambda: real() + seconds) if seconds else real


def run(source: str, space: dict[str, Any]) -> Any:
    """Run a cell; the value of its last expression, None where it ends with something else."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), space)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), space) if last is not None else None


def main() -> None:
    faulthandler.register(signal.SIGUSR1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    space: dict[str, Any] = {"__name__": "__main__", "set_clock": set_clock}
    exec(PREAMBLE, space)
    for line in iter(sys.stdin.readline, ""):
        try:
            answer = {"value": run(json.loads(line)["cell"], space)}
        except SystemExit:  # of a forked child, or the end of a script
            raise
        except BaseException as error:
            traceback.print_exc()
            answer = {"error": type(error).__name__, "said": str(error)}
            del error
        sys.stderr.flush()
        answers.write(json.dumps(answer, default=repr) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
