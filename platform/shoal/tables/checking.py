"""``check_rows``: what rules say of a frame's rows, without writing it.

Why it exists: a Spark frame is written by Spark, so its gate is a check before; and people try rules before they put
them in a gate. The rules are decided by the same code on every engine: Spark runs it on its workers, on Arrow.

What it must not do: write, or touch a catalog.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from pyiceberg.schema import Schema

from shoal.errors import ShoalError, UsageError
from shoal.tables.errors import QualityError, RuleError
from shoal.tables.pyiceberg_private import iceberg_schema
from shoal.tables.quality.judging import Tally, added_up, judge
from shoal.tables.quality.report import QualityReport, details, report_of, said
from shoal.tables.quality.rules import Rules, RuleSet, read_rules
from shoal.tables.types.fit import fit
from shoal.tables.types.schemas import new_table_schema
from shoal.tables.writing.prepare import frame_columns

_WHERE = "the frame"


def check_rows(frame: Any, expect: Rules, *, on_failure: Literal["fail", "warn"] = "fail") -> QualityReport:
    """Check every row of a frame against rules, where the rows are; nothing is written.

    ``frame``: a Dask or pandas frame, an Arrow table, or a Spark frame, whose workers need Shoal, as those of
    ``shoal.spark`` have it. It is computed for the check, so persist or cache what is costly. ``expect``: as in
    :func:`write_table`. ``on_failure``: ``"fail"`` raises, ``"warn"`` gives back the report whatever it says.

    Raises :class:`QualityError`, :class:`RuleError`, :class:`ColumnNotFoundError`.
    """
    if on_failure not in ("fail", "warn"):
        raise UsageError(
            f"on_failure={on_failure!r} is not known here, where nothing is written.",
            hint='Use "fail" or "warn"; write_table knows "quarantine", too.',
        )
    on_spark = hasattr(frame, "mapInArrow")
    # Spark says of a frame without rows what its columns are.
    index_names, columns = frame_columns(frame.limit(0).toArrow() if on_spark else frame)
    schema = iceberg_schema(new_table_schema(_known(columns)))
    parts = 2 if on_spark else frame.npartitions if isinstance(frame, dd.DataFrame) else 1
    try:
        rules = read_rules(expect, schema, _WHERE, parts=parts)
    except RuleError:
        new_table_schema(columns)  # says of which columns the type is not known, if that is why
        raise
    job = partial(_tally, rules=rules, schema=schema, index_names=index_names)
    if on_spark:
        tallies = _on_spark(frame, job)
    elif isinstance(frame, dd.DataFrame):
        meta = pd.DataFrame({"tally": pd.Series([], dtype=object)})
        parts_of_it = frame.map_partitions(_tally_frame, job, meta=meta, enforce_metadata=False)
        tallies = list(parts_of_it.compute()["tally"])
    else:
        tallies = [job(frame, 0)]
    report = report_of(_WHERE, added_up(tallies), rules, on_failure)
    if not report.ok and on_failure == "fail":
        raise QualityError(
            f"{said(report)}:\n{details(report, rules)}",
            hint="error.report.failing() shows such rows.",
            report=report,
        )
    return report


def _known(columns: pa.Schema) -> pa.Schema:
    """The columns, of any of which there may be nulls; one of nulls alone, or without rows, is taken for text."""
    return pa.schema(
        [(f.with_type(pa.string()) if pa.types.is_null(f.type) else f).with_nullable(True) for f in columns]
    )


def _tally(
    part: pd.DataFrame | pa.Table,
    position: int,
    *,
    rules: RuleSet,
    schema: Schema,
    index_names: tuple[str, ...] = (),
) -> Tally:
    if isinstance(part, pd.DataFrame) and index_names:
        part = part.reset_index([name for name in index_names if name in part.index.names])
    if not len(part):
        return Tally(0)
    table = fit(part, schema, _WHERE, position)
    return judge(table, part, rules, schema, f"partition {position} of {_WHERE}").tally


def _tally_frame(
    frame: pd.DataFrame, job: Callable[[Any, int], Tally], partition_info: dict[str, Any] | None = None
) -> pd.DataFrame:
    tally = job(frame, (partition_info or {}).get("number", 0))
    return pd.DataFrame({"tally": pd.Series([tally], dtype=object)})


def _on_spark(frame: Any, job: Callable[[Any, int], Tally]) -> list[Tally]:
    try:
        rows = frame.mapInArrow(partial(_tally_batches, job=job), "tally binary").toArrow()
    except Exception as error:  # PySpark's have no common base that is there without it
        missing = re.search(r"ModuleNotFoundError: No module named '(\w+)'", str(error))
        if missing is None:
            raise
        raise UsageError(
            f"Spark's workers could not check the rows: their Python has no module {missing[1]!r}.",
            hint="Use shoal.spark(...), or set spark.sql.execution.pyspark.python to a Python that has Shoal "
            "(and pandera, for a schema of its).",
        ) from error
    found = [pickle.loads(one) for one in rows.column("tally").to_pylist()]  # noqa: S301 - our own workers'
    for one in found:
        if isinstance(one, ShoalError):
            raise one
    return found


def _tally_batches(
    batches: Iterable[pa.RecordBatch], job: Callable[[Any, int], Tally]
) -> Iterator[pa.RecordBatch]:
    """On a worker of Spark's: one answer for a partition, whose rows come in batches."""
    try:
        found: Tally | ShoalError = added_up(job(pa.Table.from_batches([batch]), 0) for batch in batches)
    except ShoalError as error:
        found = error  # Spark would make text of it
    yield pa.record_batch({"tally": pa.array([pickle.dumps(found)], pa.binary())})
