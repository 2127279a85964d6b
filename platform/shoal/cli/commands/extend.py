"""``shoal extend``: let a cluster live longer, inside what the policy gives.

Why it exists: a run that takes longer than planned should not have to start anew.

What it must not do: decide whether it may (the home does).
"""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal extend nightly 6h             # in all, from its admission on
  shoal extend nightly +1h            # one hour more than it has
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("extend", epilog=EXAMPLES)(extend)


def extend(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Your cluster.", autocompletion=o.complete_clusters)
    ],
    longest: Annotated[
        str,
        typer.Argument(metavar="DURATION", help="Its whole life, from its admission on; +1h: so much more."),
    ],
    target: o.Target = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Extend a cluster's lifetime, up to your tier's limit: DURATION in all, from its admission on."""
    from shoal.cli import views
    from shoal.cli.console import out, write_json
    from shoal.client.clusters import find, open_project
    from shoal.homes.choose import open_home

    home = open_home(open_project(project, target))
    found = find(home, name)
    cluster = home.extend(found.id, found.plan.timeouts.longest(longest))
    if output is o.Output.JSON:
        write_json(views.cluster_view(cluster, home.status(cluster.id)))
        return
    out().print(f"{cluster.name} may live {cluster.plan.timeouts.max} in all", markup=False)
