"""What is in the world of :class:`shoal.homes.fake.FakeHome`: its clock, its heads, its scripts, what may go wrong.

Why it exists: see there. Public, for tests.

What it must not do: anything by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shoal.errors import RefusedError
from shoal.governor.ends import Exit
from shoal.governor.periods import Periods
from shoal.quota.account import Account
from shoal.units import Seconds

# A head may wait for a node and its image, as on Kubernetes; one that is cut off ends itself, as on several machines.
PERIODS = Periods(
    tick=Seconds(0.5),
    renew=Seconds(5),
    lease=Seconds(30),
    silent=Seconds(45),
    headless=Seconds(300),
    start=Seconds(300),
    overdue=Seconds(60),
    stop=Seconds(60),
)
START_TIME = 3.0  # s from a head's start to Ready
FOLLOW = 8.0  # s that workers outlive a head that was killed
RETIRE = 10.0  # s that a worker takes to hand over what it alone holds


class InjectedFault(StrEnum):
    """What may happen to a write on its way. LATE: no reply comes, and it is done some time later."""

    NONE = "none"
    LOST_REQUEST = "lost request"
    LOST_REPLY = "lost reply"
    DOUBLED = "doubled"
    LATE = "late"


@dataclass
class FakeClock:
    """``now``: the store's clock, which may jump; ``elapsed``: time as it really goes by, in seconds."""

    now: float = 1_000_000.0
    elapsed: float = 0.0


@dataclass
class FakeHead:
    """A head: it lives by ``elapsed``, sees its record while it is ``reachable``, and has ``workers``."""

    cluster: str
    born: float
    alive: bool = True
    reachable: bool = True
    to_end: bool = False
    remains_end: bool = False
    workers: int = 0
    renewed: float = 0.0
    died: float = 0.0
    retiring: float | None = None


@dataclass
class FakeScript:
    """A script beside its cluster: it runs until it has its ``exit``, or somebody ends it."""

    alive: bool = True
    exit: Exit | None = None
    output: list[str] = field(default_factory=list)


@dataclass
class FakeCaches:
    """What is known of each kind of thing: as it is, or as it was so many changes ago (``ages``)."""

    ages: Mapping[str, int] = field(default_factory=dict)
    _past: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=30))

    def note(self, now: Mapping[str, Any]) -> None:
        """By kind, how everything is now."""
        if not self._past or self._past[-1] != now:
            self._past.append(now)

    def seen(self, kind: str) -> Any:
        """What is known of this one."""
        return self._past[-1 - min(self.ages.get(kind, 0), len(self._past) - 1)][kind]


def refuse_uncounted(cluster_id: str, quota: Account) -> None:
    """RefusedError: the place itself starts nothing that its quota does not count."""
    if cluster_id not in quota.admitted:
        raise RefusedError(f"the quota has no room for the head of {cluster_id}")
