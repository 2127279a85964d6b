"""Accounts: what is admitted, to whom, by which cluster; and what stands against a limit.

Why it exists: an account is the one thing on which two requests collide. It is keyed by the cluster's id, so
that doing a step twice changes nothing.

What it must not do: decide (``admission``), or keep anything itself (the home's store does).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from shoal.errors import NeverFitsError
from shoal.model.resource import Resource
from shoal.model.workload import Plan, Size
from shoal.units import Bytes, Seconds
from shoal.words import count

if TYPE_CHECKING:  # a head reads accounts without reading policies
    from shoal.project.policy import Limit, Limits

T = TypeVar("T")
POD_SCRATCH = Bytes(2**30)  # of a pod for which nothing was asked: logs, sockets and temporary files


@dataclass(frozen=True)
class Amounts:
    """What one cluster, or several together, hold.

    ``memory`` and ``cores`` are the workers', as asked for; ``heads`` is the heads' memory, which has a limit
    of its own, and that of scripts that run beside them; ``scratch`` is local disk.
    """

    clusters: int = 0
    workers: int = 0
    cores: float = 0.0
    memory: Bytes = Bytes(0)
    gpus: int = 0
    scratch: Bytes = Bytes(0)
    heads: Bytes = Bytes(0)

    def __add__(self, other: Amounts) -> Amounts:
        return add_up((self, other))

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.clusters - other.clusters,
            self.workers - other.workers,
            self.cores - other.cores,
            Bytes(self.memory - other.memory),
            self.gpus - other.gpus,
            Bytes(self.scratch - other.scratch),
            Bytes(self.heads - other.heads),
        )

    def __or__(self, other: Amounts) -> Amounts:
        """The larger of each."""
        return Amounts(
            max(self.clusters, other.clusters),
            max(self.workers, other.workers),
            max(self.cores, other.cores),
            max(self.memory, other.memory),
            max(self.gpus, other.gpus),
            max(self.scratch, other.scratch),
            max(self.heads, other.heads),
        )

    def of(self, what: Resource) -> float:
        """The amount of ``what``: one that has a total, or workers."""
        return float(getattr(self, what))


def add_up(each: Iterable[Amounts]) -> Amounts:
    """The sum. Written out by field, as it runs for every account in every decision."""
    parts = tuple(each)
    return Amounts(
        sum(part.clusters for part in parts),
        sum(part.workers for part in parts),
        sum(part.cores for part in parts),
        Bytes(sum(part.memory for part in parts)),
        sum(part.gpus for part in parts),
        Bytes(sum(part.scratch for part in parts)),
        Bytes(sum(part.heads for part in parts)),
    )


def _sum(plan: Plan, head: Size, *, really: bool) -> Amounts:
    # Kept with the plan, which never changes: every decision asks it of everything that runs, many times.
    kept: dict[bool, Amounts] = vars(plan).setdefault("_sums", {})
    if really not in kept:
        total = _add_groups(plan, head, really=really)
        kept[really] = (
            replace(total, memory=Bytes(total.memory + total.heads), heads=Bytes(0)) if really else total
        )
    return kept[really]


def _add_groups(plan: Plan, head: Size, *, really: bool) -> Amounts:
    sized = [(group, group.there if really else group.size) for group in plan.groups]
    return Amounts(
        clusters=1,
        workers=plan.workers,
        cores=sum(group.count * size.cores for group, size in sized),
        memory=Bytes(sum(group.count * size.memory for group, size in sized)),
        gpus=sum(group.count * group.gpus for group in plan.groups),
        scratch=Bytes(sum(group.count * group.scratch for group in plan.groups)),
        heads=Bytes(head.memory * (2 if plan.runner else 1)),
    )


def amounts(plan: Plan) -> Amounts:
    """What quota counts for ``plan``: its workers as asked for, at their count."""
    return _sum(plan, plan.head, really=False)


def real(plan: Plan) -> Amounts:
    """What ``plan`` really takes of the place where it runs: ``memory`` has its head's in it."""
    return _sum(plan, plan.head_there or plan.head, really=True)


def in_pods(plan: Plan) -> Amounts:
    """What ``plan`` takes where each process is a pod: ``workers`` are all pods, ``cores``, ``memory`` and ``scratch``
    those of all of them. Of a core such a place counts thousandths.
    """
    head, beside = plan.head_there or plan.head, 2 if plan.runner else 1
    parts = [(group.count, group.there, group.scratch or POD_SCRATCH, group.gpus) for group in plan.groups]
    parts.append((beside, head, POD_SCRATCH, 0))
    return Amounts(
        clusters=1,
        workers=plan.workers + beside,
        cores=sum(many * math.ceil(round(size.cores * 1000, 3)) for many, size, _, _ in parts) / 1000,
        memory=Bytes(sum(many * int(size.memory) for many, size, _, _ in parts)),
        gpus=sum(many * gpus for many, _, _, gpus in parts),
        scratch=Bytes(sum(many * int(scratch) for many, _, scratch, _ in parts)),
    )


# The resources of which a fair share is taken.
SHARED = (Resource.MEMORY, Resource.CORES, Resource.GPUS)


@dataclass(frozen=True)
class Fair:
    """What an account keeps of an admission for the next turns; it comes with the queue's answer.

    ``share``: the dominant share that the cluster takes of the whole. ``floor``: the least that counts as
    served, in share x seconds. ``start``: where its turn stood among all, in share x seconds by weight.
    """

    share: float = 0.0
    floor: float = 0.0
    start: float = 0.0


@dataclass(frozen=True)
class Account:
    """What is admitted, by cluster id; and what was served so far, for fair shares.

    ``until``: when each cluster ends at the latest (seconds since the epoch; missing: not known).
    ``shares``: the dominant share that each takes of the whole, 0 to 1. ``served``: the sum of share x
    seconds as of ``as_of``. ``last``: when something was last admitted, ``start``: where its turn stood.
    """

    admitted: Mapping[str, Amounts] = field(default_factory=dict)
    until: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    served: float = 0.0
    as_of: float = 0.0
    last: float = 0.0
    start: float = 0.0

    @property
    def held(self) -> Amounts:
        """The sum over all clusters."""
        return add_up(self.admitted.values())

    def at(self, now: float) -> Account:
        """The account with ``served`` brought up to ``now``. A clock that went back changes nothing.

        What is held changes only through :meth:`with_` and :meth:`without`, so it was the same since
        ``as_of``.
        """
        return self if now <= self.as_of else replace(self, served=self.served_at(now), as_of=now)

    def served_at(self, now: float) -> float:
        """Share x seconds served until ``now``."""
        return self.served + sum(self.shares.values()) * max(0.0, now - self.as_of)

    def promised_at(self, now: float) -> float:
        """Share x seconds that what runs will still take, if each takes half of the life it has left."""
        return sum(part * max(0.0, self.until.get(key, now) - now) / 2 for key, part in self.shares.items())

    def with_(
        self,
        cluster: str,
        its: Amounts,
        until: float | None = None,
        now: float | None = None,
        fair: Fair | None = None,
    ) -> Account:
        """As if ``cluster`` were admitted with ``its`` amounts, instead of any that it had.

        Without ``fair``, what is kept for the next turns stays as it is.
        """
        brought = self if now is None else self.at(now)
        fair = fair or Fair(self.shares.get(cluster, 0.0))
        return replace(
            brought,
            admitted={**brought.admitted, cluster: its},
            until=brought.until if until is None else {**brought.until, cluster: until},
            shares={**brought.shares, cluster: fair.share},
            served=max(brought.served, fair.floor),
            start=max(brought.start, fair.start),
            last=brought.last if now is None or cluster in self.admitted else max(brought.last, now),
        )

    def without(self, cluster: str, now: float | None = None) -> Account:
        """As if ``cluster`` held nothing."""
        brought = self if now is None else self.at(now)
        return replace(
            brought,
            admitted=_but(brought.admitted, cluster),
            until=_but(brought.until, cluster),
            shares=_but(brought.shares, cluster),
        )

    def holders(self, what: Resource) -> tuple[str, ...]:
        """The clusters that hold some of ``what``, the largest first."""
        holding = [key for key, value in self.admitted.items() if value.of(what) > 0]
        return tuple(sorted(holding, key=lambda key: (-self.admitted[key].of(what), key)))


def _but(values: Mapping[str, T], key: str) -> dict[str, T]:
    return {name: value for name, value in values.items() if name != key}


@dataclass(frozen=True)
class Need:
    """What one request is held against limits for: its amounts, and what it is per cluster."""

    amounts: Amounts
    head: Bytes
    duration: Seconds
    priority: int = 0

    @classmethod
    def of(cls, plan: Plan, priority: int = 0) -> Need:
        return cls(amounts(plan), plan.head.memory, plan.timeouts.max, priority)

    def per_cluster(self, what: Resource) -> float:
        """The value that a limit per cluster on ``what`` is about."""
        return float(self.amounts.workers if what == Resource.WORKERS else getattr(self, what))


# How an amount is said: (what it is of, how its value is written, one of it).
_SAID: dict[Resource, tuple[str, Callable[[float], str]]] = {
    Resource.CLUSTERS: ("clusters", lambda value: f"{value:g}"),
    Resource.WORKERS: ("workers", lambda value: f"{value:g}"),
    Resource.CORES: ("cores", lambda value: f"{value:g}"),
    Resource.MEMORY: ("of memory", lambda value: str(Bytes(value))),
    Resource.GPUS: ("GPUs", lambda value: f"{value:g}"),
    Resource.SCRATCH: ("of scratch disk", lambda value: str(Bytes(value))),
    Resource.HEAD: ("for its head", lambda value: str(Bytes(value))),
    Resource.DURATION: ("of lifetime", lambda value: str(Seconds(value))),
    Resource.PRIORITY: ("priority", lambda value: f"{value:g}"),
    Resource.BUDGET: ("of a budget", lambda value: f"{value:g}"),
}


def written(what: Resource, value: float) -> str:
    """The value alone: ``written(Resource.MEMORY, 14e9)`` is ``"14 GB"``."""
    return _SAID[what][1](value)


def said(what: Resource, value: float) -> str:
    """An amount as people say it: ``"14 GB of memory"``, ``"1 GPU"``, ``"no GPUs"``."""
    noun = _SAID[what][0]
    if what == Resource.PRIORITY:
        return f"{noun} {written(what, value)}"
    if noun.startswith(("of ", "for ")):
        return f"{written(what, value)} {noun}"
    return f"no {noun}" if not value else count(value, noun.removesuffix("s"))


@dataclass(frozen=True)
class Shortage:
    """One limit in the way.

    ``scope``: whose limit (``"you"``, ``"team growth"``, ``"the machine"``). ``held``: what others of that
    scope hold already, by the clusters ``by``. ``never``: it would not fit an empty account either.
    """

    what: Resource
    scope: str
    limit: float
    held: float
    asked: float
    source: str
    by: tuple[str, ...] = ()
    never: bool = False

    def sentence(self, name: str, names: Mapping[str, str]) -> str:
        """Who needs what, and what is in the way; ``names`` says what to call clusters, by id."""
        needs = f"{name} requests {said(self.what, self.asked)}"
        you, machine = self.scope == "you", self.scope == "the machine"
        if self.never:
            if self.what == Resource.PRIORITY:
                may = "the limit is"
            elif self.what in (Resource.WORKERS, Resource.HEAD, Resource.DURATION):
                may = "the limit per cluster is"
            elif machine:
                may = f"{self.scope} has"
            elif not self.limit:
                may = "you may have" if you else f"{self.scope} may have"
            else:
                may = "your limit is" if you else f"the limit of {self.scope} is"
            return f"{needs}; {may} {said(self.what, self.limit)}: {self.source}"
        hold = "you hold" if you else f"{self.scope} holds"
        share = f"{written(self.what, self.held)} of {written(self.what, self.limit)}"
        holders = "; ".join(names.get(key, key) for key in self.by)
        return f"{needs}; {hold} {share} ({holders}): {self.source}"


def never_fits(need: Need, limits: Limits) -> tuple[Shortage, ...]:
    """Every limit that ``need`` is over by itself, with nothing else running."""
    found = [
        Shortage(what, "you", limit.value, 0, need.per_cluster(what), limit.source, never=True)
        for what, limit in limits.per_cluster.items()
        if need.per_cluster(what) > limit.value
    ]
    found += short_of(need.amounts, Account(), limits.totals, "you")
    found += short_of(need.amounts, Account(), limits.team_totals, f"team {limits.team}")
    return tuple(found)


def refuse_what_never_fits(need: Need, limits: Limits, name: str) -> None:
    """NeverFitsError with every limit that ``need`` is over by itself; ``name``: what it is told of."""
    shortages = never_fits(need, limits)
    if shortages:
        raise NeverFitsError(
            "\n".join(shortage.sentence(name, {}) for shortage in shortages),
            hint="Ask for less: waiting would not help. shoal quota shows your limits.",
            shortages=shortages,
        )


def short_of(
    asked: Amounts, account: Account, limits: Mapping[Resource, Limit], scope: str
) -> Iterable[Shortage]:
    """Every total in ``limits`` that ``account`` would be over with ``asked`` added."""
    held = account.held
    for what, limit in limits.items():
        need = asked.of(what)
        # What is not asked for does not collide, even where a lowered limit is already exceeded.
        if need > 0 and held.of(what) + need > limit.value:
            never = need > limit.value
            by = account.holders(what)
            yield Shortage(what, scope, limit.value, held.of(what), need, limit.source, by, never)
