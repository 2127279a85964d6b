"""``shoal render``: all that a Kubernetes needs before clusters can be asked for, as YAML.

Why it exists: an administrator reads it, keeps it in Git, and applies it with their own tools and rights.

What it must not do: speak to a server.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal render --target kubernetes --user alice | kubectl apply --server-side -f -
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("render", epilog=EXAMPLES)(render)


def render(
    user: Annotated[
        list[str] | None,
        typer.Option(
            "--user", help="Who may ask for clusters, as the API server knows them; may be repeated."
        ),
    ] = None,
    target: o.Target = None,
    project: o.ProjectFolder = None,
) -> None:
    """Print resource definitions, the governor's account and the users' namespaces with their rights."""
    import yaml

    from shoal.homes.choose import manifests
    from shoal.project.loading import load

    opened = load(Path(project) if project else None, target, tolerant=True)
    yaml.safe_dump_all(manifests(opened, tuple(user or ())), sys.stdout, sort_keys=False)
