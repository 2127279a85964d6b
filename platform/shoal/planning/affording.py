"""How long a cluster may live for what it may cost at most, and how large it may be for what an hour may cost.

Why it exists: ``max_cost="5 USD"`` and ``max_price="2 USD/h"`` are what people know before a run; a maximum lifetime
and a number of workers are what holds it.

What it must not do: settle any other number, or hold anything against a budget (admission does).
"""

from __future__ import annotations

from shoal.errors import UnitError, UsageError, WorkloadError
from shoal.model.workload import Plan
from shoal.project.budget import HOURS, Allowance, allowance, said
from shoal.quota.admission import with_workers
from shoal.quota.budgets import rates
from shoal.units import Seconds
from shoal.words import count

_LEAST = 60.0  # s: nothing is up before


def affordable(plan: Plan, max_cost: str, *, explicit: bool) -> Seconds | None:
    """The maximum lifetime in which ``plan`` takes no more than that, with all the workers that it may have.

    None where its own is not longer. ``explicit``: that one was asked for, and is not changed.

    Raises:
        UsageError: what it takes is not known, or it is too little for the cluster; an amount that cannot be read.
    """
    most = allowance(max_cost)
    rate = _rate(_largest(plan), most.unit, "max_cost")
    longest = float(most.amount) / rate * 3600 if rate else float("inf")
    if longest >= plan.timeouts.max:
        return None
    lasts = Seconds(int(longest))
    hour = said(rate, most.unit)
    if lasts < _LEAST:
        raise WorkloadError(
            f"max_cost: {most} lasts {lasts} at {hour} per hour",
            hint="Ask for fewer or smaller workers, or for more.",
            max_cost=str(most),
            lasts=float(lasts),
        )
    if explicit:
        whole = said(rate * plan.timeouts.max / 3600, most.unit)
        raise WorkloadError(
            f"max_cost: {plan.timeouts.max} may take {whole} at {hour} per hour, and max_cost is {most}",
            hint=f"Leave max_duration out, or write max_duration='{lasts}'; or ask for fewer workers.",
            max_cost=str(most),
            lasts=float(lasts),
        )
    return lasts


def workers_for(plan: Plan, max_price: str, *, explicit: bool) -> tuple[int, int] | None:
    """The range of workers (of its first group) in which an hour of ``plan`` takes no more than ``max_price``.

    None where all that it may have take no more. ``explicit``: their number was asked for, and is not changed.

    Raises:
        UsageError: what it takes is not known, or its fewest workers take more; an amount that cannot be read.
    """
    most, first, largest = _hourly(max_price), plan.groups[0], _largest(plan)
    if _rate(largest, most.unit, "max_price") <= float(most.amount):
        return None

    def rate(workers: int) -> float:
        return _rate(with_workers(largest, workers), most.unit, "max_price")

    fits = [many for many in range(1, first.maximum) if rate(many) <= float(most.amount)]
    if fits and fits[-1] >= first.minimum and not explicit:
        return first.minimum, fits[-1]
    fewest = first.maximum if explicit else first.minimum
    hint = (
        f"Write workers={fits[-1]}, which takes {said(rate(fits[-1]), most.unit)} an hour"
        if fits
        else (f"One worker takes {said(rate(1), most.unit)} an hour: ask for smaller ones")
    )
    may = f"{count(fewest, 'worker')} may take {said(rate(fewest), most.unit)} an hour"
    raise WorkloadError(
        f"max_price: {may}, and max_price is {most} an hour",
        hint=f"{hint}; or allow more.",
        max_price=f"{most}/h",
        workers=fits[-1] if fits else 0,
    )


def _hourly(max_price: str) -> Allowance:
    amount, _, per = str(max_price).partition("/")
    if per.strip().lower() not in ("h", "hour"):
        raise UnitError(f"{max_price!r} is not a price of an hour", hint="Write max_price as '2 USD/h'.")
    return allowance(amount)


def _largest(plan: Plan) -> Plan:
    """With all the workers that it may have."""
    for group in plan.groups:
        plan = with_workers(plan, group.maximum, group.name)
    return plan


def _rate(plan: Plan, unit: str, what: str) -> float:
    """What an hour of it takes; UsageError where that is not known."""
    if (rate := rates(plan).get(unit)) is not None:
        return rate
    priced = plan.price_per_hour
    known = f"has prices in {priced.currency}" if priced is not None else "has no prices"
    hint = f"Write {f'it in {priced.currency}, or ' if priced is not None else ''}{', '.join(HOURS)}."
    raise UsageError(f"{what} is in {unit}, and target {plan.target} {known}", hint=hint)
