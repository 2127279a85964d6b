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
  shoal render --target kubernetes --definitions | kubectl apply --server-side -f -
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("render", epilog=EXAMPLES)(render)


def render(
    user: Annotated[
        list[str] | None,
        typer.Option("--user", help="For these users alone (default: all that policies/users.yaml names)."),
    ] = None,
    definitions: Annotated[
        bool, typer.Option("--definitions", help="The definitions alone, which have to be there first.")
    ] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
) -> None:
    """Print all that `shoal apply` puts on a Kubernetes cluster: definitions, the governor, project and users."""
    import yaml

    from shoal.homes.choose import manifests
    from shoal.project.loading import load

    opened = load(Path(project) if project else None, target)
    found = manifests(opened, tuple(user) if user else None, definitions=definitions)
    yaml.safe_dump_all(found, sys.stdout, sort_keys=False)
