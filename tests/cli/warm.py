"""Runs ``shoal`` commands for tests, each in a process of its own that is forked after the imports.

A start of Python and its imports is most of what a command takes. What a command imported is imported here too
when it has ended, so it is there for all that come after. Each line of standard input is a JSON list of commands, with
the folder and the environment they have, and the files that they write to: "" to have it in the answer, "closed"
for a pipe whose reader is gone. Each answer is a line with a list of ``[exit code, standard output, standard error]``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import tempfile
import traceback
from contextlib import suppress
from typing import IO, Any

from shoal.cli.app import make_app
from shoal.cli.main import main as shoal


def opened(name: str, kept: IO[bytes]) -> int:
    if name == "closed":
        read, write = os.pipe()
        os.close(read)
        return write
    return os.open(name, os.O_WRONLY) if name else kept.fileno()


def become(arguments: list[str], asked: dict[str, Any], out: IO[bytes], err: IO[bytes]) -> int:
    """In the child: as ``shoal`` would start there; its exit code."""
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for number, file in (
        (0, os.open(os.devnull, os.O_RDONLY)),
        (1, opened(asked["out"], out)),
        (2, opened(asked["err"], err)),
    ):
        os.dup2(file, number)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace", buffering=1)
    sys.argv[:] = ["shoal", *arguments]
    try:
        shoal()
    except SystemExit as leaving:
        sys.stdout.flush()
        return int(leaving.code or 0)


def one(arguments: list[str], asked: dict[str, Any]) -> tuple[int, str, str]:
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        tempfile.TemporaryFile("w+") as loaded,
    ):
        before = set(sys.modules)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = become(arguments, asked, out, err)
            except BaseException:
                traceback.print_exc()
            finally:
                json.dump([name for name in sys.modules if name not in before], loaded)
                loaded.flush()
                with suppress(OSError):
                    sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        loaded.seek(0)
        for name in json.loads(loaded.read() or "[]"):
            with suppress(ImportError):  # some are names only
                importlib.import_module(name)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
        return code, said[0], said[1]


def main() -> None:
    make_app()
    for line in sys.stdin:
        asked = json.loads(line)
        gc.freeze()  # else each child copies all of it when it collects
        print(json.dumps([one(arguments, asked) for arguments in asked["calls"]]), flush=True)


if __name__ == "__main__":
    main()
