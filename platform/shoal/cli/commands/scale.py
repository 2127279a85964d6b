"""``shoal scale``: another number of workers for a cluster that runs.

Why it exists: a cluster of the wrong size is resized, not started again.

What it must not do: decide whether it may grow (admission does).
"""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal scale nightly 4
  shoal scale nightly 2 --group gpu
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("scale", epilog=EXAMPLES)(scale)


def scale(
    name: o.ClusterName,
    workers: Annotated[int, typer.Argument(metavar="WORKERS", help="Number of workers.")],
    group: Annotated[
        str, typer.Option("--group", help="Group of workers; default: the first.", show_default=False)
    ] = "",
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Give a cluster more or fewer workers, within your limits, and wait until it has them."""
    from shoal.cli import views
    from shoal.cli.console import out, write_json
    from shoal.client.clusters import connect
    from shoal.client.finding import open_project
    from shoal.homes.choose import open_home
    from shoal.words import count

    handle = connect(name, target=target, project=project)
    record = handle.scale(workers, group=group).record
    if output is o.Output.JSON:
        home = open_home(open_project(project, target, looking=True))
        write_json(views.cluster_view(record, home.status(record.id)))
        return
    several = f" ({record.plan.by_group})" if len(record.plan.groups) > 1 else ""
    out().print(f"{record.name} has {count(record.workers, 'worker')}{several}", markup=False)
