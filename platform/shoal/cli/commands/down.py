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
    from shoal.cli.scripts import Script, Scripts
    from shoal.homes.base import Home
    from shoal.model.cluster import Cluster

EXAMPLES = """\b
Examples:
  shoal down nightly
  shoal down --all --yes
"""
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
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """End clusters and the scripts submitted to them, wait until nothing is left, show what each took."""
    from shoal.cli import views
    from shoal.cli.commands.listing import open_place
    from shoal.cli.console import confirm, out, say, write_json
    from shoal.client.ending import wait_for_end
    from shoal.errors import UsageError
    from shoal.model.cluster import BY_DOWN, Reason

    if bool(names) == everything:
        raise UsageError("name the clusters to end, or --all", hint="`shoal ls --mine` lists yours.")
    home, scripts = open_place(project, target)
    chosen, alone = _chosen(home, scripts, names or [])
    named = [cluster.name for cluster in chosen] + [script.name for script in alone]
    if dry_run or (everything and chosen and not yes):
        say(f"To end: {', '.join(named) or 'nothing'}")
    if dry_run:
        if output is o.Output.JSON:
            write_json([views.cluster_view(cluster) for cluster in chosen])
        return
    if everything and chosen and not confirm("End them?", yes=yes, unattended="this would end all of them"):
        raise typer.Exit(0)
    for cluster in chosen:
        home.stop(cluster.id, Reason.STOPPED_BY_USER, BY_DOWN)
    for script in alone:
        script.end()
    ended = [home.get(cluster.id) if detach else wait_for_end(home, cluster.id) for cluster in chosen]
    if not detach:
        _wait_for_scripts(scripts, home.user(), named)
    if output is o.Output.JSON:
        write_json(
            [views.cluster_view(cluster) | {"report": _report(home, cluster)} for cluster in ended]
            + [{"name": script.name, "id": None, "state": None, "report": None} for script in alone]
        )
        return
    from shoal.display.report import report_of

    for cluster in ended:
        line = report_of(cluster, home.history(cluster.id), time.time()).line()
        out().print(line if cluster.state.ended else f"{cluster.name}: {cluster.state}", markup=False)
    for script in alone:
        out().print(f"{script.name}: its script was ended; it had no live cluster", markup=False)
    if not ended and not alone:
        say("You have no live cluster.")


def _chosen(home: Home, scripts: Scripts, names: list[str]) -> tuple[list[Cluster], list[Script]]:
    """All of them are looked up before any is ended. No names: all of the user's live ones.

    The second: scripts in the background that have no cluster yet, or none any more.
    """
    from shoal.client.finding import find
    from shoal.errors import NotFoundError

    if not names:
        return home.clusters(owner=home.user()), []
    clusters, alone = [], []
    for name in dict.fromkeys(names):
        try:
            clusters.append(find(home, name))
        except NotFoundError:
            if (script := scripts.find(name, home.user())) is None or not script.running:
                raise
            alone.append(script)
    return clusters, alone


def _wait_for_scripts(scripts: Scripts, user: str, names: list[str]) -> None:
    """Until those in the background are gone: each sees that its cluster was ended, and gets some seconds."""
    from shoal.client.ending import STOP_WAIT
    from shoal.errors import DeadlineError
    from shoal.model.names import command

    begin = time.monotonic()
    for name in names:
        while (script := scripts.find(name, user)) is not None and script.running:
            if time.monotonic() - begin > STOP_WAIT:
                raise DeadlineError(
                    f"the script of {name} (pid {script.process['pid']}) has not ended after {STOP_WAIT:.0f} s",
                    hint=f"`{command('logs', name)}` shows what it wrote.",
                )
            time.sleep(_POLL)


def _report(home: Home, cluster: Cluster) -> dict[str, object]:
    from shoal.display.report import report_of

    return report_of(cluster, home.history(cluster.id), time.time()).to_json()
