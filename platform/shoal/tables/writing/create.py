"""New tables.

Why it exists: a table made by a write appears together with its first rows, or not at all, so what a new
table is made of is settled here and committed elsewhere. What it must not do: write data files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from dask.dataframe.dispatch import make_meta
from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.partitioning import PartitionField as IcebergPartitionField
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import IdentityTransform, TruncateTransform
from pyiceberg.types import BinaryType, IcebergType, TimeType, UUIDType
from sqlalchemy.exc import IntegrityError

from shoal.errors import UsageError
from shoal.tables import arguments
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.catalogs.reaching import reach
from shoal.tables.errors import TableExistsError
from shoal.tables.pyiceberg_commits import io_of
from shoal.tables.pyiceberg_private import CommitFailedException, iceberg_schema
from shoal.tables.storage import storage_error
from shoal.tables.types.partitioning import PartitionField, check_sortable, parse_field, parse_sorts
from shoal.tables.types.schemas import check_columns, frame_schema, new_table_schema, refuse_alike_by_case
from shoal.tables.writing.sweep import sweep_creation

PROPERTIES = {
    # Version 3 cannot be appended to by PyIceberg 0.12.
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
}


def create_table(
    name: str,
    schema: pa.Schema | Schema | Mapping[str, pa.DataType] | Any,
    *,
    partition_by: Sequence[str] | str = (),
    sort_by: Sequence[str] | str = (),
    properties: Mapping[str, str] | None = None,
    exist_ok: bool = False,
    catalog: CatalogSettings | None = None,
) -> Table:
    """Make an empty table, and its namespace if that is new.

    ``schema``: an Arrow or Iceberg schema, a mapping of column to Arrow type, or a frame (pandas or Dask)
    whose columns are taken. ``partition_by``: columns, or ``year(c)``, ``month(c)``, ``day(c)``, ``hour(c)``,
    ``bucket(16, c)``, ``truncate(4, c)``. ``sort_by``: ``"c"`` or ``"c desc"``; every writer that honours it
    (this one and Spark) sorts inside its files.

    Raises :class:`TableExistsError`, :class:`TypeNotSupportedError`, :class:`ColumnNotFoundError`.
    """
    settled = catalogs.settings(catalog)
    stage = staged(name, as_schema(schema), partition_by, sort_by, properties, settled)
    transaction = stage()
    try:
        return transaction.commit_transaction()
    except OSError as error:
        where, io = transaction.table_metadata.location, io_of(transaction)
        what = f"The metadata of {name} could not be written, and nothing was made"
        raise storage_error(error, where, what, io=io, table=name) from error
    except (TableAlreadyExistsError, CommitFailedException) as error:
        # PyIceberg says the one or the other: it saw the table when it looked, or when it was to make its own.
        there = catalogs.load(name, settled)
        if there.metadata.table_uuid == transaction.table_metadata.table_uuid:
            return there  # an answer was lost, and the request sent again
        sweep_creation(io_of(transaction), transaction.table_metadata)
        if exist_ok:
            return there
        raise TableExistsError(
            f"The table {name} exists already.",
            hint="exist_ok=True takes it as it is; write_table appends to it.",
        ) from error


def as_schema(given: Any) -> pa.Schema | Schema:
    """Whatever ``create_table`` accepts as a schema, as an Arrow or Iceberg one."""
    if isinstance(given, Schema):
        return given
    if isinstance(given, (pa.Schema, pa.Table)):
        return arguments.arrow_schema(given if isinstance(given, pa.Schema) else given.schema)
    if isinstance(given, Mapping):
        return arguments.mapped_schema(given)
    if isinstance(given, pd.DataFrame):
        return arguments.pandas_schema(given)
    if isinstance(given, dd.DataFrame):
        return frame_schema(make_meta(given))
    raise UsageError(
        f"{type(given).__name__} is not a schema.",
        hint="Give a pyarrow.Schema, {'column': pyarrow type}, or a frame.",
    )


def staged(
    name: str,
    schema: pa.Schema | Schema,
    partition_by: Sequence[str] | str,
    sort_by: Sequence[str] | str,
    properties: Mapping[str, str] | None,
    settled: CatalogSettings,
) -> Callable[[], Transaction]:
    """Check everything about a new table; give back what starts the transaction that would make it."""
    ident = catalogs.identifier(name, settled)
    opened = catalogs.catalog(settled)
    wanted = iceberg_schema(new_table_schema(schema) if isinstance(schema, pa.Schema) else schema)
    refuse_alike_by_case(wanted, name)
    spec = make_spec(wanted, partition_by, name)
    order = make_order(wanted, sort_by, name)
    merged = {**PROPERTIES, **arguments.properties(properties)}
    if merged["format-version"] not in ("1", "2"):
        raise UsageError(
            f"A table of format version {merged['format-version']!r} cannot be made here.",
            hint="Leave it out: new tables are version 2. Spark makes tables of version 3.",
        )

    def start() -> Transaction:
        def begin() -> Transaction:
            # Of two who make it at once PyIceberg tells the second what the database says.
            with suppress(NamespaceAlreadyExistsError, IntegrityError):
                opened.create_namespace(ident[:-1])
            try:
                return opened.create_table_transaction(
                    ident, wanted, partition_spec=spec, sort_order=order, properties=merged
                )
            except ValueError as error:  # also pydantic's
                raise UsageError(
                    f"The table {name} cannot be made: {str(error).strip()}",
                    hint="Are its name (namespace.table) and properties= right?",
                ) from error

        return reach(settled, f"make the table {name}", begin)

    return start


def make_spec(schema: Schema, partition_by: Sequence[str] | str, name: str) -> PartitionSpec:
    """The partition spec of a new table."""
    parts = [parse_field(text) for text in arguments.names(partition_by, "partition_by", '["day(ts)"]')]
    if not parts:
        return UNPARTITIONED_PARTITION_SPEC
    check_columns([p.column for p in parts], _names(schema), f"the table {name}")
    fields: list[IcebergPartitionField] = []
    for i, part in enumerate(parts):
        source = schema.find_field(part.column)
        if not part.transform.can_transform(source.field_type) or _unwritten(part, source.field_type):
            raise UsageError(
                f"{part.transform} does not go with {part.column!r}, which is {source.field_type}.",
                hint="year, month and day need a date or timestamp, hour a timestamp; times of day, UUIDs and the "
                "beginnings of binary data cannot be partitioned by here.",
            )
        if any(f.source_id == source.field_id for f in fields):
            raise UsageError(
                f"The table would be partitioned by {part.column!r} twice, which cannot be written.",
                hint="Use the finer of the two: the coarser prunes nothing more.",
            )
        fields.append(
            IcebergPartitionField(
                source.field_id, PARTITION_FIELD_ID_START + i, part.transform, name=part.name
            )
        )
    return PartitionSpec(*fields)


def _unwritten(part: PartitionField, kind: IcebergType) -> bool:
    """What Iceberg has, and this writer cannot make."""
    if isinstance(kind, (TimeType, UUIDType)):
        return True
    return isinstance(part.transform, TruncateTransform) and isinstance(kind, BinaryType)


def make_order(schema: Schema, sort_by: Sequence[str] | str, name: str) -> SortOrder:
    """The sort order of a new table: nulls first, as this writer sorts."""
    keys = parse_sorts(sort_by)
    if not keys:
        return UNSORTED_SORT_ORDER
    check_columns([column for column, _ in keys], _names(schema), f"the table {name}")
    for column, _ in keys:
        check_sortable(column, schema.find_type(column))
    fields = [
        SortField(
            source_id=schema.find_field(column).field_id,
            transform=IdentityTransform(),
            direction=SortDirection.ASC if ascending else SortDirection.DESC,
            null_order=NullOrder.NULLS_FIRST,
        )
        for column, ascending in keys
    ]
    return SortOrder(*fields)


def _names(schema: Schema) -> list[str]:
    return [schema.find_column_name(i) or "" for i in schema.field_ids]
