"""``read_table``: an Iceberg table as a Dask frame.

Why it exists: it settles which snapshot, columns and rows are meant, checks them, and makes the frame. What
it must not do: read data.
"""

from __future__ import annotations

from collections.abc import Sequence

import dask.dataframe as dd
from pyiceberg.table import Table

from shoal.tables import arguments, paths
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import NotSupportedError, SnapshotNotFoundError
from shoal.tables.keys import hold_secrets
from shoal.tables.reading import equality
from shoal.tables.reading.filters import Filters, as_expression
from shoal.tables.reading.plan import PARTITION_SIZE, pack_metadata
from shoal.tables.reading.scan import ScanContext
from shoal.tables.reading.source import Source, frame_of
from shoal.tables.refs import AsOf, resolve
from shoal.tables.types.dtypes import Backend, types_mapper
from shoal.tables.types.schemas import check_columns


def read_table(
    name: str,
    columns: Sequence[str] | str | None = None,
    filters: Filters = None,
    *,
    snapshot: int | str | None = None,
    as_of: AsOf | None = None,
    branch: str | None = None,
    since: int | str | None = None,
    dtype_backend: Backend = "pyarrow",
    partition_size: int | str = PARTITION_SIZE,
    catalog: CatalogSettings | None = None,
) -> dd.DataFrame:
    """Read an Iceberg table as a Dask frame.

    ``name``: ``"namespace.table"``, or the path of a table that no catalog keeps: its folder
    (``"s3://lake/old/flights"``), or a metadata file of it. Such a table can be read only.

    What is read is settled now: a snapshot that is committed later is not seen. Columns and comparisons that
    are chosen later, in ordinary Dask (``df[df.dep_delay > 0].carrier``), reach the files too, and
    ``len(df)`` reads metadata only.

    ``columns``: these, in this order (default: all). ``filters``: SQL-like text (``"dep_delay > 0 and
    carrier = 'AA'"``), ``[("dep_delay", ">", 0)]`` as in ``dd.read_parquet``, or a PyIceberg expression;
    exact, to the row. ``snapshot``: its id, or a tag. ``as_of``: a time, UTC if it has no zone. ``branch``:
    its head. ``since``: only rows added after that snapshot; refused if rows were changed or deleted since,
    for those could not be told. ``partition_size``: of a partition in memory, about (128 MiB).

    Columns are Arrow-backed, text is Dask's string type: a column has one type, with nulls or without.
    ``dtype_backend="numpy_nullable"`` gives ``Int64`` and the like for numbers.

    Raises :class:`TableNotFoundError`, :class:`SnapshotNotFoundError`, :class:`ColumnNotFoundError`,
    :class:`FilterError`, :class:`NotSupportedError` (equality deletes), :class:`CatalogUnavailableError`.
    """
    settled = catalogs.settings(catalog)
    table = paths.load(name, settled)
    snapshot_id, schema_id = resolve(table, name, snapshot, as_of, branch)
    after = _since(table, name, since, snapshot_id)
    if after is not None and after == snapshot_id:
        after = snapshot_id = None  # nothing was added since
    if after is None and snapshot_id is not None:
        equality.refuse(table.metadata, table.io, snapshot_id, name)
    schema = table.metadata.schema_by_id(schema_id)
    assert schema is not None, "a snapshot's schema is in its table"
    known = [f.name for f in schema.fields]
    wanted = arguments.names(columns, "columns", '["id", "delay"]') if columns is not None else None
    check_columns(wanted or [], known, f"the table {name}")
    types_mapper(dtype_backend)  # refused here, not where the frame is first looked at
    row_filter = as_expression(filters, schema, f"the table {name}")
    size = arguments.size(partition_size, "partition_size")
    context = ScanContext(
        metadata=pack_metadata(table.metadata, schema_id),
        table=name,
        row_filter=row_filter,
        backend=dtype_backend,
        io_properties=hold_secrets(dict(table.io.properties)),
    )
    source = Source(table.metadata, table.io, context, schema_id, snapshot_id, after, size, wanted)
    return _frame_of(source, wanted)


def _frame_of(source: Source, columns: Sequence[str] | None) -> dd.DataFrame:
    try:
        from shoal.tables.reading.expression import frame_of as pushing
    except (ImportError, AttributeError):
        # A Dask whose private expressions have moved on: the same frame, only without push-down.
        return frame_of(source, columns)
    return pushing(source, columns)


def _since(table: Table, name: str, since: int | str | None, to: int | None) -> int | None:
    if since is None:
        return None
    start, _ = resolve(table, name, since, None, None)
    current = table.metadata.snapshot_by_id(to) if to is not None else None
    while current is not None and current.snapshot_id != start:
        operation = current.summary.operation.value if current.summary else "unknown"
        if operation not in ("append", "replace"):
            raise NotSupportedError(
                f"Since snapshot {start}, rows of {name} were not only added: "
                f"snapshot {current.snapshot_id} is an {operation}.",
                hint="Read the whole table, or start after that snapshot.",
            )
        parent = current.parent_snapshot_id
        current = table.metadata.snapshot_by_id(parent) if parent is not None else None
    if current is None:
        raise SnapshotNotFoundError(
            f"Snapshot {start} is not in the past of what is read of {name}.",
            hint=f"shoal.history({name!r}) shows which snapshots are.",
        )
    return start
