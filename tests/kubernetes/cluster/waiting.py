"""Waits that end: each has a deadline, says what it waits for and what it saw last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from .errors import NotInTime

Seen = TypeVar("Seen")


def until(
    what: str,
    look: Callable[[], Seen],
    enough: Callable[[Seen], bool] = bool,
    seconds: float = 60.0,
    every: float = 0.1,
) -> Seen:
    """The first `look()` that is `enough`. Raises NotInTime after `seconds`: `what`, and the last look."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if enough(seen):
            return seen
        if time.monotonic() > deadline:
            raise NotInTime(f"not in {seconds:.0f} s: {what}; last seen: {_short(seen)}")
        time.sleep(every)


def _short(seen: object) -> str:
    text = repr(seen)
    return text if len(text) < 1000 else f"{text[:1000]}… ({len(text)} characters)"
