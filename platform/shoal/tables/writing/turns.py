"""Whose turn it is to commit to a table, among the processes of one machine.

Why it exists: of writers that commit at once one wins, and all others have to read and write for another try; the more
they are, the longer each takes. So those of one machine take turns, for the moment that a commit takes.

What it must not do: protect anything. The catalog does: whoever has waited for long, and whoever writes from another
machine or with another library, commits without a turn.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.writing.sweep import bare

_LONGEST = (
    15.0  # s in line: some three hundred commits; then it is likely that a stopped process has the turn
)


@contextmanager
def turn(location: str, given: CatalogSettings) -> Iterator[None]:
    """Hold the turn for the block, or run it without after some seconds, and where nothing can be locked.

    The lock is on the table's folder itself, or if that is in a store of objects, on the folder of the catalog's file:
    nothing is made that would have to be removed.
    """
    file = given.sqlite_file
    path = bare(location) if location.startswith(("file:", "/")) else str(file.parent) if file else None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if path else None
    except OSError:
        descriptor = None  # a table that is just being made
    if descriptor is None:
        yield
        return
    me = os.getpid()
    try:
        _wait_for(descriptor)
        yield
    finally:
        if os.getpid() == me:  # a fork of it has the same lock
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _wait_for(descriptor: int) -> None:
    """Until the turn is held. The kernel keeps those who wait in the order in which they came."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    except OSError:
        return  # a file system without locks
    # Waiting for a lock has no deadline, so a thread waits, with a descriptor of its own for the same open file. One
    # that was given up gets the turn some day, and passes it on.
    held, given_up, own = threading.Event(), threading.Event(), os.dup(descriptor)

    def stand() -> None:
        try:
            fcntl.flock(own, fcntl.LOCK_EX)
            if given_up.is_set():
                fcntl.flock(own, fcntl.LOCK_UN)
        finally:
            os.close(own)
            held.set()

    threading.Thread(target=stand, name="shoal-commit-turn", daemon=True).start()
    if not held.wait(_LONGEST):
        given_up.set()
