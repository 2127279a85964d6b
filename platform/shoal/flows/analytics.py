"""``analytics``: queries in order on Spark, and functions on Dask -> tables -> a report with plots.

Why it exists: see the package. Each run is for one date, or for each of a range, and replaces what an earlier run for
that date wrote.

What it must not do: keep anything between runs but the tables that it writes.
"""

from __future__ import annotations

import datetime as dt
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from shoal.errors import UsageError
from shoal.flows import steps as stepping
from shoal.flows.common import check_name, open_folder, slug, stage, start_of_run
from shoal.flows.inputs import filesystem, storage
from shoal.flows.reporting import POINTS, SHOWN, Page, Plot, Section
from shoal.flows.results import write_dask, write_spark
from shoal.flows.steps import FlowStep, Given
from shoal.machine.paths import replace_file
from shoal.prefect import dask_cluster, publish_report, spark_session
from shoal.prefect.lineage import publish_newest
from shoal.prefect.publish import publish
from shoal.tables.credentials import on_s3
from shoal.tables.reading.read import read_table
from shoal.tables.storage import told
from shoal.words import count, did_you_mean, sentence

_SPACE = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*")
_WORD = re.compile(r"[A-Za-z_]\w*")
LONGEST = 3_660
"""Dates of one run."""


@dataclass(frozen=True)
class Analytics:
    """What :func:`analytics` was told."""

    name: str
    steps: Sequence[Given]
    output: str
    by: str | None
    parameters: Mapping[str, Any]
    plots: Sequence[Plot]
    report: str | None
    evolve: bool
    data: str | None
    template: str
    cluster: Mapping[str, Any]

    def find(self, folder: Path) -> list[FlowStep]:
        """The steps; UsageError, too, for a plot of a table that none of them gives."""
        found = stepping.find(self.steps, folder)
        tables = [step.name for step in found if not step.view]
        for plot in self.plots:
            if plot.table not in tables:
                raise UsageError(
                    f"a plot is of the table {plot.table!r}, which no step gives",
                    hint=sentence(did_you_mean(plot.table, tables)),
                )
        return found

    def table(self, step: str) -> str:
        """The whole name of a step's table."""
        return f"{self.output}.{step}"


def analytics(
    name: str,
    *,
    steps: Given | Sequence[Given],
    output: str,
    by: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    plots: Sequence[Plot] = (),
    report: str | None = "reports",
    evolve: bool = False,
    data: str | None = None,
    template: str = "analytics",
    cluster: Mapping[str, Any] | None = None,
    retries: int = 0,
    description: str = "",
) -> Any:
    """A Prefect flow that runs queries and functions in order, writes what each gives into a table, and reports.

    Run again for the same date, it replaces what it wrote then; each table is replaced in one commit.

    Args:
        name: Of the flow, and of its report's folder.
        steps: A folder of ``.sql`` files, in the order of their numbers, or files and functions in a list. A file holds
            one query in Spark's SQL, in which tables are ``shoal.NAMESPACE.TABLE`` and ``:date`` is the run's date:
            ``10_by_day.sql`` gives the table ``by_day``, ``05_late.view.sql`` a view ``late`` for the steps after it. A
            function, or ``"trend.py:trend"``, runs on a Dask cluster; it is called with those of ``date`` and the
            parameters that it takes, and returns a Dask or pandas frame for the table ``trend``.
        output: The namespace of the tables.
        by: A column of dates that each table gets: a run replaces the rows of its own date. Default: it replaces all
            rows.
        parameters: Values of ``:NAME`` in queries, and keyword arguments of functions.
        plots: Of result tables, for the report.
        report: The folder, below the project folder or on S3, for ``NAME/DATE.html``; None: no report. Each table's
            first rows are in it, and the plots.
        evolve: Add columns that a query gives and its table lacks. Default: SchemaMismatchError.
        data: Estimated size of what the queries read, such as ``"25 GB"``, by which the clusters are sized.
        template: Of the clusters, with ``cluster``: options of ``shoal.spark`` in place of the template's.
        retries: How often Prefect tries a failed run again.
        description: Shown by Prefect. Default: the steps and the namespace.

    Returns:
        The flow. Its parameters are ``date`` (default: the day before the run's scheduled start, in UTC), ``until``
        (then it runs for each date from ``date`` to that one, in order), ``project`` and ``target``; it returns the
        dates, rows by table, and the report's path.

    Raises:
        UsageError: what was given makes no sense; the flow raises ScriptError before it starts a cluster, and later
            what Spark, Dask and tables raise, with the step and the date as a note.
    """
    check_name(name)
    if not isinstance(output, str) or not _SPACE.fullmatch(output):
        raise UsageError(
            f"output={output!r} cannot be a namespace",
            hint="Lower-case words, such as 'daily' or 'team.daily'.",
        )
    if by is not None and (not isinstance(by, str) or not _WORD.fullmatch(by)):
        raise UsageError(f"by={by!r} cannot be a column", hint="A word, such as by='day'.")
    values = dict(parameters or {})
    for key in values:
        if not isinstance(key, str) or not _WORD.fullmatch(key) or key == "date":
            raise UsageError(
                f"parameters= has {key!r}, which cannot be a name",
                hint="Words other than 'date', which is the run's: {'region': 'EU'} for :region.",
            )
    for plot in plots:
        if not isinstance(plot, Plot):
            raise UsageError(
                f"plots= has {plot!r}", hint="Give shoal.flows.Plot('by_day', x='day', y='amount')."
            )
    job = Analytics(
        name,
        stepping.check(steps),
        output,
        by,
        values,
        tuple(plots),
        report,
        evolve,
        data,
        template,
        dict(cluster or {}),
    )
    shown = steps if isinstance(steps, (str, Path)) else f"{count(len(job.steps), 'step')}"

    @flow(  # type: ignore[untyped-decorator]
        name=name, log_prints=True, retries=retries, description=description or f"{shown} -> {output}"
    )
    def run(
        date: dt.date | None = None,
        until: dt.date | None = None,
        project: str | None = None,
        target: str | None = None,
    ) -> dict[str, Any]:
        return run_once(job, dates(date, until), {"project": project, "target": target})

    return run


def dates(first: dt.date | None, last: dt.date | None) -> list[dt.date]:
    """Those that a run is for, in order; UsageError."""
    if first is None:
        if last is not None:
            raise UsageError(
                f"until={last} goes with date=", hint="date= is the first date, until= the last one."
            )
        return [start_of_run().astimezone(dt.UTC).date() - dt.timedelta(days=1)]
    days = ((last or first) - first).days + 1
    if not 1 <= days <= LONGEST:
        raise UsageError(
            f"from date={first} until={last} are {days} days",
            hint=f"until= is not before date=, and a run is for at most {LONGEST:,} days.",
        )
    return [first + dt.timedelta(days=number) for number in range(days)]


def run_once(job: Analytics, every: Sequence[dt.date], where: Mapping[str, Any]) -> dict[str, Any]:
    """One run, in its flow."""
    folder = open_folder(where)
    found = job.find(folder)
    print(f"{job.name}: {count(len(found), 'step')} for {_said(every)} -> {job.output}")
    rows: dict[str, int] = {}
    with ExitStack() as kept:
        engines = _Engines(kept, {"data": job.data, **job.cluster, **where}, job.template)
        for number, date in enumerate(every):
            for step in found:
                with _noted(job, step, every, number):
                    written = stage(f"{step.name} {date}", lambda s=step, d=date: _do(job, s, d, engines))
                if not step.view:
                    rows[job.table(step.name)] = rows.get(job.table(step.name), 0) + written
                    print(f"{job.table(step.name)}, {date}: {count(written, 'row')} written")
    made = stage("report", lambda: _report(job, found, every[-1], folder)) if job.report is not None else None
    if flow_run.id is not None:
        if made is not None:
            publish(f"{slug(job.name)}-report", f"{made[1]}\n\n{made[0]}", "The tables of this run")
        publish_report(f"{slug(job.name)}-clusters", **where)
        for table, number_of_rows in rows.items():  # once for a whole range: what follows is to run once
            publish_newest(table, number_of_rows)
    return {
        "dates": [str(every[0]), str(every[-1])],
        "rows": rows,
        "report": made[0] if made is not None else None,
    }


class _Engines:
    """The clusters of a run, each started when the first step needs it, and ended with the run."""

    def __init__(self, kept: ExitStack, options: Mapping[str, Any], template: str) -> None:
        self._kept, self._options, self._template = kept, options, template
        self._open: dict[str, Any] = {}

    def of(self, engine: str) -> Any:
        if engine not in self._open:
            start = {"spark": spark_session, "dask": dask_cluster}[engine]
            self._open[engine] = self._kept.enter_context(start(self._template, role=engine, **self._options))
        return self._open[engine]


def _do(job: Analytics, step: FlowStep, date: dt.date, engines: _Engines) -> int:
    """Run a step for a date; how many rows it wrote."""
    cluster = engines.of(step.engine)
    how: dict[str, Any] = {"by": job.by, "date": date, "evolve": job.evolve}
    if step.function is not None:
        known = inspect.signature(step.function).parameters
        given = {"date": date, **job.parameters}
        every = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
        frame = step.function(**{key: value for key, value in given.items() if every or key in known})
        return write_dask(frame, job.table(step.name), step.source, **how)
    frame = cluster.sql(step.query, args={"date": date, **job.parameters})
    if step.view:
        frame.createOrReplaceTempView(step.name)
        return 0
    return write_spark(cluster.session, frame, job.table(step.name), step.source, **how)


@contextmanager
def _noted(job: Analytics, step: FlowStep, every: Sequence[dt.date], number: int) -> Iterator[None]:
    """What fails says where."""
    try:
        yield
    except Exception as error:
        left = (
            f" Dates before {every[number]} are done: run again with date={every[number]}." if number else ""
        )
        error.add_note(f"In {step.source} of {job.name}, for {every[number]}.{left}")
        raise


def _report(job: Analytics, found: Sequence[FlowStep], date: dt.date, folder: Path) -> tuple[str, str]:
    """Where the report lies, and its tables as markdown."""
    sections, plots, columns = [], [], {}
    for name in (step.name for step in found if not step.view):
        frame = read_table(job.table(name), filters=[(job.by, "==", date)] if job.by else None)
        columns[name] = [str(column) for column in frame.columns]
        sections.append(Section(job.table(name), len(frame), frame.head(SHOWN, npartitions=-1)))
    for plot in job.plots:
        plot.check(columns[plot.table])
        rows = read_table(job.table(plot.table), columns=plot.columns, filters=_shown(job, plot, date))
        plots.append((plot, rows.head(POINTS + 1, npartitions=-1)))
    made = Page(job.name, {"date": date, **job.parameters}, sections, plots)
    path = f"{str(job.report).rstrip('/')}/{job.name}/{date}.html"
    _write(path, made.html().encode(), folder)
    print(f"{job.name}: the report is {path}")
    return path, made.markdown()


def _shown(job: Analytics, plot: Plot, date: dt.date) -> Any:
    """Which rows a plot draws."""
    if job.by is None:
        return None
    if plot.x != job.by:
        return [(job.by, "==", date)]
    return [(job.by, ">", date - dt.timedelta(days=plot.last)), (job.by, "<=", date)]


def _write(path: str, data: bytes, folder: Path) -> None:
    """The whole file, or none of it."""
    with told(f"The report {path} could not be written", path):
        if on_s3(path):
            where = filesystem(path, storage())
            with where.open_output_stream(path.partition("://")[2]) as out:
                out.write(data)
            return
        file = folder / Path(path).expanduser()
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, data)


def _said(every: Sequence[dt.date]) -> str:
    return str(every[0]) if len(every) == 1 else f"{count(len(every), 'date')}, {every[0]} to {every[-1]}"
