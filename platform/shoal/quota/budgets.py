"""What runs took of a month's budget, what they may still take, and whether one more fits. Pure: values in, values out.

Why it exists: a budget that is only looked at afterwards is a report. Whoever is admitted reserves what it takes until
its maximum lifetime, so that nothing that was admitted goes over.

The rules: a run takes, by the hour, what its plan has admitted (its workers whether they work or not, and its head),
from its admission to its end, and never for longer than its maximum lifetime: the seconds that an end itself takes are
left out. It counts in the months of UTC that it lies in, each by its part. Whether one more fits is asked of every
month that it may reach into. A run without a price takes nothing of a budget in money.

What it must not do: read a clock, look records up, or know a home.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from shoal.model.cluster import Cluster, EndedRun
from shoal.model.resource import Resource
from shoal.model.workload import Plan
from shoal.project.budget import BudgetLimit, said
from shoal.project.policy import Limits
from shoal.quota.account import Shortage
from shoal.units import Seconds

_GIB = 2**30
EXACT = 1e-9  # what sums of floats may be wrong by
_MINUTE = 60


@dataclass(frozen=True)
class Month:
    """A calendar month of UTC: ``"2026-11"``, from ``begin`` until before ``end`` (seconds since the epoch)."""

    name: str
    begin: float
    end: float


def month_of(at: float) -> Month:
    """The month in which that moment lies."""
    first = datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=32)).replace(day=1)
    return Month(first.strftime("%Y-%m"), first.timestamp(), following.timestamp())


def months(begin: float, end: float) -> Iterator[Month]:
    """Those from ``begin`` to ``end``; at least the one of ``begin``."""
    month = month_of(begin)
    yield month
    while month.end < end:
        month = month_of(month.end)
        yield month


def rates(plan: Plan) -> dict[str, float]:
    """What an hour of it takes, by unit. No currency where its price is not known."""
    # Kept with the plan, which never changes: many runs have the same one.
    found: dict[str, float] | None = vars(plan).get("_rates")
    if found is None:
        found = vars(plan)["_rates"] = _rates(plan)
    return found


def _rates(plan: Plan) -> dict[str, float]:
    head, heads = plan.head_there or plan.head, 2 if plan.runner else 1
    parts = [(heads, head, 0), *((group.count, group.there, group.gpus) for group in plan.groups)]
    found = {
        "core-hours": float(sum(many * size.cores for many, size, _ in parts)),
        "GiB-hours": sum(many * int(size.memory) for many, size, _ in parts) / _GIB,
        "GPU-hours": float(sum(many * gpus for many, _, gpus in parts)),
    }
    if plan.price_per_hour is not None:
        found[plan.price_per_hour.currency] = max(0.0, float(plan.price_per_hour.amount))
    return found


def most(plan: Plan, unit: str) -> float | None:
    """What it may take until its maximum lifetime; None where its price is not known."""
    its = rates(plan).get(unit)
    return None if its is None else its * plan.timeouts.max / 3600


@dataclass(frozen=True)
class Spender:
    """One run: what it took ``before`` (by month and unit) ``since`` when it takes ``rates``, and ``until`` when.

    ``until`` is its end: where it ``runs`` still, that of its maximum lifetime.
    """

    rates: Mapping[str, float]
    since: float
    until: float
    before: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    runs: bool = True

    @classmethod
    def of(cls, cluster: Cluster | EndedRun) -> Spender | None:
        """None for one that was never admitted."""
        if cluster.admitted_at is None:
            return None
        until = cluster.admitted_at + cluster.plan.timeouts.max
        if (ended := cluster.ended_at) is not None:
            until = min(ended, until)
        since, before = cluster.admitted_at, {}
        if cluster.accrued:
            since, before = cluster.accrued["until"], cluster.accrued["months"]
        return cls(rates(cluster.plan), since, until, before, ended is None)

    def takes(self, unit: str, month: Month, now: float = math.inf) -> float:
        """In that month, until it ends; or until ``now``."""
        seconds = min(self.until, month.end, now) - max(self.since, month.begin)
        return self.before.get(month.name, {}).get(unit, 0.0) + (
            self.rates.get(unit, 0.0) * max(0.0, seconds) / 3600
        )

    def held(self, unit: str, month: Month, now: float, reserve: float) -> float:
        """In that month, as a budget counts it: what it took until ``now``, and a part of what it may still take."""
        whole = self.takes(unit, month)
        if reserve == 1:
            return whole
        return whole - (1 - reserve) * (whole - self.takes(unit, month, now))

    def at(self, now: float) -> Spender:
        """The same, with what it took until ``now`` as what it took before. A clock that went back changes nothing."""
        till = min(max(self.since, now), max(self.since, self.until))
        before = {name: dict(taken) for name, taken in self.before.items()}
        for month in months(self.since, till):
            taken = {
                unit: self.takes(unit, month, till) for unit in {*self.rates, *before.get(month.name, {})}
            }
            before[month.name] = taken
        return replace(self, since=till, before=before)


def accrued(cluster: Cluster, now: float) -> dict[str, Any]:
    """What a record keeps of what it took until ``now``, when its plan is about to change; see ``Cluster.accrued``."""
    spender = Spender.of(cluster)
    if spender is None:
        return {}
    brought = spender.at(now)
    return {"until": brought.since, "months": {name: dict(taken) for name, taken in brought.before.items()}}


def whose(scope: str) -> str:
    """The budget of that scope (``"you"``, ``"team growth"``), for people."""
    return "your budget" if scope == "you" else f"the budget of {scope}"


@dataclass(frozen=True)
class BudgetStatus:
    """How a budget stands in a month: what its runs took, and what of it is reserved for those that run.

    ``unpriced`` counts the runs that take nothing of it since their price is not known, or in another currency.
    """

    scope: str
    month: str
    limit: BudgetLimit
    spent: float
    reserved: float
    unpriced: int = 0
    template: str | None = None
    """Of whose clusters alone it is, if of one template's."""

    def concerns(self, plan: Plan) -> bool:
        """Whether a cluster of this plan takes of it."""
        return self.template in (None, plan.template)

    @property
    def left(self) -> float:
        """What one more may take; 0 also where a lowered budget is exceeded already."""
        return max(0.0, self.limit.monthly - self.spent - self.reserved)

    @property
    def warned(self) -> bool:
        """Whether so much is spent that people are told."""
        return self.spent >= self.limit.budget.warn * self.limit.monthly * (1 - EXACT)

    @property
    def whose(self) -> str:
        """For people: ``"your budget"``, ``"the budget of team growth"``."""
        return whose(self.scope)

    def sentence(self) -> str:
        """How much is spent, for people."""
        return (
            f"{self.spent / self.limit.monthly:.0%} of {self.whose} of {self.limit.budget.monthly} for {self.month} is "
            f"spent, {said(self.left, self.limit.unit)} left: {self.limit.source}"
        )


def warnings(standings: Iterable[BudgetStatus], plan: Plan) -> list[str]:
    """What people are told of the budgets that a cluster of this plan takes of: those of which much is spent."""
    return [each.sentence() for each in standings if each.warned and each.concerns(plan)]


@dataclass(frozen=True)
class Overspending(Shortage):
    """One budget in the way. ``held`` is what was spent and is reserved besides, ``spent`` the first of them.

    ``lasts``: for how long it could run within what is left (None: not for a minute). ``reserve``: which part of what
    it may take is asked for.
    """

    unit: str = ""
    month: str = ""
    spent: float = 0.0
    lasts: Seconds | None = None
    unpriced: bool = False
    reserve: float = 1.0

    def sentence(self, name: str, names: Mapping[str, str]) -> str:
        """Who may take what, and what is left of it; ``names`` says what to call clusters, by id."""
        theirs, whole = whose(self.scope), said(self.limit, self.unit)
        if self.unpriced:
            return f"{name} has no price in {self.unit}, in which {theirs} is: {self.source}"
        may = f"{name} may take {said(self.asked, self.unit)} in {self.month} until its maximum lifetime"
        if self.reserve < 1:
            part = f"{self.reserve:.0%} of what it may take in {self.month} until its maximum lifetime"
            may = f"{name} reserves {said(self.asked, self.unit)}, {part}"
        if self.never:
            return f"{may}; {theirs} for a month is {whole}: {self.source}"
        left = said(max(0.0, self.limit - self.held), self.unit)
        reserved = said(max(0.0, self.held - self.spent), self.unit)
        by = f" ({'; '.join(names.get(key, key) for key in self.by)})" if self.by else ""
        return (
            f"{may}; {left} of {theirs} of {whole} is left: {said(self.spent, self.unit)} spent, "
            f"{reserved} reserved{by}: {self.source}"
        )


@dataclass(frozen=True)
class Purse:
    """One budget with everything that takes of it, ``now`` by the store's clock.

    ``template``: the one whose clusters alone take of it; None: all.
    """

    scope: str
    limit: BudgetLimit
    spenders: Mapping[str, Spender]
    now: float
    template: str | None = None

    def standing(self) -> BudgetStatus:
        """This month's."""
        month, unit = month_of(self.now), self.limit.unit
        held = sum(self._held(each, month) for each in self.spenders.values())
        spent = sum(each.takes(unit, month, self.now) for each in self.spenders.values())
        there = [each for each in self.spenders.values() if each.until > month.begin]
        unpriced = sum(unit not in each.rates for each in there)
        reserved = max(0.0, held - spent)
        return BudgetStatus(self.scope, month.name, self.limit, spent, reserved, unpriced, self.template)

    def concerns(self, plan: Plan) -> bool:
        """Whether a cluster of this plan takes of it."""
        return self.template in (None, plan.template)

    def with_(self, cluster: str, plan: Plan, until: float | None = None) -> Purse:
        """As if ``cluster`` were admitted with this plan, instead of any that it has."""
        if not self.concerns(plan):
            return self
        return replace(self, spenders={**self.spenders, cluster: self._asking(cluster, plan, until)})

    def without(self, clusters: Iterable[str]) -> Purse:
        """As if these ended now. What they took, they took."""
        ended = {
            key: replace(each, until=min(each.until, max(each.since, self.now)), runs=False)
            for key in clusters
            if (each := self.spenders.get(key)) is not None and each.runs
        }
        return replace(self, spenders={**self.spenders, **ended})

    def fits(self, cluster: str, plan: Plan, until: float | None = None) -> bool:
        """Whether ``cluster`` may have this plan (and live ``until`` then) within what is left."""
        return (
            not self.concerns(plan) or self._first_over(cluster, self._asking(cluster, plan, until)) is None
        )

    def short(self, cluster: str, plan: Plan, until: float | None = None) -> Overspending | None:
        """What is in the way of that."""
        if not self.concerns(plan):
            return None
        asking, unit = self._asking(cluster, plan, until), self.limit.unit
        if (month := self._first_over(cluster, asking)) is None:
            return None
        others = {key: each for key, each in self.spenders.items() if key != cluster}
        own, limit = self._held(asking, month), self.limit.monthly
        unpriced = unit not in asking.rates
        taking = {
            key: self._held(each, month) - each.takes(unit, month, self.now)
            for key, each in others.items()
            if each.runs
        }
        return Overspending(
            Resource.BUDGET,
            self.scope,
            limit,
            sum(self._held(each, month) for each in others.values()),
            own,
            self.limit.source,
            tuple(sorted((key for key in taking if taking[key] > 0), key=lambda key: (-taking[key], key))),
            unpriced or own > limit * (1 + EXACT),
            unit,
            month.name,
            sum(each.takes(unit, month, self.now) for each in others.values()),
            self._lasts(cluster, asking),
            unpriced,
            self.limit.budget.reserve,
        )

    def _held(self, spender: Spender, month: Month) -> float:
        return spender.held(self.limit.unit, month, self.now, self.limit.budget.reserve)

    def _asking(self, cluster: str, plan: Plan, until: float | None) -> Spender:
        known = self.spenders.get(cluster)
        if known is None or not known.runs:
            end = self.now + plan.timeouts.max if until is None else until
            return Spender(rates(plan), self.now, end)
        return replace(known.at(self.now), rates=rates(plan), until=known.until if until is None else until)

    def _first_over(self, cluster: str, asking: Spender) -> Month | None:
        """The first month in which it would be over; what takes no more than it has is never in the way."""
        unit, known = self.limit.unit, self.spenders.get(cluster)
        if unit not in asking.rates:
            return month_of(self.now)
        for month in months(self.now, asking.until):
            own = self._held(asking, month)
            if known is not None and known.runs and own <= self._held(known, month) * (1 + EXACT):
                continue
            others = sum(self._held(each, month) for key, each in self.spenders.items() if key != cluster)
            if own > 0 and others + own > self.limit.monthly * (1 + EXACT):
                return month
        return None

    def _lasts(self, cluster: str, asking: Spender) -> Seconds | None:
        low, high = (
            0,
            math.ceil(max(0.0, asking.until - self.now) / _MINUTE),
        )  # minutes: low fits, high does not
        while high - low > 1:
            middle = (low + high) // 2
            shorter = replace(asking, until=self.now + middle * _MINUTE)
            low, high = (low, middle) if self._first_over(cluster, shorter) is not None else (middle, high)
        return Seconds(low * _MINUTE) if low else None


@dataclass(frozen=True)
class Spending:
    """Everything that took or may take of a budget this month, by user, team and template, and by cluster in each;
    ``everybody`` holds all of it."""

    now: float
    users: Mapping[str, Mapping[str, Spender]] = field(default_factory=dict)
    teams: Mapping[str, Mapping[str, Spender]] = field(default_factory=dict)
    templates: Mapping[str, Mapping[str, Spender]] = field(default_factory=dict)
    everybody: Mapping[str, Spender] = field(default_factory=dict)

    @classmethod
    def of(cls, clusters: Iterable[Cluster | EndedRun], now: float) -> Spending:
        """From records: those that live, and those that ended this month."""
        users: dict[str, dict[str, Spender]] = {}
        teams: dict[str, dict[str, Spender]] = {}
        templates: dict[str, dict[str, Spender]] = {}
        everybody: dict[str, Spender] = {}
        for cluster in clusters:
            if (spender := Spender.of(cluster)) is not None:
                users.setdefault(cluster.owner, {})[cluster.id] = spender
                if cluster.team is not None:
                    teams.setdefault(cluster.team, {})[cluster.id] = spender
                templates.setdefault(cluster.plan.template, {})[cluster.id] = spender
                everybody[cluster.id] = spender
        return cls(now, users, teams, templates, everybody)

    def purses(self, limits: Limits) -> tuple[Purse, ...]:
        """The budgets that somebody with these limits is held against."""
        found = []
        if limits.budget is not None:
            found.append(Purse("you", limits.budget, self.users.get(limits.user, {}), self.now))
        if limits.team_budget is not None and limits.team is not None:
            its = self.teams.get(limits.team, {})
            found.append(Purse(f"team {limits.team}", limits.team_budget, its, self.now))
        for name, limit in limits.template_budgets.items():
            found.append(Purse(f"template {name}", limit, self.templates.get(name, {}), self.now, name))
        if limits.everybody_budget is not None:
            found.append(Purse("everybody", limits.everybody_budget, self.everybody, self.now))
        return tuple(found)
