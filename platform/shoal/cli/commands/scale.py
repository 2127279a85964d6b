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
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("scale", epilog=EXAMPLES)(scale)


def scale(
    name: o.ClusterName,
    workers: Annotated[int, typer.Argument(metavar="WORKERS", help="Number of workers.")],
    target: o.Target = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Give a cluster more or fewer workers, within your limits, and wait until it has them."""
    from shoal.cli import views
    from shoal.cli.console import out, write_json
    from shoal.client.clusters import connect, open_project
    from shoal.homes.choose import open_home

    handle = connect(name, target=target, project=project)
    record = handle.scale(workers).record
    if output is o.Output.JSON:
        home = open_home(open_project(project, target))
        write_json(views.cluster_view(record, home.status(record.id)))
        return
    out().print(f"{record.name} has {record.workers} workers", markup=False)
