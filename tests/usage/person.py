"""People's processes, like a notebook's: ``python person.py MODULE`` imports that and forks one for each that is asked.

Most of a start is importing. Each message on standard input, a socket, is ``{"folder": ..., "environment": ...}`` with
the three standard files of a person; the answer is its pid. A person runs cells that come as lines of JSON:
``{"cell": SOURCE}``; each answer is a line of JSON with ``value`` (of the last expression, if it is plain) or with
``error`` and ``said``. What cells print goes to standard error.
"""

from __future__ import annotations

import ast
import faulthandler
import gc
import importlib
import json
import os
import signal
import socket
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


def born(control: socket.socket) -> bool:
    """Fork people for as long as somebody may ask: True in each of them, False when nobody does any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, files, _, _ = socket.recv_fds(control, 65536, 3)
        if not message:
            return False
        gc.freeze()  # else each child copies all of it when it collects
        if pid := os.fork():
            for file in files:
                os.close(file)
            control.send(str(pid).encode())
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        asked = json.loads(message)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        return True


def live(space: dict[str, Any]) -> None:
    faulthandler.register(signal.SIGUSR1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
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


def main() -> None:
    importlib.import_module(sys.argv[1])
    space: dict[str, Any] = {"__name__": "__main__", "set_clock": set_clock}
    exec(PREAMBLE, space)
    if born(socket.socket(fileno=os.dup(0))):
        live(space)


if __name__ == "__main__":
    main()
