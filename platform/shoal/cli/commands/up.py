"""``shoal plan`` and ``shoal up``: see what it would be, then start it.

Why it exists: nobody starts a cluster without having seen its size, its reasons and its price.

What it must not do: decide anything itself (sizing and admission do).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from shoal.cli import options as o

if TYPE_CHECKING:
    from shoal.client.preparing import Prepared

PLAN_EXAMPLES = """\b
Examples:
  shoal plan etl --data '25 GB'
  shoal plan ml-training --gpu 1 --workers 2-4 -o json
"""
UP_EXAMPLES = """\b
Examples:
  shoal up etl --data '25 GB' --name nightly
  shoal up analytics --detach        # keeps running without a client, until it is idle
  shoal up etl --dry-run             # what it would be, and whether it fits
\b
Then in Python:
  cluster = shoal.connect("nightly")
"""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("plan", epilog=PLAN_EXAMPLES)(o.asking(plan))
    app.command("up", epilog=UP_EXAMPLES)(o.asking(up))


def plan(
    template: o.TemplateArgument = None,
    asked: dict[str, Any] = o.NOTHING,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Show what a cluster would be, why each number, and whether it fits; change nothing."""
    from shoal.client.preparing import prepare

    request = prepare(template, project=project, target=target, **asked)
    show_plan(request, request.plan.template, output)


def up(
    template: o.TemplateArgument = None,
    asked: dict[str, Any] = o.NOTHING,
    name: o.Name = None,
    detach: o.Detach = False,
    queue: o.Queue = False,
    priority: o.PriorityOption = None,
    dry_run: o.DryRun = False,
    yes: o.Yes = False,
    verbose: o.Verbose = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Start a cluster and wait until it is Ready. It ends on its own when nobody uses it."""
    from shoal.client.clusters import start
    from shoal.client.preparing import prepare
    from shoal.homes.base import dashboard_of
    from shoal.homes.choose import open_home
    from shoal.model.names import checked

    if name is not None:
        checked(name)  # before a plan is shown for what cannot be
    request = prepare(
        template, project=project, target=target, queue=queue or None, priority=priority, **asked
    )
    if dry_run:
        show_plan(request, name or request.plan.template, output)
        return
    agree(request, yes=yes, quiet=output is o.Output.JSON, verbose=verbose, detach=detach)
    handle = start(request, name=name, keep=True, detach=detach, quiet=output is o.Output.JSON)
    record = handle.record
    if output is o.Output.JSON:
        from shoal.cli import views
        from shoal.cli.console import write_json

        home = open_home(request.project)
        write_json(
            views.cluster_view(record, home.status(record.id), dashboard_of(home, record, lasting=True))
        )
        return
    from shoal.cli.console import out
    from shoal.model.cluster import State
    from shoal.units import Seconds

    name = record.name
    timeouts = record.plan.timeouts
    waits = timeouts.idle if detach else Seconds(min(timeouts.idle, timeouts.no_client))
    if record.state is State.QUEUED:
        out().print(
            f"{name} is Queued: {record.message}\n  It starts on its own.  See: shoal why {name}",
            markup=False,
        )
        return
    link = dashboard_of(open_home(request.project), record, lasting=True)
    watch = f"  Dashboard: {link}\n" if link else ""
    out().print(f"{name} is Ready: {record.message}", markup=False)
    out().print(
        f'  Use it:    shoal.connect("{name}") in Python, within {waits}\n'
        f"  Look:      shoal ls | shoal why {name} | shoal logs {name} | shoal dashboard {name}\n"
        f"{watch}  End it:    shoal down {name}",
        markup=False,
        soft_wrap=True,
    )


def show_plan(request: Prepared, name: str, output: o.Output) -> None:
    """The plan, and whether it fits."""
    from shoal.cli import views

    fits, why_not = _fit(request, name)
    if output is o.Output.JSON:
        from shoal.cli.console import write_json

        write_json(views.plan_view(request.plan) | {"admission": fits})
        return
    from shoal.cli import layout as tables
    from shoal.cli.console import out

    out().print(tables.plan(request.plan))
    out().print()
    if fits is None:
        out().print(f"Could not check quota: {why_not}", markup=False)
    else:
        out().print(tables.fit(fits))


def agree(request: Prepared, *, yes: bool, quiet: bool, verbose: bool = False, detach: bool = False) -> None:
    """Show the plan in brief, or all of it; ask where it costs money."""
    from shoal.cli.console import confirm, err, say

    if not quiet and not verbose:
        from shoal.client.preparing import describe

        say(describe(request.plan, detach=detach))
    elif not quiet:
        from shoal.cli import layout as tables

        err().print(tables.plan(request.plan))
        err().print()
    price = request.plan.price_per_hour
    if price is not None and not confirm(
        f"Start it for {price} per hour?", yes=yes, unattended=f"this would cost {price} per hour"
    ):
        raise typer.Exit(0)


def _fit(request: Prepared, name: str) -> tuple[dict[str, Any] | None, str]:
    """Whether it would be admitted now; None, with why, where that cannot be told."""
    from shoal.cli import views
    from shoal.errors import ShoalError
    from shoal.homes.base import KeepsBudgets, Request
    from shoal.homes.choose import open_home

    try:
        home = open_home(request.project)
        held, would = (
            home.held(request.user),
            home.would(Request(name, request.user, request.workload, request.plan)),
        )
        budgets = home.budgets(request.user) if isinstance(home, KeepsBudgets) else ()
    except ShoalError as error:
        return None, error.message
    return views.fit_view(request.plan, request.limits, held, would, budgets), ""
