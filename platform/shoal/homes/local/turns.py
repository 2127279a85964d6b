"""Whose turn it is to write to an SQLite ledger.

Why it exists: SQLite lets whoever comes at the right moment in, and its waiters sleep longer the longer they
wait, so that under load some starve. The kernel keeps those who wait for a lock file in a line, wakes the
first when it is given back, and costs nobody a look in vain.

What it must not do: protect anything by itself; SQLite's own lock does.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def turn(file: Path, wait: float) -> Iterator[None]:
    """Hold the lock file for the block; after ``wait`` seconds the block runs without, and SQLite decides."""
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        yield  # a folder that cannot be written: SQLite says it better
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _stand_in_line(descriptor, wait)
        yield
    finally:
        os.close(descriptor)  # gives the lock back, as does the end of the process


def _stand_in_line(descriptor: int, wait: float) -> None:
    """Until the lock is held, at most ``wait`` seconds.

    Waiting for a lock has no deadline of its own, and whoever holds it may be stopped: so a thread stands in
    the line, with a descriptor of its own for the same open file. One that is given up gets the lock some
    day, and drops it at once, as nobody else has that file open any more.
    """
    held, own = threading.Event(), os.dup(descriptor)

    def stand() -> None:
        try:
            with suppress(OSError):  # a file system without locks: SQLite decides
                fcntl.flock(own, fcntl.LOCK_EX)
        finally:
            os.close(own)
            held.set()

    threading.Thread(target=stand, name="shoal-turn", daemon=True).start()
    held.wait(wait)
