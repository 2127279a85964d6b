"""Run a command that ends with the process that started it, also when that one is killed with -9 (Linux).

Why it exists: only the kernel can tell a child then, and only a process can ask that for itself; what is asked for
stays when it becomes the command.

What it must not do: import anything that is not needed (it is a bare interpreter, there for some milliseconds).
"""

from __future__ import annotations

import os
import signal
import sys


def tethered(command: list[str]) -> list[str]:
    """The command, to be started by this thread, that gets SIGTERM when the thread is gone. The same elsewhere."""
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def _main(parent: int, command: list[str]) -> None:
    import ctypes

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C now: no stack trace of this file
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)  # it was gone before the kernel was asked
    os.execv(command[0], command)  # noqa: S606 - no shell


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
