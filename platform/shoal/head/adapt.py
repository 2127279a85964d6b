"""How many workers an adaptive cluster should have: purely, from what the scheduler would like.

Why it exists: a cluster with a range of workers grows while there is work for more and quota for it, and
gives back what it does not use. It grows at once and shrinks late: a worker costs seconds to start.

What it must not do: ask for anything itself, or know the quota (growth goes through admission).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoal.engines.limits import ENGINE


@dataclass(frozen=True)
class Adapt:
    """Between ``minimum`` and ``maximum`` workers. ``low`` is the most that was wanted since ``low_since``."""

    minimum: int
    maximum: int
    asked: float | None = None
    low_since: float | None = None
    low: int = 0

    def seen(self, have: int, desired: int | None, now: float) -> tuple[Adapt, int | None]:
        """After one look at ``now`` (monotonic seconds): the next state, and a number to go to, if any."""
        if desired is None:
            return replace(self, low_since=None), None
        target = max(self.minimum, min(self.maximum, desired))
        if target > have:
            if self.asked is not None and now - self.asked < ENGINE.ask_every:
                return replace(self, low_since=None), None
            return replace(self, asked=now, low_since=None), target
        if target == have:
            return replace(self, low_since=None), None
        low = target if self.low_since is None else max(self.low, target)
        since = now if self.low_since is None else self.low_since
        if now - since >= ENGINE.shrink_after:
            return replace(self, low_since=None), low
        return replace(self, low_since=since, low=low), None
