"""``shoal wait``: until a submitted script, or a cluster, has ended.

Why it exists: whoever submits in the background wants the exit code later, in a script of their own.

What it must not do: end anything.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import options as o
from shoal.cli.exits import ExitCode
from shoal.model.cluster import BY_DOWN

if TYPE_CHECKING:
    from shoal.cli.scripts import Script
    from shoal.homes.base import Home
    from shoal.model.cluster import Cluster

EXAMPLES = """\b
Examples:
  shoal submit clean.py --template etl --name nightly --detach
  shoal wait nightly && shoal submit report.py --template analytics
  shoal wait nightly --timeout '2 h' -o json | jq .exit_code
"""
_POLL = 0.2


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("wait", epilog=EXAMPLES)(wait)


def wait(
    name: o.ClusterName,
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="Give up after this long, such as '2 h' (exit code 4).")
    ] = None,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Wait until a submitted script, or a cluster, has ended; exit with the script's code.

    A cluster that ran no script: 0 when it stopped, 3 when it was refused, 4 when it failed.
    """
    from shoal.cli.commands.listing import open_place
    from shoal.cli.console import out, write_json
    from shoal.model.cluster import script_end
    from shoal.units import Seconds

    home, scripts = open_place(project, target)
    limit = None if timeout is None else Seconds.parse(timeout)
    known = home.find(name, home.user())
    beside = known is not None and known.run is not None  # by its home: no script of that name here is meant
    script = None if beside else scripts.find(name, home.user())
    cluster = _ended(home, name, script, limit)
    script = None if beside else scripts.find(name, home.user())
    code = _code(script, cluster)
    if output is o.Output.JSON:
        write_json(_view(home, name, cluster, code))
    else:
        _, report = _report(home, cluster)
        said = script_end(code) if script is not None or (cluster and cluster.exit_code is not None) else ""
        line = report or (
            f"{cluster.name}: {cluster.state} ({cluster.message})" if cluster else f"{name}: {said}"
        )
        out().print(line, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def _ended(home: Home, name: str, script: Script | None, limit: float | None) -> Cluster | None:
    """Until nothing of that name lives any more; its cluster, None where its script never had one."""
    from shoal.client.finding import find
    from shoal.errors import DeadlineError
    from shoal.units import Seconds

    begin = time.monotonic()
    while True:
        running = script is not None and script.running
        cluster = home.find(name, home.user())
        if cluster is None and script is None:
            find(home, name, ended=True)  # says which there are
        if not running and (cluster is None or cluster.state.ended):
            # One that ended before the script began is another's.
            mine = script is None or cluster is None or cluster.created >= script.begun
            return cluster if mine else None
        if limit is not None and time.monotonic() - begin > limit:
            state = f"{cluster.state} ({cluster.message})" if cluster else "without a cluster yet"
            raise DeadlineError(
                f"{name} has not ended after {Seconds(limit)}: it is {state}", hint=f"shoal why {name}"
            )
        time.sleep(_POLL)


def _code(script: Script | None, cluster: Cluster | None) -> int:
    if cluster is not None and cluster.run is not None:
        from shoal.cli.beside import code_of_end

        return code_of_end(cluster)
    if cluster is not None and cluster.exit_code is not None:
        return cluster.exit_code
    if script is not None and cluster is not None and cluster.message == BY_DOWN:  # before the script began
        from shoal.cli.beside import TOLD_TO_END

        return TOLD_TO_END
    newer = cluster is not None and script is not None and script.ended and cluster.created > script.ended
    if script is not None and not newer:
        return ExitCode.FAILED if script.exit_code is None else script.exit_code  # None: it was killed
    state = cluster.state.value if cluster is not None else "Failed"
    return {"Refused": ExitCode.REFUSED, "Failed": ExitCode.FAILED}.get(state, ExitCode.OK)


def _report(home: Home, cluster: Cluster | None) -> tuple[dict[str, Any] | None, str]:
    from shoal.display.report import report_of

    if cluster is None or cluster.admitted_at is None:
        return None, ""
    found = report_of(cluster, home.history(cluster.id), time.time())
    return found.to_json(), found.line()


def _view(home: Home, name: str, cluster: Cluster | None, code: int) -> dict[str, Any]:
    from shoal.cli import views

    if cluster is None:
        return {"name": name, "id": None, "state": None, "result": "failed" if code else "succeeded"} | {
            "report": None,
            "exit_code": code,
        }
    return views.submit_view(cluster, code, _report(home, cluster)[0])
