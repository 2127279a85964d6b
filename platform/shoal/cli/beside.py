"""A submitted script that its home runs beside its cluster, as its user sees it: its output, its exit code, its end.

Why it exists: the same words as where the script runs here (``commands.submit``), but whoever looks may leave.

What it must not do: change the script's output or its exit code.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.cli import endings
from shoal.cli.exits import ExitCode

if TYPE_CHECKING:
    from shoal.client.preparing import Prepared
    from shoal.homes.base import Home
    from shoal.model.cluster import Cluster

_POLL = 0.2
TOLD_TO_END = 128 + signal.SIGTERM.value  # as shells count


def run_beside(
    request: Prepared,
    name: str,
    file: Path,
    function: str | None,
    arguments: Sequence[str],
    *,
    detach: bool,
    as_json: bool,
) -> int:
    """Submit it and follow it to its end; returns its exit code. ``detach``: only submit it."""
    from shoal.cli.console import out, say, write_json
    from shoal.client.beside import submitted
    from shoal.homes.choose import open_home

    cluster = submitted(request, name, file, function, arguments, quiet=as_json)
    if detach:
        if as_json:
            write_json({"name": cluster.name, "id": cluster.id, "target": cluster.plan.target})
            return ExitCode.OK
        out().print(
            f"{cluster.name} runs at target {cluster.plan.target}; you can close this terminal\n"
            f"  Output:    shoal logs {cluster.name} --follow\n"
            f"  Wait:      shoal wait {cluster.name}    # exits with the script's exit code\n"
            f"  End it:    shoal down {cluster.name}",
            markup=False,
            soft_wrap=True,
        )
        return ExitCode.OK
    if not as_json:
        say(
            f"{cluster.name}: its script runs at target {cluster.plan.target}. Ctrl-C ends it; it goes on when this "
            f"terminal is closed (shoal logs {cluster.name} --follow)"
        )
    return _followed(open_home(request.project), cluster, as_json=as_json)


def code_of_end(cluster: Cluster) -> int:
    """What a command exits with that waited for the script beside this cluster, which has ended."""
    if cluster.exit_code is not None:
        return cluster.exit_code
    ends = {"Refused": ExitCode.REFUSED, "Failed": ExitCode.FAILED}
    return ends.get(cluster.state.value, TOLD_TO_END)


def tell(home: Home, cluster: Cluster, *, follow: bool, aside: bool = False) -> None:
    """Print what it writes, as it comes. ``aside``: to standard error."""
    import sys

    from shoal.homes.base import RunsScripts

    assert isinstance(home, RunsScripts)
    for line in home.output(cluster.id, follow=follow):
        print(line, file=sys.stderr if aside else sys.stdout, flush=True)


def _followed(home: Home, cluster: Cluster, *, as_json: bool) -> int:
    from shoal.cli import views
    from shoal.cli.console import say, write_json
    from shoal.display.report import report_of

    try:
        tell(home, cluster, follow=True, aside=as_json)
        ended = _ended(home, cluster)
    except KeyboardInterrupt:
        if endings.heard() is not signal.SIGHUP:  # a terminal that is closed: it goes on
            _end(home, cluster)
        raise
    report = report_of(ended, home.history(ended.id), time.time())
    code = code_of_end(ended)
    if as_json:
        write_json(views.submit_view(ended, code, report.to_json()))
    else:
        if ended.exit_code is None:
            say(f"{ended.name} ended before its script: {ended.reason}: {ended.message}")
        say(report.line())
    return code


def _ended(home: Home, cluster: Cluster, within: float | None = None) -> Cluster:
    """The record once nothing of it runs any more, or after so many seconds."""
    begin = time.monotonic()
    while not (now := home.get(cluster.id)).state.ended or home.remains(cluster.id):
        if within is not None and time.monotonic() - begin > within:
            break
        time.sleep(_POLL)
    return now


def _end(home: Home, cluster: Cluster) -> None:
    """As Ctrl-C ends a script here: it is noted how, and its cluster ends."""
    from shoal.cli.console import say
    from shoal.client.ending import STOP_WAIT
    from shoal.model.cluster import Reason, script_end

    code = endings.interrupted_code()
    home.note_exit(cluster.id, code)
    home.stop(cluster.id, Reason.STOPPED_BY_USER, script_end(code))
    if not _ended(home, cluster, STOP_WAIT).state.ended:
        say(
            f"{cluster.name} has not ended after {STOP_WAIT:.0f} s; `shoal why {cluster.name}` tells what it waits for"
        )
