"""A head's parent, which outlives it: whatever a task started ends with the cluster, however that ends.

Why it exists: a process that leaves its session, its parent and its environment behind carries no mark, and a
head that is killed can look for nothing. The kernel gives each orphan to the nearest ancestor that asked for
them: the guard. So all that is left when the head is gone are children of the guard, which ends them until
there are none, and then itself.

It asks the kernel for its own children alone, so nothing else can be met by mistake: not a pid that was used
again, not a process of the user's. A cluster that a task started belongs to itself, and is let go.

What it must not do: import anything that is not needed (it is a bare interpreter of its own), or write.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

_MARK = b"SHOAL_CLUSTER="  # processes.MARK
_LONGEST = 10.0  # s that what is left may take to die; what hangs in the kernel dies when it can
_PAUSE = 0.02  # s
_TOLD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stand_guard() -> int | None:
    """Go on in a child; this process is its guard from now on. Returns the guard's pid, in the child.

    None where the kernel gives no orphans to an ancestor (not Linux), or where a fork is not safe: then this
    process goes on itself, without one. The process keeps its pid, so whoever started it holds the guard.
    """
    import threading

    from shoal.machine.processes import adopt_orphans, die_with_parent

    if threading.active_count() > 1 or not adopt_orphans():
        return None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)  # until somebody is there to pass them on
    guard = os.getpid()
    head = os.fork()
    if head == 0:
        die_with_parent()
        if os.getppid() != guard:
            os._exit(1)  # it was gone before the kernel was asked
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return guard
    try:
        # A fresh interpreter: this one would keep all that the head ever changes of what they share.
        os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, str(head)])  # noqa: S606 - no shell
    except OSError:
        os._exit(_guard(head))


def _guard(head: int) -> int:
    """Until the head is gone and nothing is left of it; the head's exit code."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(head, number)  # not reaped yet, so it is nobody else

    for number in _TOLD:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)
    status = 1 << 8
    try:
        while True:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            if info is None or info.si_pid == head:
                break
            os.waitpid(info.si_pid, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)
        _, status = os.waitpid(head, 0)
    except ChildProcessError:
        pass
    _end_the_rest(time.monotonic() + _LONGEST)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _end_the_rest(deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        mine = [pid for pid in _children() if not _of_another_cluster(pid)]
        if not mine:
            return
        for pid in mine:
            os.kill(pid, signal.SIGKILL)  # whoever is its child is ours next
        time.sleep(_PAUSE)


def _children() -> list[int]:
    """Those that are not reaped yet: their pids are nobody else's."""
    me, found = str(os.getpid()).encode(), []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[1] == me:
                found.append(int(name))
    return found


def _of_another_cluster(pid: int) -> bool:
    own = _MARK + os.environb.get(_MARK[:-1], b"")
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            marks = [entry for entry in file.read().split(b"\0") if entry.startswith(_MARK)]
    except OSError:
        return False
    return bool(marks) and own not in marks


if __name__ == "__main__":
    os._exit(_guard(int(sys.argv[1])))
