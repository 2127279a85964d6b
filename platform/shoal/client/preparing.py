"""``shoal.plan``: a request with every number settled, before anything is spent.

Why it exists: `shoal plan` and ``shoal.plan`` show it, and every start begins with it.

What it must not do: ask for a cluster, or import a handle or an engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shoal.client.finding import open_project
from shoal.errors import UsageError
from shoal.homes.base import RunsScripts
from shoal.homes.choose import in_force, open_home, user_of
from shoal.model.workload import Plan, Timeouts, Why, Workload
from shoal.planning.affording import affordable, workers_for
from shoal.planning.asking import ask, refuse_unknown
from shoal.planning.sizing import lowered
from shoal.planning.sizing import plan as size
from shoal.project.loading import Project
from shoal.project.policy import Limits
from shoal.words import count


@dataclass(frozen=True)
class Prepared:
    """Everything that is settled before anything is spent."""

    project: Project
    workload: Workload
    plan: Plan
    limits: Limits
    user: str


def plan(template: str | None = None, **options: Any) -> Plan:
    """What :func:`up` would start with these options; changes nothing."""
    refuse_unknown("shoal.plan", options, "engine", "project", "target", "max_cost", "max_price")
    return prepare(template, **options).plan


def prepare(
    template: str | None = None,
    *,
    project: str | Path | None = None,
    target: str | None = None,
    script: bool = False,
    max_cost: str | None = None,
    max_price: str | None = None,
    **options: Any,
) -> Prepared:
    """Read the project and settle every number; ``options`` as :func:`shoal.planning.asking.ask` takes them.

    ``script``: it is for a script; where its home runs that itself, ``plan.runner`` says so. ``max_cost``: what it may
    cost at most, such as ``"5 USD"`` or ``"20 core-hours"``; its maximum lifetime is made as short as that.
    ``max_price``: what an hour may cost at most, such as ``"2 USD/h"``; it has no more workers than that.
    """
    if not isinstance(template, str | None):
        raise UsageError(f"{template!r} is not a template's name", hint="Pass a string, such as 'etl'.")
    workload = ask(template or "etl", **options)
    opened = in_force(open_project(project, target), workload.template)
    user = user_of(opened)
    limits = opened.policy.limits_of(user)
    runner = script and isinstance(open_home(opened), RunsScripts)
    found = opened.template(workload.template)
    settled = size(workload, found, limits, opened.target, runner=runner)
    instead: dict[str, str] = {}  # what was asked for by way of what it may cost
    if max_price is not None:
        explicit = isinstance(workload.workers, int)
        if (bounds := workers_for(settled, max_price, explicit=explicit)) is not None:
            workload = replace(workload, workers=bounds)
            settled = size(workload, found, limits, opened.target, runner=runner)
            instead["workers"] = max_price
    if max_cost is not None:
        explicit = workload.max_duration is not None
        if (longest := affordable(settled, max_cost, explicit=explicit)) is not None:
            workload = replace(workload, max_duration=longest)
            settled = size(workload, found, limits, opened.target, runner=runner)
            instead["timeouts"] = max_cost
    for what, most in instead.items():
        why = settled.reasons[what]
        told = why.replace("as requested", f"for {most} at most")
        kept = Why(told, why.lowered) if isinstance(why, Why) else told
        settled = replace(settled, reasons={**settled.reasons, what: kept})
    if opened.numbers:
        settled = replace(settled, reasons={**settled.reasons, "numbers": opened.numbers})
    return Prepared(opened, workload, settled, limits, user)


def describe(plan: Plan, *, detach: bool = False) -> str:
    """The plan in two or three lines: size, price, what a limit lowered, when it ends on its own.

    ``detach``: it does not end for want of a client.
    """
    price = f"{plan.price_per_hour} per hour" if plan.price_per_hour is not None else "no price known"
    each = []
    for group in plan.groups:
        bounds = f" ({group.minimum} to {group.maximum})" if group.minimum != group.maximum else ""
        many = f"{group.count} {group.name}" if len(plan.groups) > 1 else count(group.count, "worker")
        gpus = f", {count(group.gpus, 'GPU')}" if group.gpus and len(plan.groups) > 1 else ""
        each.append(f"{many}{bounds} of {count(group.size.cores, 'core')}, {group.size.memory}{gpus}")
    what, asked = f"{plan.template} on {plan.engine}, target {plan.target}", f"{' + '.join(each)}; {price}"
    really = [plan.reasons[key] for key in ("numbers", "here") if key in plan.reasons]
    # What will be there comes first; what counts in quota second.
    first = (
        [what, *really, f"requested size, which counts in quota: {asked}"] if really else [f"{what}: {asked}"]
    )
    when = ends(plan.timeouts, detach=detach)
    return "\n  ".join([*first, *lowered(plan), f"{when}; reasons: shoal plan {plan.template}"])


def ends(times: Timeouts, *, detach: bool) -> str:
    """When it ends on its own; a detached one waits for no client."""
    alone = "" if detach else f"{times.no_client} without a client, "
    return f"ends after {times.idle} idle, {alone}{times.max} in total"
