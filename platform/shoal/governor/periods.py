"""The times by which a cluster's life goes, as one value per home.

Why it exists: they depend on each other (a head that is cut off has to end itself before others give its quota away),
so they stand side by side and are checked when they are made.

What it must not do: import anything heavy: a waiting head has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from shoal.units import Seconds


@dataclass(frozen=True)
class Periods:
    """In seconds. ValueError where they contradict each other.

    ``tick``: between two looks of a head at its engine, its clients and its wishes.
    ``renew``: between two renewals of its record.
    ``lease``: without a renewal, after which a head that cannot be seen from everywhere ends itself.
    ``silent``: without a renewal, after which others count such a head as gone.
    ``headless``: that an admitted cluster may be without a head.
    ``start``: that a head gives its engine to start.
    ``overdue``: past its maximum lifetime, after which a cluster that its head has not ended is told to end.
    ``stop``: that an orderly end may take; then the head is killed.
    """

    tick: Seconds
    renew: Seconds
    lease: Seconds
    silent: Seconds
    headless: Seconds
    start: Seconds
    overdue: Seconds
    stop: Seconds

    def __post_init__(self) -> None:
        in_order(self, "tick", "renew", "lease", "silent")
        for waited in ("headless", "start", "overdue", "stop"):
            in_order(self, "tick", waited)


def in_order(periods: object, *names: str) -> None:
    """ValueError unless each of these times is shorter than the next one."""
    for shorter, longer in pairwise(names):
        if not 0 < getattr(periods, shorter) < getattr(periods, longer):
            raise ValueError(f"{shorter} has to be shorter than {longer}: {periods}")
