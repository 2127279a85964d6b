"""``shoal init``: make a project folder from the shipped defaults.

Why it exists: a project is files that a person reads and changes, so they are there to be read.

What it must not do: overwrite anything.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal init
  shoal init my-project
  shoal init --flow etl sales
  shoal init --flow etl sales --schedule '0 3 * * *'
"""
PARTS = ("shoal.yaml", "prefect.yaml", "clusters", "policies", "flows")
_LEFT_OUT = ("__pycache__", ".gitkeep")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("init", epilog=EXAMPLES)(init)


def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="The folder; created if it does not exist. With --flow the flow's name."
        ),
    ] = Path(),
    flow: Annotated[
        str | None,
        typer.Option(
            "--flow",
            metavar="KIND",
            help="Write a flow of this kind (etl, analytics, ml-training) into the project: flows/NAME.py, and its "
            "deployment.",
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", metavar="CRON", help="When the flow's deployment runs, in UTC."),
    ] = None,
    images: Annotated[
        bool,
        typer.Option(
            "--images", help="Also images/ with its Containerfiles, to build images for Kubernetes."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be created.")] = False,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Make a project folder with the default templates, policies and targets, or a flow in one; overwrite nothing."""
    from shoal.errors import InfrastructureError, UsageError
    from shoal.project.loading import defaults

    if flow is not None:
        _flow(flow, folder, schedule, images, dry_run, output)
        return
    if schedule is not None:
        raise UsageError(
            "--schedule goes with --flow", hint="shoal init --flow etl NAME --schedule '0 3 * * *'"
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            f"{folder} is not a folder", hint="Name a folder, or a path that does not exist yet."
        )
    shipped = defaults()
    files = _files(shipped, (*PARTS, "images") if images else PARTS)
    kept = [name for name in files if os.path.lexists(folder / name)]
    fresh = [name for name in files if name not in kept]
    if not dry_run:
        try:
            _copy(shipped, folder, fresh)
        except OSError as error:
            raise InfrastructureError(
                f"cannot write {error.filename or folder}: {error.strerror}; nothing was created",
                hint="Choose a folder that you may write to.",
            ) from error
    if output is o.Output.JSON:
        from shoal.cli.console import write_json

        write_json({"folder": str(folder.absolute()), "made": fresh, "kept": kept, "dry_run": dry_run})
        return
    from shoal.cli.console import out

    here = folder.absolute() == Path.cwd()
    verb = "would make" if dry_run else "made"
    for name in files:
        out().print(f"  {'kept' if name in kept else verb}  {name}", markup=False)
    out().print(
        f"\nNext: {'' if here else f'cd {shlex.quote(str(folder))}; '}shoal doctor; shoal plan etl"
        if fresh
        else "\nEverything was already there.",
        markup=False,
    )


def _flow(kind: str, name: Path, schedule: str | None, images: bool, dry_run: bool, output: o.Output) -> None:
    from shoal.errors import UsageError
    from shoal.flows.starting import PREFECT, project_folder, start_flow

    if name == Path():
        raise UsageError("--flow needs a name for the flow", hint=f"shoal init --flow {kind} sales")
    if images:
        raise UsageError("--images and --flow are two things", hint="shoal init --images")
    root = project_folder(Path.cwd())
    made = start_flow(kind, str(name), root, schedule, dry_run=dry_run)
    if output is o.Output.JSON:
        from shoal.cli.console import write_json

        write_json({"folder": str(root), "made": made, "kept": [], "dry_run": dry_run})
        return
    from shoal.cli.console import out

    verb, last = (
        ("would make", "would add its deployment to") if dry_run else ("made", "added its deployment to")
    )
    for file in made:
        out().print(f"  {last if file == PREFECT else verb}  {file}", markup=False)
    here = "" if root == Path.cwd() else f"cd {shlex.quote(str(root))}; "
    out().print(
        f"\nNext: say in flows/{name}.py what it reads and writes; then {here}python flows/{name}.py",
        markup=False,
    )


def _files(shipped: Path, parts: tuple[str, ...]) -> list[str]:
    """The files of the shipped project folder, as paths below it."""
    found: list[str] = []
    for part in parts:
        place = shipped / part
        inside = [place] if place.is_file() else sorted(place.rglob("*"))
        found += [
            str(file.relative_to(shipped))
            for file in inside
            if file.is_file() and not any(name in _LEFT_OUT for name in file.parts)
        ]
    return found


def _copy(shipped: Path, folder: Path, names: list[str]) -> None:
    """All or nothing: what was made is taken away again when one cannot be."""
    made: list[Path] = []
    try:
        for name in names:
            goal = folder / name
            missing = [parent for parent in (goal.parent, *goal.parent.parents) if not parent.exists()]
            for parent in reversed(missing):
                parent.mkdir()
                made.append(parent)
            with (shipped / name).open("rb") as source, goal.open("xb") as copy:
                made.append(goal)
                shutil.copyfileobj(source, copy)
    except OSError:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        raise
