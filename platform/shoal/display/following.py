"""Looks after a running cluster in the background, and says once when it is about to end.

Why it exists: whoever computes does not look at ``ls``; the word has to come to them, in a script's output or
a flow's log.

What it must not do: disturb the work it warns of, say the same thing twice, or keep a process alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from shoal.display.forecast import until_warning, warnings
from shoal.model.cluster import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.homes.base import Home

LEAST, MOST = 0.5, 30.0  # s between two looks: often when the end is near
_FAILURES = 5  # looks in a row that may fail before it is given up

_say: ContextVar[Callable[[str], None] | None] = ContextVar("shoal_says", default=None)


@contextmanager
def said_by(say: Callable[[str], None]) -> Iterator[None]:
    """Warnings of clusters that are opened in the block go to ``say`` instead of standard error."""
    token = _say.set(say)
    try:
        yield
    finally:
        _say.reset(token)


def speaker() -> Callable[[str], None] | None:
    """Where warnings go here, if somebody said so."""
    return _say.get()


class Follower:
    """Warns by ``say``, until :meth:`end`; once per reason, and again only if the end had moved away."""

    def __init__(self, home: Home, cluster_id: str, say: Callable[[str], None]) -> None:
        self._home, self._id, self._say = home, cluster_id, say
        self._over = threading.Event()
        threading.Thread(target=self._follow, name="shoal-follower", daemon=True).start()

    def end(self) -> None:
        """No word any more."""
        self._over.set()

    def _follow(self) -> None:
        failures, warned, pause = 0, set[Reason](), LEAST
        while not self._over.wait(pause) and failures < _FAILURES:
            try:
                cluster = self._home.get(self._id)
                status = self._home.status(self._id)
            except Exception:  # a warning that cannot be made must not disturb the work
                failures, pause = failures + 1, MOST / 10
                continue
            failures = 0
            if cluster.state.ended:
                return
            ends_in = status.ends_in if status is not None else None
            due = warnings(cluster, ends_in)
            for reason, text in due.items():
                if reason not in warned and not self._over.is_set():
                    self._say(f"{cluster.name} {text}")
            warned = set(due)
            pause = max(LEAST, min(MOST, until_warning(cluster, ends_in) if ends_in else MOST / 10))
