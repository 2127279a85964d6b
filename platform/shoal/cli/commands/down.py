"""``shoal down``: end clusters, and see what they took.

Why it exists: what is not needed any more is given back, with one line that says what it was.

What it must not do: end what was not named.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli import options as o

if TYPE_CHECKING:
    from shoal.homes.base import Home
    from shoal.model.cluster import Cluster

EXAMPLES = """\b
Examples:
  shoal down nightly
  shoal down --all --yes
"""
WAIT = 90.0  # s that an end is waited for: a head that hangs is killed after 60
_POLL = 0.1


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("down", epilog=EXAMPLES)(down)


def down(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Clusters to end.", autocompletion=o.complete_clusters),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of my live clusters.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait until they have ended.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be ended.")] = False,
    yes: o.Yes = False,
    target: o.Target = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """End clusters, wait until nothing of them is left, and show what each took."""
    from shoal.cli import views
    from shoal.cli.commands.listing import open_target
    from shoal.cli.console import confirm, out, say, write_json
    from shoal.errors import UsageError
    from shoal.model.cluster import Reason

    if bool(names) == everything:
        raise UsageError("name the clusters to end, or --all", hint="`shoal ls --mine` lists yours.")
    home = open_target(project, target)
    chosen = _chosen(home, names or [])
    if dry_run or (everything and chosen and not yes):
        say(f"To end: {', '.join(cluster.name for cluster in chosen) or 'nothing'}")
    if dry_run:
        if output is o.Output.JSON:
            write_json([views.cluster_view(cluster) for cluster in chosen])
        return
    if everything and chosen and not confirm("End them?", yes=yes, unattended="this would end all of them"):
        raise typer.Exit(0)
    for cluster in chosen:
        home.stop(cluster.id, Reason.STOPPED_BY_USER, "ended by `shoal down`")
    ended = [home.get(cluster.id) if detach else _wait(home, cluster) for cluster in chosen]
    if output is o.Output.JSON:
        write_json([views.cluster_view(cluster) | {"report": _report(home, cluster)} for cluster in ended])
        return
    from shoal.display.report import report_of

    for cluster in ended:
        line = report_of(cluster, home.history(cluster.id), time.time()).line()
        out().print(line if cluster.state.ended else f"{cluster.name}: {cluster.state}", markup=False)
    if not ended:
        say("You have no live cluster.")


def _chosen(home: Home, names: list[str]) -> list[Cluster]:
    """All of them are looked up before any is ended. No names: all of the user's live ones."""
    from shoal.client.clusters import find

    if not names:
        return home.clusters(owner=home.user())
    return [find(home, name) for name in dict.fromkeys(names)]


def _wait(home: Home, cluster: Cluster) -> Cluster:
    from shoal.errors import DeadlineError
    from shoal.model.names import command

    begin = time.monotonic()
    while not (now := home.get(cluster.id)).state.ended or home.remains(cluster.id):
        if time.monotonic() - begin > WAIT:
            raise DeadlineError(
                f"{cluster.name} has not ended after {WAIT:.0f} s: {now.state} ({now.message})",
                hint=f"`{command('logs', cluster.name)}` shows what it wrote.",
            )
        time.sleep(_POLL)
    return now


def _report(home: Home, cluster: Cluster) -> dict[str, object]:
    from shoal.display.report import report_of

    return report_of(cluster, home.history(cluster.id), time.time()).to_json()
