"""``shoal demo``: the main job, on real data, end to end.

Why it exists: one command shows a newcomer what all of it is for.

What it must not do: hold the job (``shoal.demo`` does).
"""

from __future__ import annotations

import os

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal demo
  shoal demo --target local
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("demo", epilog=EXAMPLES)(demo)


def demo(
    yes: o.Yes = False,
    target: o.Target = None,
    project: o.ProjectFolder = None,
) -> None:
    """Run the demo: a flow that cleans 336,776 flights on Dask, reports on Spark and checks itself."""
    from shoal import demo as job

    if target is not None:
        os.environ["SHOAL_TARGET"] = target  # the flow opens the project by itself, in tasks of its own
    raise typer.Exit(job.run(project))
