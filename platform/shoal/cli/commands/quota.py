"""``shoal quota``: what I may have, what I hold, and by which clusters.

Why it exists: a person who is refused wants to see the account that the refusal speaks of.

What it must not do: change anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli import options as o

if TYPE_CHECKING:
    from shoal.model.cluster import Cluster

EXAMPLES = """\b
Examples:
  shoal quota
  shoal quota --user bob -o json
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("quota", epilog=EXAMPLES)(quota)


def quota(
    user: Annotated[str | None, typer.Option("--user", help="Show another user's limits.")] = None,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Show limits, what is held of them by which clusters, what waits, and where each limit is written."""
    from shoal.cli import views
    from shoal.cli.console import out, write_json
    from shoal.client.finding import open_project
    from shoal.homes.base import KeepsBudgets
    from shoal.homes.choose import in_force, open_home
    from shoal.project.loading import look_up
    from shoal.quota.account import Account, amounts, real
    from shoal.quota.admission import Capacity

    opened = in_force(open_project(project, target))
    home = open_home(opened)
    limits = opened.policy.limits_of(home.user() if user is None else user)
    live = home.clusters()

    def waiting(of: list[Cluster]) -> Account:
        return Account({c.id: amounts(c.plan) for c in of if not c.state.admitted})

    mine = [cluster for cluster in live if cluster.owner == limits.user]
    ours = [cluster for cluster in live if limits.team and cluster.team == limits.team]
    machine = None
    if opened.target.machine is not None:
        there = look_up(opened.target.machine)
        used = Account({c.id: real(c.plan) for c in live if c.state.admitted}).held
        machine = views.machine_view(Capacity(there).limits, used, there.cores)
    view = views.quota_view(
        limits,
        home.held(limits.user),
        home.held(limits.team, team=True) if limits.team else None,
        {c.id: c.name for c in live},
        machine,
        waiting(mine),
        waiting(ours),
        home.budgets(limits.user) if isinstance(home, KeepsBudgets) else (),
    )
    if output is o.Output.JSON:
        write_json(view | ({"numbers": opened.numbers} if opened.numbers else {}))
    else:
        from shoal.cli import layout as tables

        out().print(tables.quota(view))
        if opened.numbers:
            out().print(f"Limits {opened.numbers}.", markup=False, highlight=False)
