"""Whose turn it is to write to an SQLite ledger.

Why it exists: SQLite lets whoever comes at the right moment in, and its waiters sleep longer the longer they
wait, so that under load some starve. A lock file that everybody asks for at the same short pace gives each
the same chance.

What it must not do: protect anything by itself; SQLite's own lock does.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACE = 0.002  # s between two looks, on average: a decision takes about as long


@contextmanager
def turn(file: Path, wait: float) -> Iterator[None]:
    """Hold the lock file for the block; after ``wait`` seconds the block runs without, and SQLite decides."""
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        yield  # a folder that cannot be written: SQLite says it better
        return
    try:
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(random.uniform(0, 2 * _PACE))  # noqa: S311 - a pace, not a secret
        yield
    finally:
        os.close(descriptor)  # gives the lock back, as does the end of the process
