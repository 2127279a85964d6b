"""One account in a pass of the queue: what it holds, until when, and for whom it keeps room.

Why it exists: who does not fit now must not be starved by who asks for less, so room is kept for a time that is known:
every cluster has a latest end.

What it must not do: know requests or whose turn it is; it compares amounts.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from shoal.model.resource import Resource
from shoal.project.policy import TOTALS, Limit
from shoal.quota.account import Account, Amounts

# One pass compares amounts by the million, so they are vectors here: all of them in the order of TOTALS.
_RESOURCES = tuple(TOTALS)
Vector = tuple[float, ...]
vector: Callable[[Amounts], Vector] = operator.attrgetter(*(str(what.value) for what in _RESOURCES))
# So many may have a reservation in one account at a time; who comes after them is not protected yet.
_RESERVATIONS = 10
NOTHING: Vector = (0.0,) * len(_RESOURCES)


class Holder:
    """One account in this pass: what it holds, until when, its limits, and for whom it keeps room."""

    def __init__(self, name: str, account: Account, limits: Mapping[Resource, Limit]) -> None:
        self.name = name
        self.limits = tuple(limits[what].value if what in limits else math.inf for what in _RESOURCES)
        self.running = {key: vector(value) for key, value in account.admitted.items()}
        self.until = dict(account.until)
        self.held = _sum(self.running.values())
        self.reserved: list[Reservation] = []

    def fits(self, need: Vector, held: Vector | None = None) -> bool:
        """What is not asked for does not collide, even where a lowered limit is exceeded already."""
        # A plain loop: this runs more often than anything else here.
        for asked, has, limit in zip(need, held or self.held, self.limits, strict=True):
            if asked > 0 and has + asked > limit:
                return False
        return True

    def frees(self, need: Vector) -> float:
        """When ``need`` fits at the latest: enough clusters have reached their maximum lifetime by then."""
        held = self.held
        for end, vector in sorted((self._ends(key), its) for key, its in self.running.items()):
            if end == math.inf:
                break
            held = tuple(map(operator.sub, held, vector))
            if self.fits(need, held):
                return end
        return math.inf

    def delays(self, need: Vector, end: float) -> Reservation | None:
        """The first with a reservation that would wait longer if ``need`` were admitted until ``end``."""
        for kept in self.reserved:
            if end <= kept.at:
                continue
            for asked, wanted, has, limit in zip(need, kept.need, kept.left, self.limits, strict=True):
                if asked > 0 and wanted > 0 and has + asked + wanted > limit:
                    return kept
        return None

    def reserve(self, cluster: str, need: Vector) -> float:
        """Keep room for ``cluster``, besides those who reserved before; returns from when on at the latest."""
        if self.reserved:
            need = tuple(map(operator.add, need, self.reserved[-1].need))
        at = self.frees(need)
        if len(self.reserved) < _RESERVATIONS and (at < math.inf or not self.reserved):
            left = _sum(its for key, its in self.running.items() if self._ends(key) > at)
            self.reserved.append(Reservation(cluster, need, at, left))
        return at

    def _ends(self, cluster: str) -> float:
        return self.until.get(cluster, math.inf)

    def take(self, cluster: str, need: Vector, end: float) -> None:
        """``cluster`` holds ``need`` from now on, until ``end`` at the latest."""
        self.running[cluster], self.until[cluster] = need, end
        self.held = tuple(map(operator.add, self.held, need))
        for kept in self.reserved:
            if end > kept.at:
                kept.left = tuple(map(operator.add, kept.left, need))

    def drop(self, cluster: str) -> tuple[Vector, float] | None:
        """Forget what ``cluster`` holds here; returns it with its end, for :meth:`take`."""
        if cluster not in self.running:
            return None
        end = self._ends(cluster)
        has = self.running.pop(cluster)
        self.held = tuple(map(operator.sub, self.held, has))
        for kept in self.reserved:
            if end > kept.at:
                kept.left = tuple(map(operator.sub, kept.left, has))
        return has, end


@dataclass
class Reservation:
    """``need`` of this one and of all who reserved before it fits from ``at`` on, beside ``left``."""

    cluster: str
    need: Vector
    at: float
    left: Vector


def _sum(vectors: Iterable[Vector]) -> Vector:
    return tuple(map(sum, zip(*vectors, strict=True))) or NOTHING
