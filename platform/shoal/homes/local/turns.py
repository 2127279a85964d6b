"""Whose turn it is to write to an SQLite ledger.

Why it exists: SQLite lets whoever comes at the right moment in, and its waiters sleep longer the longer they
wait, so that under load some starve. The kernel keeps those who wait for a lock file in a line, wakes the
first when it is given back, and costs nobody a wasted look.

What it must not do: protect anything by itself; SQLite's own lock does.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shoal.homes.local.frozen import Thaw

_LOOK = 2.0  # s of standing in line, after which it is looked whether a stopped process has the turn


@contextmanager
def turn(file: Path, wait: float) -> Iterator[None]:
    """Hold the lock file for the block; after ``wait`` seconds the block runs without, and SQLite decides."""
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        yield  # a folder that cannot be written: SQLite says it better
        return
    me = os.getpid()
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _stand_in_line(file, descriptor, wait)
        yield
    finally:
        if os.getpid() == me:  # else this is a fork that leaves its parent's block
            _give_back(descriptor)
        os.close(descriptor)


def _give_back(descriptor: int) -> None:
    """Not only by closing it: a fork may have it open too. (The end of all processes gives it back as well.)"""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _stand_in_line(file: Path, descriptor: int, wait: float) -> None:
    """Until the lock is held, at most ``wait`` seconds.

    Waiting for a lock has no deadline of its own, and whoever holds it may be slow: so a thread stands in
    the line, with a descriptor of its own for the same open file. One that is given up gets the lock some
    day, and drops it at once.
    """
    held, given_up, own = threading.Event(), threading.Event(), os.dup(descriptor)

    def stand() -> None:
        try:
            with suppress(OSError):  # a file system without locks: SQLite decides
                fcntl.flock(own, fcntl.LOCK_EX)
            if given_up.is_set():
                _give_back(own)
        finally:
            os.close(own)
            held.set()

    threading.Thread(target=stand, name="shoal-turn", daemon=True).start()
    deadline, thaw = time.monotonic() + wait, Thaw([file])
    while not held.wait(max(0.0, min(_LOOK, deadline - time.monotonic()))):
        if time.monotonic() >= deadline:
            given_up.set()
            return
        thaw.look()
