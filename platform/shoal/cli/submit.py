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
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal submit clean.py --template etl --data '25 GB'
  shoal submit report.py --template analytics --engine spark -- --month 3
  shoal submit clean.py:main --detach       # calls main(); `shoal logs` shows what it writes
"""
LOG = "script.log"
_GRACE = 10.0  # s that a script gets to end after Ctrl-C


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("submit", epilog=EXAMPLES)(submit)


def submit(
    script: Annotated[str, typer.Argument(metavar="SCRIPT", help="A Python file, or FILE:FUNCTION.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS...]", help="The script's own.")
    ] = None,
    template: o.TemplateOption = None,
    engine: o.Engine = None,
    data: o.Data = None,
    workers: o.Workers = None,
    cores: o.Cores = None,
    memory: o.Memory = None,
    gpu: o.Gpu = None,
    spot: o.Spot = None,
    package: o.Packages = None,
    max_duration: o.MaxDuration = None,
    idle: o.Idle = None,
    name: o.Name = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return at once; `shoal logs` shows the output.")
    ] = False,
    queue: o.Queue = False,
    priority: o.Priority = None,
    dry_run: o.DryRun = False,
    yes: o.Yes = False,
    target: o.Target = None,
    project: o.ProjectFolder = None,
) -> None:
    """Bring a cluster up, run a script on it, end the cluster; exit with the script's code.

    In the script, `shoal.dask()` and `shoal.spark()` give that cluster. Its output is the terminal's.
    """
    from shoal.cli.up import agree, show_plan
    from shoal.clusters import prepare, start

    file, function = _script(script)
    asked = o.Asked.of(
        engine=engine, data=data, workers=workers, cores=cores, memory=memory, gpu=gpu, spot=spot,
        packages=package, max_duration=max_duration, idle=idle, priority=priority,
    )  # fmt: skip
    request = prepare(template, project=project, target=target, queue=queue or None, **asked.values)
    chosen = name or f"{file.stem.replace('_', '-')}-{os.urandom(2).hex()}"
    if dry_run:
        show_plan(request, chosen, o.Output.TEXT)
        return
    agree(request, yes=yes, quiet=False)
    if detach:
        _detach(chosen)
        return
    with start(request, name=chosen) as cluster:
        cluster.open()  # its client until the script is one: between the two it must not look abandoned
        environment = os.environ | {"SHOAL_ATTACH": cluster.name, "PYTHONUNBUFFERED": "1"}
        environment["SHOAL_PROJECT"] = str(request.project.folder)
        environment["SHOAL_TARGET"] = request.project.target.name
        code = _run(_command(file, function, arguments or []), environment)
    raise typer.Exit(code)


def _script(text: str) -> tuple[Path, str | None]:
    """The file and, after a colon, the function to call; UsageError when there is no such file."""
    from shoal.errors import UsageError

    name, _, function = text.partition(":")
    file = Path(name)
    if not file.is_file():
        like = sorted(str(other) for other in file.parent.glob("*.py")) if file.parent.is_dir() else []
        from shoal.words import did_you_mean

        hint = (
            did_you_mean(name, like) + "."
            if like
            else f"There is no Python file in {file.parent.absolute()}."
        )
        raise UsageError(f"there is no file {name!r}", hint=hint)
    if function and not function.isidentifier():
        raise UsageError(f"{function!r} is not the name of a function", hint="Write FILE:FUNCTION.")
    return file, function or None


def _command(file: Path, function: str | None, arguments: list[str]) -> list[str]:
    if function is None:
        return [sys.executable, str(file), *arguments]
    call = f"import runpy, sys; runpy.run_path(sys.argv.pop(1))[{function!r}](*sys.argv[1:])"
    return [sys.executable, "-c", call, str(file), *arguments]


def _run(command: list[str], environment: dict[str, str]) -> int:
    """The script, on this terminal. Ctrl-C reaches it by itself; it gets some seconds to end."""
    child = subprocess.Popen(command, env=environment)
    try:
        code = child.wait()
    except BaseException:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)
        if child.poll() is None:
            child.kill()
            child.wait()
        raise
    return code if code >= 0 else 128 + signal.Signals(-code).value


def _detach(name: str) -> None:
    """The same command once more, without a terminal."""
    from shoal.cli.console import out
    from shoal.homes.local import paths

    folder = paths.make_private(paths.data_folder() / "scripts")
    log = folder / f"{name}.log"
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--detach", "-y", "--yes")]
    at = arguments.index("submit") + 1
    named = [] if any(a == "--name" or a.startswith("--name=") for a in arguments) else ["--name", name]
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "shoal", *arguments[:at], *named, "--yes", *arguments[at:]],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    out().print(
        f"{name} runs in the background (pid {process.pid}); it writes to {log}", markup=False, soft_wrap=True
    )
    out().print(f"  Look:      shoal ls | tail -f {log}\n  End it:    shoal down {name}", markup=False)
