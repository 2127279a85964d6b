"""``shoal dashboard``: the link to a cluster's own pages, with the way there held open.

Why it exists: out of Kubernetes the way to those pages is a tunnel, which lives as long as the process that opened it.

What it must not do: open a browser unasked.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal dashboard nightly
  shoal dashboard nightly --open
"""
_LOOK = 2.0  # s between looks whether it still runs


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("dashboard", epilog=EXAMPLES)(dashboard)


def dashboard(
    name: o.ClusterName,
    browse: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Print the link to a cluster's dashboard. It lets in whoever has it.

    Where the way there is a tunnel, it is held until Ctrl-C, or until the cluster ends.
    """
    from shoal.cli.commands.listing import open_target
    from shoal.cli.console import out, say, write_json
    from shoal.client.finding import find
    from shoal.errors import InfrastructureError, NotFoundError, UsageError

    home = open_target(project, target)
    cluster = find(home, name)
    link = home.dashboard(cluster.id, lasting=True)
    lasts = bool(link)
    link = link or home.dashboard(cluster.id)
    if not link:
        raise UsageError(
            f"{name} has no dashboard: it runs {cluster.plan.engine}",
            hint=f"`shoal top {name}` shows what it uses.",
        )
    if output is o.Output.JSON:
        write_json({"name": name, "dashboard": link, "lasts": lasts})
    else:
        out().print(link, markup=False, soft_wrap=True)
    sys.stdout.flush()
    if browse:
        import webbrowser

        webbrowser.open(link)
    if lasts:
        return
    say("The link works until you press Ctrl-C.")
    while True:
        time.sleep(_LOOK)
        try:
            cluster = home.get(cluster.id)
        except NotFoundError:
            say(f"{name} is gone.")
            return
        except InfrastructureError:  # its API server is away; it may come back
            continue
        if cluster.state.ended:
            say(f"{name} ended: {cluster.reason}, {cluster.message}")
            return
