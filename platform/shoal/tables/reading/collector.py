"""Python's collector of cycles, held still while many objects are made.

Why it exists: a plan of 20,000 files makes a million small objects, all of them kept, and Python goes
through all of them again and again to find none that could go: nearly half of the time of a plan. What it
must not do: stay off when an error passes, or while somebody else needs it on for longer than one plan.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_was_on = False


@contextmanager
def paused() -> Iterator[None]:
    """No collection within; several threads may be inside at once, and the last one out turns it on again."""
    global _inside, _was_on
    with _lock:
        if _inside == 0:
            _was_on = gc.isenabled()
            gc.disable()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _was_on:
                gc.enable()
