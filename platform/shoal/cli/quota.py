"""``shoal quota``: what I may have, what I hold, and by which clusters.

Why it exists: a person who is refused wants to see the account that the refusal speaks of.

What it must not do: change anything.
"""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal quota
  shoal quota --user bob -o json
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("quota", epilog=EXAMPLES)(quota)


def quota(
    user: Annotated[str | None, typer.Option("--user", help="Somebody else's.")] = None,
    target: o.Target = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Show limits, what is held of them by which clusters, and where each limit is written."""
    from shoal.account import Account, amounts, real
    from shoal.admission import Place
    from shoal.cli import views
    from shoal.cli.console import out, write_json
    from shoal.clusters import open_project
    from shoal.homes.choose import open_home
    from shoal.project import look_up

    opened = open_project(project, target)
    home = open_home(opened)
    limits = opened.policy.limits_of(home.user() if user is None else user)
    live = home.clusters()
    mine = Account({c.id: amounts(c.plan) for c in live if c.owner == limits.user})
    team = Account({c.id: amounts(c.plan) for c in live if c.team == limits.team}) if limits.team else None
    machine = None
    if opened.target.machine is not None:
        there = look_up(opened.target.machine)
        used = Account({c.id: real(c.plan) for c in live}).held
        machine = views.machine_view(Place(there).limits, used, there.cores)
    view = views.quota_view(limits, mine, team, {c.id: c.name for c in live}, machine)
    if output is o.Output.JSON:
        write_json(view)
    else:
        from shoal.cli import tables

        out().print(tables.quota(view))
