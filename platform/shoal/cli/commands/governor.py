"""``shoal governor``: the program that governs the clusters of a Kubernetes.

Why it exists: on Kubernetes nobody else looks; see ``homes.kubernetes.governing``.

What it must not do: decide.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal governor --target kubernetes
  shoal governor --target kubernetes --health 8080
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("governor", epilog=EXAMPLES)(governor)


def governor(
    health: Annotated[
        int, typer.Option("--health", help="Port for /healthz and /readyz (0: none).", min=0, max=65535)
    ] = 0,
    system: Annotated[
        str | None, typer.Option("--system", help="Namespace of the accounts (default: the target's).")
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace", help="Look after this one alone; may be repeated (default: the target's)."
        ),
    ] = None,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
) -> None:
    """Admit, start and end the clusters of a Kubernetes, by what is applied there, until it is told to end."""
    from shoal.homes.choose import govern
    from shoal.project.loading import load

    opened = load(Path(project) if project else None, target, tolerant=True)
    governing = govern(opened, health, system, tuple(namespace or ()))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=governing.stop).start())  # it takes locks
    governing.run()
