"""When a budget that ends what runs is used up: by what was taken, and what goes on being taken. Pure.

Why it exists: a budget may be used up though nothing was admitted beyond it: it was lowered since, or it reserves only
a part of what runs may still take. What then ends is told ahead of time, so it has to be known ahead of time.

What it must not do: end anything, or say when people are told (``governor.lifecycle``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from shoal.errors import UsageError
from shoal.model.cluster import Cluster
from shoal.project.budget import said
from shoal.project.policy import Policy
from shoal.quota.budgets import EXACT, Purse, Spending, months
from shoal.units import Seconds


@dataclass(frozen=True)
class UsedUp:
    """When the first of a cluster's budgets that end what runs is used up, if nothing changes: ``at``, in seconds since
    the epoch by the store's clock; infinity: in the time of its ``grace`` none is. ``message``: which, and how it
    stands."""

    at: float = math.inf
    grace: Seconds = Seconds(0)
    message: str = ""


def used_up(cluster: Cluster, policy: Policy, spending: Spending | None) -> UsedUp | None:
    """Of the budgets that this cluster is held against; None where nobody can tell: by half a policy, or of somebody
    whom it does not know any more, nobody is ended."""
    if spending is None or policy.faults or not policy.stops or not cluster.state.admitted:
        return None
    try:
        return first_used_up(spending.purses(policy.limits_of(cluster.owner)), cluster.id)
    except UsageError:
        return None


def first_used_up(purses: Iterable[Purse], cluster: str) -> UsedUp:
    """Of these budgets; one that a cluster takes nothing of does not end it."""
    found = UsedUp()
    for purse in purses:
        budget, its = purse.limit.budget, purse.spenders.get(cluster)
        if not budget.stops or its is None or not its.runs or not its.rates.get(purse.limit.unit):
            continue
        at = _when(purse, purse.now + budget.grace)
        if at < found.at:
            found = UsedUp(at, budget.grace, _sentence(purse))
    return found


def _when(purse: Purse, until: float) -> float:
    """The first moment from now on at which all of a month's budget is taken; infinity: none before ``until``."""
    unit, limit = purse.limit.unit, purse.limit.monthly
    for month in months(purse.now, until):
        begin, end = max(purse.now, month.begin), min(month.end, until)
        changes = {at for each in purse.spenders.values() for at in (each.since, each.until)}
        before = sum(each.takes(unit, month, begin) for each in purse.spenders.values())
        for at in (*sorted(at for at in changes if begin < at < end), end):
            taken = sum(each.takes(unit, month, at) for each in purse.spenders.values())
            if taken > limit * (1 + EXACT):
                return (
                    begin if before >= limit else begin + (at - begin) * (limit - before) / (taken - before)
                )
            begin, before = at, taken
    return math.inf


def _sentence(purse: Purse) -> str:
    stands = purse.standing()
    spent, whole = said(stands.spent, purse.limit.unit), purse.limit.budget.monthly
    return (
        f"{spent} of {stands.whose} of {whole} for {stands.month} is spent, and what runs ends with it: "
        f"{purse.limit.source}"
    )
