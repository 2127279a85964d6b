"""How long a cluster may live for what it may cost at most.

Why it exists: ``max_cost="5 USD"`` is what people know before a run; a maximum lifetime is what holds it.

What it must not do: settle any other number, or hold anything against a budget (admission does).
"""

from __future__ import annotations

from shoal.errors import UsageError, WorkloadError
from shoal.model.workload import Plan
from shoal.project.budget import HOURS, allowance, said
from shoal.quota.admission import with_workers
from shoal.quota.budgets import rates
from shoal.units import Seconds

_LEAST = 60.0  # s: nothing is up before


def affordable(plan: Plan, max_cost: str, *, explicit: bool) -> Seconds | None:
    """The maximum lifetime in which ``plan`` takes no more than that, with all the workers that it may have.

    None where its own is not longer. ``explicit``: that one was asked for, and is not changed.

    Raises:
        UsageError: what it takes is not known, or it is too little for the cluster; an amount that cannot be read.
    """
    most = allowance(max_cost)
    largest = plan
    for group in plan.groups:
        largest = with_workers(largest, group.maximum, group.name)
    rate = rates(largest).get(most.unit)
    if rate is None:
        priced = plan.price_per_hour
        known = f"has prices in {priced.currency}" if priced is not None else "has no prices"
        hint = f"Write {f'it in {priced.currency}, or ' if priced is not None else ''}{', '.join(HOURS)}."
        raise UsageError(f"max_cost is in {most.unit}, and target {plan.target} {known}", hint=hint)
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
