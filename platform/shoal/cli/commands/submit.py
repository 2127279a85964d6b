"""``shoal submit``: run a script on a cluster of its own.

Why it exists: a script that calls ``shoal.dask()`` or ``shoal.spark()`` runs unchanged; submitted, it finds
the cluster that was brought up for it, and the cluster ends with it, however the script ends.

What it must not do: change the script's exit code, or its standard output.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import endings
from shoal.cli import options as o

if TYPE_CHECKING:
    from shoal.client.handles import ClusterHandle
    from shoal.client.preparing import Prepared

EXAMPLES = """\b
Examples:
  shoal submit clean.py --template etl --data '25 GB'
  shoal submit report.py --template analytics --engine spark -- --month 3
  shoal submit clean.py:main --detach --name nightly    # calls main(), in the background
  shoal logs nightly --follow                           # what it writes
  shoal wait nightly                                    # until it has ended; exits with its exit code

At a target on Kubernetes the script runs beside its cluster, and goes on when this terminal is closed.
"""
_GRACE = 10.0  # s that a script gets to end after Ctrl-C, a signal or `shoal down`
_LOOK = 1.0  # s between two looks whether its cluster was ended


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("submit", epilog=EXAMPLES)(o.asking(submit, without=("no_client",)))


def submit(
    script: Annotated[str, typer.Argument(metavar="SCRIPT", help="A Python file, or FILE:FUNCTION.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS...]", help="The script's own arguments.")
    ] = None,
    template: o.TemplateOption = None,
    asked: dict[str, Any] = o.NOTHING,
    name: o.Name = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return immediately; `shoal logs` shows the output.")
    ] = False,
    queue: o.Queue = False,
    priority: o.PriorityOption = None,
    dry_run: o.DryRun = False,
    yes: o.Yes = False,
    verbose: o.Verbose = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Bring a cluster up, run a script on it, end the cluster; exit with the script's code.

    In the script, `shoal.dask()` and `shoal.spark()` give that cluster. Its output is the terminal's; with
    `-o json` it goes to standard error, and the answer alone to standard output.
    """
    from shoal.cli import views
    from shoal.cli.commands.up import agree, show_plan
    from shoal.client.clusters import start
    from shoal.client.preparing import prepare
    from shoal.machine.parcel import command
    from shoal.model.names import checked

    file, function = _script(script)
    request = prepare(
        template, project=project, target=target, script=True, queue=queue or None, priority=priority, **asked
    )
    chosen = checked(name) if name is not None else _named_after(file)
    if dry_run:
        show_plan(request, chosen, output)
        return
    as_json = output is o.Output.JSON
    agree(request, yes=yes, quiet=as_json, verbose=verbose, detach=request.plan.runner)
    if request.plan.runner:
        from shoal.cli.beside import run_beside

        words = arguments or []
        raise typer.Exit(run_beside(request, chosen, file, function, words, detach=detach, as_json=as_json))
    if detach:
        _detach(chosen, request, as_json)
        return
    with start(request, name=chosen, quiet=as_json) as cluster:
        cluster.open()  # its client until the script is one: between the two it must not look abandoned
        environment = os.environ | {"SHOAL_ATTACH": cluster.name, "PYTHONUNBUFFERED": "1"}
        environment["SHOAL_PROJECT"] = str(request.project.folder)
        environment["SHOAL_TARGET"] = request.project.target.name
        try:
            code = _run(
                command(file, function or "", arguments or []),
                environment,
                aside=as_json,
                over=partial(_ended_by_down, cluster),
            )
        except KeyboardInterrupt:
            _note(cluster, endings.interrupted_code())
            raise
        _note(cluster, code)
    if as_json:
        from shoal.cli.console import write_json

        write_json(views.submit_view(cluster.record, code, cluster.report().to_json()))
    raise typer.Exit(code)


def _ended_by_down(cluster: ClusterHandle) -> bool:
    """Whether somebody ended it who wants nothing of it to go on. A ledger that is away says nothing."""
    from shoal.errors import ShoalError
    from shoal.model.cluster import BY_DOWN, State

    try:
        now = cluster.record
    except ShoalError:
        return False
    return (now.state is State.STOPPING or now.state.ended) and now.message == BY_DOWN


def _note(cluster: ClusterHandle, code: int) -> None:
    """How the script ended stays with its cluster; that it cannot be noted takes nothing from the script.

    One that was ended with its cluster neither failed nor succeeded.
    """
    from shoal.cli.console import say
    from shoal.errors import ShoalError

    if _ended_by_down(cluster):
        return
    try:
        cluster.script_ended(code)
    except ShoalError as error:
        say(f"The exit code {code} could not be noted: {error.message}")


def _named_after(file: Path) -> str:
    """``clean-3f2a`` for ``Clean.py``."""
    from shoal.model.names import LONGEST, suggested

    return f"{suggested(file.stem)[: LONGEST - 5].strip('-') or 'script'}-{os.urandom(2).hex()}"


def _script(text: str) -> tuple[Path, str | None]:
    """The file and, after a colon, the function to call; UsageError when there is no such file."""
    from shoal.errors import UsageError

    name, _, function = text.partition(":")
    file = Path(name)
    if not file.is_file():
        like = sorted(str(other) for other in file.parent.glob("*.py")) if file.parent.is_dir() else []
        from shoal.words import did_you_mean, sentence

        hint = (
            sentence(did_you_mean(name, like))
            if like
            else f"There is no Python file in {file.parent.absolute()}."
        )
        raise UsageError(f"there is no file {name!r}", hint=hint)
    if function and not function.isidentifier():
        raise UsageError(f"{function!r} is not the name of a function", hint="Write FILE:FUNCTION.")
    return file, function or None


def _run(command: list[str], environment: dict[str, str], *, aside: bool, over: Callable[[], bool]) -> int:
    """The script, on this terminal. Ctrl-C reaches it by itself, other signals are passed on; then, and when it is
    ``over``, it gets some seconds to end. It never outlives this process.

    ``aside``: what it prints goes to standard error.
    """
    from shoal.machine.tether import tethered

    child = subprocess.Popen(tethered(command), env=environment, stdout=sys.stderr if aside else None)
    done = threading.Event()

    def end_when_over() -> None:
        while not done.wait(_LOOK):
            if over():
                child.terminate()
                if not done.wait(_GRACE):
                    child.kill()
                return

    threading.Thread(target=end_when_over, name="shoal-over", daemon=True).start()
    try:
        code = child.wait()
    except BaseException:
        if (number := endings.heard()) is not None:
            child.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)
        if child.poll() is None:
            child.kill()
            child.wait()
        raise
    finally:
        done.set()
    return code if code >= 0 else 128 + signal.Signals(-code).value


def _again(arguments: list[str], name: str) -> list[str]:
    """The same command for the background: named, agreed to, and answering nobody. The script's own stay."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    ours, its = arguments[:at], arguments[at:]
    kept, words = [], iter(ours)
    for word in words:
        if word in ("-o", "--output"):
            next(words, None)
        elif word not in ("--detach", "-y", "--yes") and not word.startswith(("-o", "--output=")):
            kept.append(word)
    at = kept.index("submit") + 1
    named = [] if any(a == "--name" or a.startswith("--name=") for a in kept) else ["--name", name]
    return [*kept[:at], *named, "--yes", *kept[at:], *its]


def _detach(name: str, request: Prepared, as_json: bool) -> None:
    """The same command once more, without a terminal."""
    import psutil

    from shoal.cli.console import out, write_json
    from shoal.cli.scripts import Scripts
    from shoal.errors import UsageError

    scripts, user = Scripts(request.project.target.place), request.user
    known = scripts.find(name, user)
    if known is not None and known.running:
        raise UsageError(
            f"a script named {name!r} is running (pid {known.process['pid']})",
            hint=f"Choose another --name, wait for it (shoal wait {name}) or end it (shoal down {name}).",
        )
    scripts.begin(name, user)
    log = scripts.log_of(name)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "shoal.cli.background", scripts.place, name, *_again(sys.argv[1:], name)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    with contextlib.suppress(OSError, psutil.Error):  # it has ended already
        scripts.running_as(name, user, process.pid)
    if as_json:
        write_json({"name": name, "pid": process.pid, "log": str(log)})
        return
    out().print(
        f"{name} is running in the background (pid {process.pid})\n"
        f"  Output:    shoal logs {name} --follow\n"
        f"  Wait:      shoal wait {name}    # exits with the script's exit code\n"
        f"  End it:    shoal down {name}",
        markup=False,
        soft_wrap=True,
    )
