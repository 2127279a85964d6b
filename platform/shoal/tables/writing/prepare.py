"""Everything about a write that is settled before its first byte.

Why it exists: what does not fit (columns, partitions, a branch, a table of another version) is refused while nothing
has to be undone. What it must not do: write, or look at data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from dask.dataframe.dispatch import make_meta
from pyiceberg.table import Transaction

from shoal.errors import UsageError
from shoal.tables import arguments
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.formats import refuse_newer
from shoal.tables.pyiceberg_commits import io_of
from shoal.tables.pyiceberg_private import FileIO, TableMetadata
from shoal.tables.refs import check_branch
from shoal.tables.types.evolution import plan_evolution
from shoal.tables.types.partitioning import (
    check_sortable,
    own_sort,
    parse_field,
    parse_sorts,
    same_spec,
    spec_fields,
)
from shoal.tables.types.schemas import check, check_columns, frame_schema, new_table_schema
from shoal.tables.writing.create import staged


@dataclass(frozen=True)
class Job:
    """Everything settled before the first byte is written."""

    existing: Any
    base: TableMetadata
    """What must hold still until the commit."""
    metadata: TableMetadata
    """What the files are written for: ``base``, or what it will be after evolving."""
    io: FileIO
    sort: tuple[tuple[str, bool], ...]
    index_names: tuple[str, ...]
    columns: tuple[str, ...]
    """The frame's."""
    change: Callable[[Transaction], None] | None = None
    create: Callable[[], Transaction] | None = None


def prepare(
    df: Any,
    name: str,
    settled: CatalogSettings,
    partition_by: Sequence[str] | str | None,
    sort_by: Sequence[str] | str | None,
    evolve: bool,
    branch: str,
) -> Job:
    """Check everything that can be checked, and settle what the files are written for; see ``write_table``."""
    index_names, schema = frame_columns(df)
    sort = tuple(parse_sorts(sort_by))
    check_columns([column for column, _ in sort], schema.names, "the frame")
    if (table := catalogs.find(name, settled)) is None:
        return _new(name, schema, settled, partition_by, sort_by, sort, index_names, branch)
    refuse_newer(
        table,
        name,
        "Hand the rows to Spark: `with shoal.staged(df) as t:` and there "
        f"INSERT INTO shoal.{name} SELECT * FROM shoal.<t>.",
    )
    if partition_by is not None:
        wanted = [parse_field(p) for p in arguments.names(partition_by, "partition_by", '["day(ts)"]')]
        have = spec_fields(table.spec(), table.schema())
        if not same_spec(wanted, have):
            raise UsageError(
                f"The table {name} is partitioned by {[f.name for f in have]}, not by {partition_by!r}.",
                hint="Leave partition_by= out: it is for new tables.",
            )
    if isinstance(branch, str) and branch != "main" and branch not in table.metadata.refs:
        raise UsageError(
            f"{name} has no branch {branch!r}.", hint=f"Make it: shoal.branch({name!r}, {branch!r})"
        )
    check_branch(table, name, branch)
    found = check(name, schema, table.schema(), evolve=evolve)
    for column, _ in sort:
        if column in table.schema().column_names:
            check_sortable(column, table.schema().find_type(column))
    change, metadata = plan_evolution(name, table, found) if found else (None, table.metadata)
    if not sort:
        own = own_sort(table.sort_order(), table.schema())
        sort = tuple((column, ascending) for column, ascending in own if column in schema.names)
    return Job(
        table, table.metadata, metadata, table.io, sort, index_names, tuple(schema.names), change=change
    )


def _new(
    name: str,
    schema: pa.Schema,
    settled: CatalogSettings,
    partition_by: Sequence[str] | str | None,
    sort_by: Sequence[str] | str | None,
    sort: tuple[tuple[str, bool], ...],
    index_names: tuple[str, ...],
    branch: str,
) -> Job:
    if branch != "main":
        raise UsageError(f"The table {name} does not exist yet, so it has no branch {branch!r}.")
    start = staged(
        name,
        new_table_schema(schema),
        () if partition_by is None else partition_by,
        () if sort_by is None else sort_by,
        None,
        settled,
    )
    transaction = start()
    metadata = transaction.table_metadata
    again = _once(transaction, start)
    return Job(
        None, metadata, metadata, io_of(transaction), sort, index_names, tuple(schema.names), create=again
    )


def _once(first: Transaction, start: Callable[[], Transaction]) -> Callable[[], Transaction]:
    """The transaction that the files were written for; on a second try a new one at the same location."""
    pending = [first]
    return lambda: pending.pop() if pending else start()


def _instead(kind: str) -> str:
    """What to do with something else that holds rows."""
    match kind.split("."):
        case ["pyspark", *_, "DataFrame"]:
            return "Spark writes its own frames: frame.writeTo('shoal.NAMESPACE.TABLE').append()."
        case ["pandas" | "dask", *_, "Series"]:
            return "Make a frame of it: series.to_frame('NAME')."
        case ["polars", *_]:
            return "Give a pyarrow.Table: frame.to_arrow()."
        case ["pyarrow", *_, "RecordBatch"]:
            return "Give a pyarrow.Table: pa.Table.from_batches([batch])."
        case ["dict" | "list"]:
            return "Make a frame of it: pd.DataFrame(rows)."
    return "Both Dask's and pandas' frames can be written."


def frame_columns(df: Any) -> tuple[tuple[str, ...], pa.Schema]:
    """The index levels that are stored, and the columns with their types."""
    if isinstance(df, pa.Table):
        return (), arguments.arrow_schema(df.schema)
    if not isinstance(df, (pd.DataFrame, dd.DataFrame)):
        kind = f"{type(df).__module__}.{type(df).__name__}".removeprefix("builtins.")
        raise UsageError(f"Expected a DataFrame or a pyarrow.Table, got {kind}.", hint=_instead(kind))
    meta: pd.DataFrame = make_meta(df) if isinstance(df, dd.DataFrame) else df
    names = tuple(cast("str", n) for n in meta.index.names if n is not None)
    arguments.check_names([*names, *meta.columns], "column or index level")
    if names and len(names) != meta.index.nlevels:
        raise UsageError("Some index levels have names and some have none.", hint="df.reset_index() first.")
    if names:
        meta = meta.reset_index()
    if isinstance(df, pd.DataFrame):
        return names, arguments.pandas_schema(meta).remove_metadata()
    return names, frame_schema(meta)
