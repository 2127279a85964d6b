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
import select
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from typing import IO, Any


class Warm:
    """For tests: this file as a process, started when it is first asked."""

    def __init__(self, *prefix: str) -> None:
        self.command = [*prefix, sys.executable, __file__]
        self.process: subprocess.Popen[str] | None = None

    def ask(
        self,
        calls: list[list[str]],
        folder: str,
        environment: dict[str, str],
        out: str = "",
        err: str = "",
        timeout: float | None = None,
    ) -> list[list[Any]]:
        """``[exit code, standard output, standard error]`` of each command. TimeoutError where none comes."""
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = {"calls": calls, "folder": folder, "environment": environment, "out": out, "err": err}
        try:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            if not select.select([self.process.stdout], [], [], timeout)[0]:
                raise TimeoutError(f"no answer to {calls} after {timeout} s")
            answers: list[list[Any]] = json.loads(self.process.stdout.readline())
            return answers
        except BaseException:  # a test that took too long: its answer is not for the next one
            self.end()
            raise

    def end(self) -> None:
        if self.process is not None:
            process, self.process = self.process, None
            process.kill()
            process.communicate()


def opened(name: str, kept: IO[bytes]) -> int:
    if name == "closed":
        read, write = os.pipe()
        os.close(read)
        return write
    return os.open(name, os.O_WRONLY) if name else kept.fileno()


def become(arguments: list[str], asked: dict[str, Any], out: IO[bytes], err: IO[bytes]) -> int:
    """In the child: as ``shoal`` would start there; its exit code."""
    from shoal.cli.main import main as shoal

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
    import shoal.cli.main  # noqa: F401
    from shoal.cli.app import make_app

    make_app()
    for line in sys.stdin:
        asked = json.loads(line)
        gc.freeze()  # else each child copies all of it when it collects
        print(json.dumps([one(arguments, asked) for arguments in asked["calls"]]), flush=True)


if __name__ == "__main__":
    main()
