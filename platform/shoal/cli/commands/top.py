"""``shoal top``: what clusters use now, again and again.

Why it exists: one look tells which cluster computes, which is idle, and which is near its limit.

What it must not do: ask anything but heads.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal top
  shoal top nightly
  shoal top --once
  shoal top -o json
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("top", epilog=EXAMPLES)(top)


def top(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Only this cluster.", autocompletion=o.complete_clusters),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Print once and exit; works without a terminal.")
    ] = False,
    every: Annotated[float, typer.Option("--every", min=0.5, help="Seconds between updates.")] = 2.0,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Watch workers, memory against its limit, clients and CPU of live clusters; Ctrl-C ends it."""
    from shoal.cli import layout as tables
    from shoal.cli import views
    from shoal.cli.commands.listing import open_target, with_status
    from shoal.cli.console import out, write_json
    from shoal.client.finding import find

    home = open_target(project, target)
    only = None if name is None else find(home, name).id

    def rows() -> list[dict[str, Any]]:
        found = home.clusters() if only is None else [home.get(only)]
        return [views.cluster_view(c, status) for c, status in with_status(home, found)]

    if output is o.Output.JSON:
        write_json(rows())
        return
    if once or not out().is_terminal:
        out().print(tables.usage(rows(), None, every))
        return
    from rich.live import Live

    before = rows()
    with Live(tables.usage(before, None, every), console=out(), auto_refresh=False) as live:
        while True:
            time.sleep(every)
            now = rows()
            live.update(tables.usage(now, before, every), refresh=True)
            before = now
