"""``etl``: files or a table -> the user's function, or a query -> a quality gate -> a table.

Why it exists: see the package. Stages are one Prefect task each; Dask and Spark fan out inside.

What it must not do: keep anything between runs but in the table that it writes.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
from dask.dataframe.dispatch import make_meta
from prefect import flow
from prefect.runtime import flow_run

from shoal.errors import UsageError
from shoal.flows import batch as batches
from shoal.flows import inputs, progress, script
from shoal.flows.batch import Batch
from shoal.flows.common import check_name, open_folder, slug, stage, start_of_run
from shoal.flows.pieces import types_of
from shoal.flows.script import Query, Transform
from shoal.prefect import dask_cluster, publish_report, publish_table, spark_session
from shoal.prefect.publish import publish
from shoal.tables.quality.rules import OnFailure, Rules, check_action
from shoal.tables.reading.read import read_table
from shoal.tables.writing.result import WriteResult
from shoal.tables.writing.staging import staged
from shoal.tables.writing.write import Mode, write_table
from shoal.units import Seconds
from shoal.words import count

_MODES = ("append", "overwrite", "overwrite_partitions", "upsert")


@dataclass(frozen=True)
class Etl:
    """What :func:`etl` was told."""

    name: str
    input: str
    output: str
    transform: Transform
    mode: Mode
    incremental: bool
    expect: Rules | None
    late: tuple[str, Seconds] | None
    types: Mapping[str, Any]
    write: Mapping[str, Any]
    """Options of ``write_table`` as they are."""
    data: str | None
    template: str
    cluster: Mapping[str, Any] = field(default_factory=dict)

    def find(self, folder: Path, run: str, *, again: bool) -> Batch | None:
        """What there is to do; None where nothing is new."""
        if self.incremental:
            progress.keep(self.output, self.name)  # a run that was killed may not have got to it
        how: dict[str, Any] = {"incremental": self.incremental, "again": again, "run": run}
        if inputs.is_table(self.input):
            return batches.of_table(self.name, self.input, self.output, **how)
        replaces = self.mode == "upsert"
        return batches.of_files(self.name, self.input, self.output, folder, replaces=replaces, **how)

    def land(self, frame: dd.DataFrame, found: Batch, start: dt.datetime) -> WriteResult:
        """Check and write the rows, with what is done then."""
        told = {progress.property_of(self.name): found.done.written()} if found.done is not None else {}
        rules = self.expect
        if self.late is not None:
            rules = {**_rule(self.late, make_meta(frame), start), **_named(self.expect)}
        empty = "snapshot" if self.incremental else "fail" if self.mode.startswith("overwrite") else "pass"
        result = write_table(
            frame,
            self.output,
            self.mode,
            run_key=found.key,
            properties=told,
            expect=rules,
            on_empty=empty,  # type: ignore[arg-type]
            **self.write,
        )
        if found.done is not None:
            progress.keep(self.output, self.name)
        return result


def etl(
    name: str,
    *,
    input: str,
    output: str,
    transform: Transform = None,
    mode: Mode = "append",
    keys: Sequence[str] | str = (),
    incremental: bool | None = None,
    expect: Rules | None = None,
    on_failure: OnFailure = "quarantine",
    quarantine: str | None = None,
    late: tuple[str, str] | None = None,
    partition_by: Sequence[str] | str | None = None,
    sort_by: Sequence[str] | str | None = None,
    evolve: bool = False,
    types: Mapping[str, Any] | None = None,
    data: str | None = None,
    template: str = "etl",
    cluster: Mapping[str, Any] | None = None,
    retries: int = 0,
    description: str = "",
) -> Any:
    """A Prefect flow that reads files or a table, changes and checks the rows, and writes them into a table.

    It is tried again, killed or run twice without a row being written twice: which files or snapshots are done is
    told by the snapshots of the table that it writes.

    Args:
        name: Of the flow; what is done already is kept under it.
        input: A file, folder or pattern (``"data/sales/*.csv"``, ``"s3://lake/sales/**/*.parquet"``; CSV, TSV, JSON
            lines, Parquet), below the project folder; or a table (``"raw.sales"``).
        output: The table. It is made with its first rows.
        transform: A function that is called with each part's rows as a pandas frame, on Dask, and returns those to
            write; ``"clean.py:clean"`` from a file of the project; or ``"clean.sql"``, a query of the view ``input`` on
            Spark. Default: the rows as they are.
        mode: As in ``write_table``; ``keys`` go with ``"upsert"``.
        incremental: Read only files, or rows of a table, that no run has read. Default: yes, but with ``"overwrite"``,
            where it cannot be.
        expect: Rules that rows have to pass, as in ``write_table``.
        on_failure: What becomes of rows that fail: ``"quarantine"`` puts them into the table ``quarantine``
            (``OUTPUT_quarantine``) with the rules they break, ``"fail"`` writes nothing, ``"warn"`` writes them.
        late: A column of times, and how much older than the run's scheduled start they may be: ``("at", "2 d")``.
            A row that is older fails the rule ``late``.
        partition_by: As in ``write_table``, as are ``sort_by`` and ``evolve``.
        types: Arrow types of columns of text files, where the first rows do not tell: ``{"zip": "string"}``.
        data: Estimated size of the input, such as ``"25 GB"``, by which the cluster is sized. Default: the files' size.
        template: Of the cluster, with ``cluster``: options of ``shoal.dask`` in place of the template's.
        retries: How often Prefect tries a failed run again.
        description: Shown by Prefect. Default: what it reads and writes.

    Returns:
        The flow. Its parameters are ``full`` (read everything, whatever was read before), ``project`` and ``target``;
        it returns what was written, as plain values.

    Raises:
        UsageError: what was given makes no sense; of what is found only when it runs, the flow raises
            InputMissingError, InputChangedError, EmptyInputError, ScriptError, or an error of tables or clusters.
    """
    job = _checked(
        name, input, output, transform, mode, incremental, expect, late, types, data, template, cluster
    )
    checked = job.expect is not None or job.late is not None
    action = {"on_failure": on_failure, "quarantine": quarantine} if checked else {}
    check_action(action.get("on_failure", "fail"), quarantine, rules=checked, table=output)
    if bool(keys) != (mode == "upsert"):
        raise UsageError("keys= go with mode='upsert', and mode='upsert' needs them", hint="keys=['id']")
    options = {"keys": keys, "partition_by": partition_by, "sort_by": sort_by, "evolve": evolve, **action}
    job = replace(job, write=options)

    @flow(  # type: ignore[untyped-decorator]
        name=name, log_prints=True, retries=retries, description=description or f"{input} -> {output}"
    )
    def run(full: bool = False, project: str | None = None, target: str | None = None) -> dict[str, Any]:
        return run_once(job, full=full, where={"project": project, "target": target})

    return run


def run_once(job: Etl, *, full: bool, where: Mapping[str, Any]) -> dict[str, Any]:
    """One run, in its flow."""
    folder = open_folder(where)
    given = script.load(job.transform, folder)
    found = stage("look", job.find, folder, _run(), again=full)
    if found is None:
        print(f"{job.name}: nothing new in {job.input}")
        return {"output": job.output, "new": None, "rows": 0, "failed_rows": 0, "snapshot_id": None}
    print(f"{job.name}: {found.said} -> {job.output}")
    options = {"data": job.data or (str(found.size) if found.size else None), **job.cluster, **where}
    if isinstance(given, Query):
        result = _by_spark(job, found, given, options)
    else:
        with dask_cluster(job.template, **options):
            result = stage("load", lambda: job.land(_frame(job, found, given), found, start_of_run()))
    return _told(job, found, result, where)


def _by_spark(job: Etl, found: Batch, query: Query, options: Mapping[str, Any]) -> WriteResult:
    """Spark runs the query; files get there, and rows from there through the gate, by staged tables."""
    with ExitStack() as kept:
        if found.table:
            source, at = found.table, {"end-snapshot-id": found.to, "start-snapshot-id": found.since}
            if found.since is None:
                at = {"snapshot-id": found.to}
        else:
            with dask_cluster(job.template, role="read", **options):
                frame = _frame(job, found, None)
                source, at = stage("read", lambda: kept.enter_context(staged(frame))), {}
        with spark_session(job.template, role="query", **options) as spark:

            def ask() -> str:
                reader = spark.session.read
                for name, value in at.items():
                    reader = reader.option(name, str(value))
                reader.table(f"shoal.{source}").createOrReplaceTempView("input")
                return kept.enter_context(staged(spark.sql(query.text)))

            answer = stage(f"query {query.name}", ask)
        with dask_cluster(job.template, role="load", **options):
            result: WriteResult = stage("load", lambda: job.land(read_table(answer), found, start_of_run()))
    return result


def _frame(job: Etl, found: Batch, function: Any) -> dd.DataFrame:
    return found.frame(job.types, job.output, function, as_they_are=job.transform is None)


def _told(job: Etl, found: Batch, result: WriteResult, where: Mapping[str, Any]) -> dict[str, Any]:
    """What was done, as plain values; in Prefect also to look at."""
    failed = result.quality.failed_rows if result.quality is not None else 0
    aside = result.quality.quarantine if result.quality is not None else None
    said = {
        "output": job.output,
        "new": found.said,
        "rows": result.rows,
        "replaced_rows": result.replaced_rows,
        "failed_rows": failed,
        "quarantine": aside,
        "snapshot_id": result.snapshot_id or None,
        "replayed": result.replayed,
    }
    wrote = "written by an earlier try" if result.replayed else f"{count(result.rows, 'row')} written"
    failing = f"; {count(failed, 'row')} failed{f', kept in {aside}' if aside else ''}" if failed else ""
    print(f"{job.output}: {wrote}{failing}")
    if flow_run.id is not None:
        lines = [f"# {job.name}", "", f"{found.said} → `{job.output}`: {wrote}{failing}.", ""]
        lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in said.items())]
        if (quality := result.quality) is not None:
            of = f"of {count(quality.rows, 'row')} failed"
            lines += ["", *(f"- {rule.rule}: {rule.failed} {of}" for rule in quality.rules)]
        publish(f"{slug(job.name)}-result", "\n".join(lines), "What this run wrote")
        publish_report(f"{slug(job.name)}-clusters", **where)
        publish_table(result, reads=[found.table] if found.table else [])
    return said


def _run() -> str:
    return str(flow_run.id or uuid.uuid4())


def _checked(
    name: str,
    given: object,
    output: str,
    transform: Transform,
    mode: Mode,
    incremental: bool | None,
    expect: Rules | None,
    late: Any,
    types: Mapping[str, Any] | None,
    data: str | None,
    template: str,
    cluster: Mapping[str, Any] | None,
) -> Etl:
    check_name(name)
    if not isinstance(output, str) or not inputs.is_table(output):
        raise UsageError(
            f"output={output!r} is not a table", hint="Name it as 'namespace.table', such as 'sales.rows'."
        )
    if mode not in _MODES:
        raise UsageError(f"mode={mode!r} is not known", hint=f"One of {', '.join(_MODES)}.")
    if incremental and mode == "overwrite":
        raise UsageError(
            "incremental=True contradicts mode='overwrite': the new rows would replace all others",
            hint="Append or upsert what is new, or overwrite with all of it (incremental=False).",
        )
    path = inputs.check(given)
    if path == output:
        raise UsageError(
            f"input and output are both {output}", hint="A flow writes another table than it reads."
        )
    script.check(transform)
    longest = None
    if late is not None:
        if not isinstance(late, (tuple, list)) or len(late) != 2 or not isinstance(late[0], str):
            raise UsageError(f"late={late!r} is not a column and a time", hint="For example ('at', '2 d').")
        longest = (late[0], Seconds.parse(late[1]))
        _named(expect)
    return Etl(
        name,
        path,
        output,
        transform,
        mode,
        mode != "overwrite" if incremental is None else incremental,
        expect,
        longest,
        types_of(types),
        {},
        data,
        template,
        dict(cluster or {}),
    )


def _named(expect: Rules | None) -> dict[str, Any]:
    """Rules by name, to which one can be added; UsageError for a schema."""
    if expect is None:
        return {}
    if isinstance(expect, Mapping):
        return dict(expect)
    if isinstance(expect, str):
        return {expect: expect}
    raise UsageError(
        "late= goes with rules by name, not with a schema",
        hint="Leave late= out, and have the schema check the times.",
    )


def _rule(late: tuple[str, Seconds], meta: pd.DataFrame, start: dt.datetime) -> dict[str, Any]:
    """The rule that a row is not late, in the terms of its column's type."""
    column, longest = late
    if column not in meta.columns:
        raise UsageError(
            f"late= names the column {column!r}, which the rows do not have",
            hint=f"Their columns: {', '.join(map(str, meta.columns))}",
        )
    bound = pd.Timestamp(start).tz_convert("UTC") - pd.Timedelta(seconds=float(longest))
    kind = str(meta[column].dtype)
    if "timestamp" not in kind and "datetime" not in kind and "date32" not in kind:
        raise UsageError(
            f"late= names the column {column!r}, which is {kind}, not a time",
            hint="Make times of it in transform=.",
        )
    if "date32" in kind:
        text = bound.date().isoformat()
    elif "tz=" in kind or "UTC" in kind:
        text = bound.isoformat()
    else:
        text = bound.tz_localize(None).isoformat()
    return {"late": f"{column} >= '{text}'"}
