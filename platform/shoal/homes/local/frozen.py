"""A process that is stopped (SIGSTOP, Ctrl-Z) while it holds the ledger's lock does not keep others waiting.

Why it exists: a transaction takes milliseconds, and holds nobody's code; but its process may be stopped in the
middle, and the lock with it, for as long as nobody lets it go on.

What is done: the kernel is asked who holds the lock (``/proc/locks``, Linux). If that process is one of this user
and stopped, it is let go on until it has given the lock back, and is stopped again: it notices nothing, and
whoever stopped it finds it stopped. One that stays stopped is killed when it has held the lock for longer than
any transaction may wait; its transaction is undone. A process that runs is never touched, however slow it is, nor
one that a debugger holds.

What it must not do: open any of the files that it looks after.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from shoal.homes.local import periods
from shoal.machine.processes import state_and_ticks

_POLL = 0.002


class Thaw:
    """Looks, for one that waits, after the locks of ``files``."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = tuple(files)
        self._since: dict[tuple[int, int], float] = {}

    def look(self) -> None:
        """Let a stopped holder give the lock back; returns within some seconds."""
        for pid in holders(self._files):
            seen = state_and_ticks(pid)
            if seen is None or seen[0] != "T" or pid == os.getpid() or not _is_ours(pid):
                continue
            since = self._since.setdefault((pid, seen[1]), time.monotonic())
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if time.monotonic() - since > periods.LOCAL.stopped:
                    os.kill(pid, signal.SIGKILL)
                    continue
                os.kill(pid, signal.SIGCONT)
                if self._is_free_of(pid):
                    os.kill(pid, signal.SIGSTOP)

    def _is_free_of(self, pid: int) -> bool:
        deadline = time.monotonic() + periods.LOCAL.let_go
        while pid in holders(self._files):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True


def described(files: Iterable[Path]) -> str:
    """Who holds the locks, for people: pid, command and whether it is stopped. Empty where it is not known."""
    parts = []
    for pid in holders(files):
        if pid == os.getpid():
            continue
        seen = state_and_ticks(pid)
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            command = ""
        how = {"T": ", which is stopped", "t": ", which a debugger holds"}.get(seen[0] if seen else "", "")
        parts.append(f"pid {pid} ({command.strip()[:80]}){how}")
    return " and ".join(parts)


def holders(files: Iterable[Path]) -> list[int]:
    """Who has a lock on one of the files that excludes others. Empty where the kernel does not tell."""
    wanted = set()
    for file in files:
        with contextlib.suppress(OSError):
            seen = os.stat(file)
            wanted.add((seen.st_dev, seen.st_ino))
    inodes = {str(inode) for _, inode in wanted}
    found: list[int] = []
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return found
    for line in lines:  # "1: POSIX ADVISORY WRITE 5228 fe:00:10356440 128 128"; "->" stands before who waits
        fields = line.split()
        if "->" in fields or len(fields) < 6 or fields[3] != "WRITE":
            continue
        pid = int(fields[4])
        if fields[5].rpartition(":")[2] in inodes and pid not in found and _has_open(pid, wanted):
            found.append(pid)
    return found


def _has_open(pid: int, files: set[tuple[int, int]]) -> bool:
    """The device of a lock is not told as ``stat`` tells it on every file system; what is open is."""
    try:
        entries = list(os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return False
    for entry in entries:
        with contextlib.suppress(OSError):
            seen = os.stat(entry.path)
            if (seen.st_dev, seen.st_ino) in files:
                return True
    return False


def _is_ours(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.getuid()
    except OSError:
        return False
