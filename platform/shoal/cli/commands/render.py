"""``shoal render``: all that a Kubernetes needs before clusters can be asked for, as YAML.

Why it exists: an administrator reads it, keeps it in Git, and has it applied by their own tools and rights
(``shoal apply`` does the same at once).

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
  shoal render --target kubernetes > shoal.yaml
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("render", epilog=EXAMPLES)(render)


def render(
    user: Annotated[
        list[str] | None,
        typer.Option("--user", help="For these users alone (default: all that policies/users.yaml names)."),
    ] = None,
    target: o.Target = None,
    project: o.ProjectFolder = None,
) -> None:
    """Print all that `shoal apply` puts on a Kubernetes: definitions, the governor's account, project and users."""
    import yaml

    from shoal.homes.choose import manifests
    from shoal.project.loading import load

    opened = load(Path(project) if project else None, target)
    yaml.safe_dump_all(manifests(opened, tuple(user) if user else None), sys.stdout, sort_keys=False)
