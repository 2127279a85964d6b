"""``shoal logs``: what a script and its cluster wrote.

Why it exists: whoever submitted a script asks for its output first, and for the engine's only when that does
not tell enough.

What it must not do: change anything, or judge lines (``loglines`` does).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli import options as o
from shoal.cli.loglines import Level

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.cli.loglines import Filter
    from shoal.cli.scripts import Script
    from shoal.homes.base import Home, Wrote
    from shoal.model.cluster import Cluster

EXAMPLES = """\b
Examples:
  shoal logs nightly                    # the output of the script that was submitted as it, else the engine's
  shoal logs nightly --follow
  shoal logs nightly --workers --level info
"""
_POLL = 0.5
_ALL = 1_000_000  # lines; what is shown of them is counted after the others are left out


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("logs", epilog=EXAMPLES)(logs)


def logs(
    name: o.ClusterName,
    head: Annotated[bool, typer.Option("--head", help="What the cluster's head wrote.")] = False,
    workers: Annotated[bool, typer.Option("--workers", help="What its workers wrote.")] = False,
    level: Annotated[
        Level | None,
        typer.Option("--level", help="Lowest level of the engine's lines to show (default: warning)."),
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, help="Number of lines, counted from the end.")
    ] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until it ends.")] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Show the last lines of a submitted script's output, or of what a cluster wrote; also after it ended.

    With --head, --workers or --level it is the engine's log. Lines without a level, such as what your code
    prints on workers, are always shown.
    """
    from shoal.cli.commands.listing import open_place
    from shoal.cli.console import say, write_json
    from shoal.client.finding import find
    from shoal.errors import NotFoundError

    home, scripts = open_place(project, target)
    script = scripts.find(name, home.user())
    cluster: Cluster | None = None
    try:
        cluster = find(home, name, ended=True)
    except NotFoundError:
        if script is None:
            raise
    of_engine = head or workers or level is not None
    if cluster is not None and cluster.run is not None and not of_engine:
        _tell_beside(home, cluster, lines, follow, output)
        return
    if script is not None and not of_engine and not _is_newer(cluster, script):
        log = scripts.log_of(name)
        shown = _lines_of(log, lines)
        if output is o.Output.JSON:
            write_json(
                {"name": name, "id": cluster and cluster.id, "lines": shown, "source": "script", "hidden": 0}
            )
        else:
            _tell(log, shown, script if follow else None)
        return
    if cluster is None:  # a script that has no cluster yet, or never got one
        cluster = find(home, name, ended=True)
    _show_engine(home, cluster, _filter(level, head, workers), lines, follow, output, say)


def _tell_beside(home: Home, cluster: Cluster, lines: int, follow: bool, output: o.Output) -> None:
    """What the script writes that runs beside its cluster."""
    from collections import deque

    from shoal.cli.beside import tell
    from shoal.cli.console import say, write_json
    from shoal.homes.base import RunsScripts

    assert isinstance(home, RunsScripts)
    if follow and output is not o.Output.JSON:
        tell(home, cluster, follow=True)
        return
    shown = list(deque(home.output(cluster.id), lines))
    if output is o.Output.JSON:
        write_json({"name": cluster.name, "id": cluster.id, "lines": shown, "source": "script", "hidden": 0})
        return
    for line in shown:
        print(line)
    if not shown:
        say(f"(the script of {cluster.name} has no output, or none was kept)")


def _is_newer(cluster: Cluster | None, script: Script) -> bool:
    """The cluster was started after the script had ended: it is another's."""
    return cluster is not None and script.ended is not None and cluster.created > script.ended


def _filter(level: Level | None, head: bool, workers: bool) -> Filter:
    from shoal.cli.loglines import Filter

    return Filter(level or Level.WARNING, head, workers)


def _lines_of(log: Path, lines: int) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def _tell(log: Path, shown: list[str], followed: Script | None) -> None:
    """Print, and with a script to follow go on until it has ended."""
    for line in shown:
        print(line)
    if followed is None:
        return
    with log.open(errors="replace") as stream:
        stream.seek(0, 2)
        while True:
            running = followed.running  # looked at first: what it writes last is read after
            if text := stream.read():
                print(text, end="", flush=True)
            if not running:
                return
            time.sleep(_POLL)


def _show_engine(
    home: Home,
    cluster: Cluster,
    which: Filter,
    lines: int,
    follow: bool,
    output: o.Output,
    say: Callable[[str], None],
) -> None:
    """What the head and its children wrote, without what is below the level."""
    wrote = _wrote(which)
    every = home.logs(cluster.id, _ALL, wrote).splitlines()
    kept = which.kept(every)
    hidden = len(every) - len(kept)
    if output is o.Output.JSON:
        from shoal.cli.console import write_json

        view = {"name": cluster.name, "id": cluster.id, "lines": kept[-lines:], "source": "engine"}
        write_json(view | {"hidden": hidden})
        return
    for line in kept[-lines:]:
        print(line, flush=True)
    if hidden and which.level is Level.WARNING and not follow:
        from shoal.model.names import command
        from shoal.words import count

        say(f"({count(hidden, 'line')} more: {command('logs', cluster.name)} --level info)")
    elif not every and not follow:
        say(f"({cluster.name} has no output, or none was kept)")
    while follow and not home.get(cluster.id).state.ended:
        time.sleep(_POLL)
        now = home.logs(cluster.id, _ALL, wrote).splitlines()
        for line in which.kept(now[len(every) :]):
            print(line, flush=True)
        every = now


def _wrote(which: Filter) -> Wrote:
    """Whose lines are asked for; where the home keeps them together, the filter tells them apart."""
    from shoal.homes.base import Wrote

    if which.head == which.workers:
        return Wrote.ANYBODY
    return Wrote.HEAD if which.head else Wrote.WORKERS
