"""``shoal demo``: the main job, on real data, end to end.

Why it exists: one command shows a newcomer what all of it is for.

What it must not do: hold the job (``shoal.demo`` does).
"""

from __future__ import annotations

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal demo
  shoal demo --yes -o json
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("demo", epilog=EXAMPLES)(demo)


def demo(
    yes: o.Yes = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Run the demo: a flow that cleans 336,776 flights on Dask, reports on Spark and checks itself."""
    from shoal import demo as job
    from shoal.cli.console import confirm
    from shoal.client.preparing import prepare
    from shoal.homes.choose import open_home

    # What would end the job in its first second is told before a minute of loading.
    for template in ("etl", "analytics"):
        request = prepare(template, project=project, target=target, workers=2)
    open_home(request.project).held(request.user)
    prices = request.project.prices
    if prices is not None and not confirm(
        "It starts a Dask and a Spark cluster for some minutes, at the target's prices. Continue?",
        yes=yes,
        unattended="this would start clusters that cost money",
    ):
        raise typer.Exit(0)
    raise typer.Exit(job.run(project, target=target, as_json=output is o.Output.JSON))
