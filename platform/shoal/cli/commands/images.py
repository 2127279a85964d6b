"""``shoal images build``: the container images of the project, by buildah, docker or podman.

Why it exists: a cluster on Kubernetes runs in images that hold the same versions as the environment that asks
for it.

What it must not do: build anything itself (``shoal.install.images`` does), or push.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal images build
  shoal images build shoal-dask --tool buildah
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    group = typer.Typer(help="Build the project's container images.", no_args_is_help=True)
    group.callback()(lambda: None)
    group.command("build", epilog=EXAMPLES)(build)
    app.add_typer(group, name="images")


def build(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Image to build (default: all).")
    ] = None,
    tool: Annotated[
        str, typer.Option("--tool", help="buildah, docker or podman (default: the first that is installed).")
    ] = "",
    base: Annotated[
        str, typer.Option("--base", help="Base image to use instead of the Containerfile's.")
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Build even if nothing changed.")] = False,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Build images with the versions of this environment; what has not changed is not built again."""
    from shoal.cli.console import out, write_json
    from shoal.install import images
    from shoal.project.loading import load

    opened = load(project)
    lock = opened.folder / "requirements.lock"
    text = output is o.Output.TEXT
    built = images.build(
        names or (),
        folder=opened.folder / "images",
        references={name: image.reference for name, image in opened.images.items()},
        tool=tool,
        base=base,
        lock=lock if lock.is_file() else None,
        again=again,
        say=out().print if text else lambda line: None,
    )
    if not text:
        write_json(
            [{**asdict(each), "archive": str(each.archive) if each.archive else None} for each in built]
        )
