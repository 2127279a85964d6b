"""``shoal advise`` and ``shoal report``: what runs took, and what would have been enough.

Why it exists: sizes come from measurements, and the person decides.

What it must not do: work the advice out (``shoal.planning.advice`` does), or change a file without ``--apply``.
"""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import options as o

if TYPE_CHECKING:
    from shoal.homes.base import Home
    from shoal.model.cluster import Cluster
    from shoal.planning.advice import Advice, PastRun
    from shoal.project.loading import Project

ADVISE_EXAMPLES = """\b
Examples:
  shoal advise etl
  shoal advise etl --apply
"""
REPORT_EXAMPLES = """\b
Examples:
  shoal report nightly
  shoal report nightly --html nightly.html
"""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("report", epilog=REPORT_EXAMPLES)(report)
    app.command("advise", epilog=ADVISE_EXAMPLES)(advise)


def report(
    name: o.ClusterName,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the report to this HTML file, with a chart.")
    ] = None,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Show what a run took: times per phase, peaks, price or hours; with --html a picture of it."""
    from shoal.cli.commands.listing import open_target
    from shoal.cli.console import out, say, write_json
    from shoal.client.finding import find
    from shoal.display.report import report_of
    from shoal.errors import InfrastructureError

    home = open_target(project, target)
    cluster = find(home, name, ended=True)
    found = report_of(cluster, home.history(cluster.id), time.time())
    if html is not None:
        page = f"<!doctype html><meta charset=utf-8><title>{escape(cluster.name)}</title>{found.html()}"
        try:
            html.write_text(page, encoding="utf-8")
        except OSError as error:
            raise InfrastructureError(f"cannot write {html}: {error.strerror}") from error
        say(f"Written to {html.absolute()}")
    if output is o.Output.JSON:
        write_json(found.to_json())
        return
    out().print(found.line(), markup=False, soft_wrap=True)
    if cluster.state.ended:
        out().print(f"  ended      {found.end}", markup=False, soft_wrap=True)
    for phase, took in found.phases.items():
        out().print(f"  {phase:<10} {took}", markup=False)


def advise(
    template: Annotated[
        str,
        typer.Argument(
            metavar="TEMPLATE",
            help="The template whose runs are looked at.",
            autocompletion=o.complete_templates,
        ),
    ],
    apply: Annotated[bool, typer.Option("--apply", help="Write the size into the template's file.")] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Say what memory per worker would have been enough: an estimate, from three clean runs or more."""
    from shoal.cli.console import out, write_json
    from shoal.client.finding import open_project
    from shoal.homes.choose import open_home
    from shoal.planning.advice import advise as work_out

    opened = open_project(project, target)
    known = opened.template(template)
    found = work_out(template, runs_of(open_home(opened), template), known.groups[0][1].memory)
    several = len(known.groups) > 1
    written = _apply(opened, found, several) if apply and found.memory is not None else None
    if output is o.Output.JSON:
        write_json(_view(found, written))
        return
    out().print(f"{template}: {found.why}.", markup=False, soft_wrap=True)
    for line in found.left_out:
        out().print(f"  ignored: {line}", markup=False, soft_wrap=True)
    if found.memory is None:
        return
    price = f", about {found.price} a run" if found.price is not None else ""
    out().print(
        f"An estimate: memory {found.memory} instead of {found.now}{price}; other input may need more."
    )
    done = f"Written to {written}." if written else f"Not applied. shoal advise {template} --apply writes it."
    out().print(done, markup=False)


def runs_of(home: Home, template: str) -> list[PastRun]:
    """The ended runs of a template, as advice reads them."""
    from shoal.model.cluster import State

    return [
        _run(home, cluster)
        for cluster in home.clusters(owner=home.user(), ended=True)
        if cluster.state.ended and cluster.plan.template == template and cluster.state is not State.REFUSED
    ][::-1]


def _run(home: Home, cluster: Cluster) -> PastRun:
    from shoal.display.report import report_of
    from shoal.model.cluster import State
    from shoal.planning.advice import PastRun
    from shoal.units import Seconds

    found = report_of(cluster, home.history(cluster.id), time.time())
    group = cluster.plan.groups[0]
    return PastRun(
        name=cluster.name,
        failed=cluster.state is State.FAILED,
        ready=found.phases.get("Ready", Seconds(0)),
        asked=group.size.memory,
        limit=found.worker_memory_limit,
        # Spark's one JVM does the work of all its workers.
        peak=type(found.peak_worker_memory)(
            found.peak_worker_memory / (cluster.plan.workers if found.engine == "spark" else 1)
        ),
        spilled=found.spilled,
        restarts=found.restarts,
        price=found.price,
        exit_code=cluster.exit_code,
        data=cluster.workload.data,
    )


def _apply(project: Project, found: Advice, several: bool) -> Path:
    """Write the size where the template's file says it, and leave everything else as it is.

    Of ``several`` groups of workers advice is about the first.
    """
    from shoal.errors import UsageError
    from shoal.project.yamlfile import replace_value

    file = project.folder / "clusters" / f"{found.template}.yaml"
    from shoal.project.loading import defaults

    if project.folder == defaults() or not file.is_file():
        raise UsageError(
            f"{found.template} is a shipped template: there is no file of yours to write to",
            hint="shoal init makes a project folder with it.",
        )
    path = ("workers", 0, "memory") if several else ("workers", "memory")
    text = replace_value(file.read_text(), path, str(found.memory))
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text)
    fresh.replace(file)
    return file


def _view(found: Advice, written: Path | None) -> dict[str, Any]:
    return {
        "template": found.template,
        "memory": found.memory,
        "now": found.now,
        "peak": found.peak,
        "runs": found.runs,
        "estimate": True,
        "why": found.why,
        "left_out": list(found.left_out),
        "price": None if found.price is None else str(found.price),
        "applied": None if written is None else str(written),
    }
