"""``shoal ls``: what there is.

Why it exists: "what runs, whose is it, why is it in that state, when does it end" is one command.

What it must not do: change anything.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import options as o
from shoal.model.cluster import State
from shoal.model.status import HeadStatus

if TYPE_CHECKING:
    from shoal.cli.scripts import Scripts
    from shoal.homes.base import Home
    from shoal.model.cluster import Cluster

LS_EXAMPLES = """\b
Examples:
  shoal ls
  shoal ls --all -o json | jq -r '.[] | select(.state == "Failed") | .name'
"""
# Of what a run took, what `ls --all` tells with it.
_TAKEN = ("lived", "worker_hours", "cost", "peak_worker_memory")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("ls", epilog=LS_EXAMPLES)(ls)


def ls(
    ended: Annotated[bool, typer.Option("--all", "-a", help="Also list clusters that have ended.")] = False,
    mine: Annotated[bool, typer.Option("--mine", help="Only my own.")] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """List clusters: whose, in which state, why, since when, and when they end by themselves."""
    from shoal.cli import views
    from shoal.cli.console import out, say, write_json
    from shoal.homes.base import dashboard_of

    home = open_target(project, target)
    found = home.clusters(owner=home.user() if mine else None, ended=ended)
    rows = [
        views.cluster_view(cluster, status, dashboard_of(home, cluster, lasting=True))
        for cluster, status in with_status(home, found)
    ]
    if ended:
        now = time.time()
        for row, cluster in zip(rows, found, strict=True):
            row["taken"] = {key: views.taken_view(cluster, now)[key] for key in _TAKEN}
    if output is o.Output.JSON:
        write_json(rows)
    elif rows:
        from shoal.cli import layout as tables

        out().print(tables.clusters(rows, out().width))
        for row in rows:
            if row["dashboard"]:
                out().print(f"Dashboard of {row['name']}: {row['dashboard']}", markup=False, soft_wrap=True)
    else:
        say(
            "No clusters are running. `shoal up etl` starts one; `shoal ls --all` shows those that have ended."
        )


def open_target(project: Any, target: str | None) -> Home:
    """The home of the project's target, to see clusters and to end them."""
    return open_place(project, target)[0]


def open_place(project: Any, target: str | None) -> tuple[Home, Scripts]:
    """As :func:`open_target`, with the background scripts whose clusters live there."""
    from shoal.cli.scripts import Scripts
    from shoal.client.finding import open_project
    from shoal.homes.choose import open_home

    opened = open_project(project, target, looking=True)
    return open_home(opened), Scripts(opened.target.place)


def with_status(home: Home, clusters: list[Cluster]) -> list[tuple[Cluster, HeadStatus | None]]:
    """Each cluster with what its head says now; heads are asked at the same time."""
    ready = [cluster for cluster in clusters if cluster.state is State.READY]
    answers: dict[str, HeadStatus | None] = {}
    if ready:
        with ThreadPoolExecutor(max_workers=16) as pool:
            answers = dict(
                zip((c.id for c in ready), pool.map(lambda c: home.status(c.id), ready), strict=True)
            )
    return [(cluster, answers.get(cluster.id)) for cluster in clusters]
