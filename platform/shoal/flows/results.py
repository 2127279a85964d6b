"""How the rows of a step replace those of its table: all of them, or those of one date.

Why it exists: Spark's and Dask's results land by the same rules, each in one commit of its own.

What it must not do: append.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from pyiceberg.expressions import EqualTo

from shoal.flows.errors import ScriptError
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import SchemaMismatchError
from shoal.tables.writing.write import write_table
from shoal.words import listed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def write_spark(
    session: SparkSession,
    frame: DataFrame,
    table: str,
    source: str,
    *,
    by: str | None,
    date: dt.date,
    evolve: bool,
) -> int:
    """Replace rows of ``table`` by those of a Spark frame; how many there are.

    ``by``: a column that the rows get, with ``date`` in it: rows of that date alone are replaced.

    Raises ScriptError, SchemaMismatchError, and what Spark raises.
    """
    from pyspark.sql.functions import col, lit

    if by is not None:
        _check_free(by, frame.columns, source)
        frame = frame.select(lit(date).alias(by), "*")
    place = f"shoal.{table}"
    session.sql(f"create namespace if not exists shoal.{table.rpartition('.')[0]}")
    if not session.catalog.tableExists(place):
        writer = frame.writeTo(place).using("iceberg").tableProperty("format-version", "2")
        (writer.partitionedBy(col(by)) if by is not None else writer).create()
    else:
        frame = _fitting(session, frame, table, source, evolve=evolve)
        frame.writeTo(place).overwrite(col(by) == lit(date) if by is not None else lit(True))
    return _added(table)


def _fitting(session: SparkSession, frame: DataFrame, table: str, source: str, *, evolve: bool) -> DataFrame:
    """A frame of the table's columns, which gets those that it lacks."""
    from pyspark.sql.functions import lit

    known = {field.name: field.dataType for field in session.table(f"shoal.{table}").schema}
    new = [field for field in frame.schema if field.name not in known]
    gone = [name for name in known if name not in frame.columns]
    if (new or gone) and not evolve:
        said = [*(f"{f.name!r} is new" for f in new), *(f"{name!r} is missing" for name in gone)]
        raise SchemaMismatchError(
            f"the columns of {source} are not those of {table}: {listed(said)}",
            hint="evolve=True adds new columns, and leaves those that are missing empty.",
            table=table,
        )
    for field in new:
        session.sql(f"alter table shoal.{table} add column `{field.name}` {field.dataType.simpleString()}")
    return frame.withColumns({name: lit(None).cast(known[name]) for name in gone}) if gone else frame


def write_dask(frame: Any, table: str, source: str, *, by: str | None, date: dt.date, evolve: bool) -> int:
    """:func:`write_spark` for a Dask or pandas frame, or an Arrow table."""
    if isinstance(frame, pa.Table):
        frame = frame.to_pandas(types_mapper=pd.ArrowDtype)
    if not isinstance(frame, (dd.DataFrame, pd.DataFrame)):
        raise ScriptError(
            f"{source} gave {type(frame).__name__}, not a frame",
            hint="Return a Dask or pandas DataFrame: the rows of its table.",
        )
    if by is None:
        return write_table(frame, table, "overwrite", evolve=evolve, on_empty="pass").rows
    _check_free(by, list(frame.columns), source)
    frame = frame.assign(**{by: date}).astype({by: pd.ArrowDtype(pa.date32())})
    frame = frame[[by, *(name for name in frame.columns if name != by)]]
    rows = write_table(frame, table, "overwrite_partitions", partition_by=[by], evolve=evolve).rows
    if not rows:  # nothing says which partition to replace
        catalogs.load(table).delete(EqualTo(by, date))  # type: ignore[call-arg,arg-type]
    return rows


def _check_free(by: str, columns: list[str], source: str) -> None:
    if by in columns:
        raise ScriptError(
            f"{source} gives a column {by!r}, which is what by= adds",
            hint=f"Leave it out of the query: each row gets the run's date as {by}; or name one of them otherwise.",
        )


def _added(table: str) -> int:
    """Rows of the newest snapshot."""
    snapshot = catalogs.load(table).current_snapshot()
    summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    return int(summary.get("added-records", 0))
