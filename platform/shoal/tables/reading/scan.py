"""How a task reads its pieces.

Why it exists: it is what runs on a worker: open the file, take the row groups, drop deleted rows, filter, and
give the columns the table's present names and types. What it must not do: talk to a catalog, plan, or keep
credentials that were sent to it (they come from the worker's own surroundings).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pandas as pd
import pyarrow as pa
from pyiceberg.schema import prune_columns

from shoal.tables.errors import NotSupportedError, StorageError
from shoal.tables.keys import file_io
from shoal.tables.pyiceberg_private import (
    AlwaysTrue,
    BooleanExpression,
    DataFile,
    DataFileContent,
    FileFormat,
    FileIO,
    Record,
    Schema,
    TableMetadata,
    bind,
    column_projection_values,
    extract_field_ids,
    file_schema_of,
    schema_to_pyarrow,
    to_requested_schema,
)
from shoal.tables.reading.deletes import kept_rows
from shoal.tables.reading.equality import TO_PARQUET
from shoal.tables.reading.fragments import file_format, opened
from shoal.tables.reading.plan import Piece, unpack_metadata
from shoal.tables.reading.proof import ArrowFilter, arrow_filter
from shoal.tables.storage import read_error, renewing
from shoal.tables.types.dtypes import Backend, to_pandas

# Text is read straight into the type that pandas keeps it in; a cast afterwards would copy it.
_FORMAT = file_format(binary_type=pa.large_binary(), list_type=pa.LargeListType)


@dataclass(frozen=True)
class ScanContext:
    """What every task of a read has to know. Holds no secret."""

    metadata: bytes
    table: str
    row_filter: BooleanExpression
    backend: Backend
    io_properties: dict[str, str] = field(default_factory=dict, repr=False)


def read_partition(
    pieces: Sequence[Piece], context: ScanContext, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """One partition as a frame. ``columns``: these of the table's columns, in this order; ``None``: all."""
    metadata = unpack_metadata(context.metadata)
    names = list(columns) if columns is not None else [f.name for f in metadata.schema().fields]
    table = read_arrow(pieces, context, names)
    if not names:
        return pd.DataFrame(index=pd.RangeIndex(table.num_rows))
    return to_pandas(table, context.backend)


def read_arrow(pieces: Sequence[Piece], context: ScanContext, columns: Sequence[str]) -> pa.Table:
    """The pieces as one Arrow table with these columns, in the table's types.

    With no columns asked for, one column is returned nonetheless, so that the rows can be counted.
    """
    metadata = unpack_metadata(context.metadata)
    io = file_io(metadata.location, context.io_properties)
    schema = metadata.schema()
    names = list(columns) or [_narrowest(schema)]
    projected = Schema(*(schema.find_field(name) for name in names), schema_id=schema.schema_id)
    target = schema_to_pyarrow(projected, include_field_ids=False)
    target = pa.schema([f.with_nullable(True).remove_metadata() for f in target])
    tables = [_read_piece(piece, metadata, io, projected, target, context) for piece in pieces]
    return pa.concat_tables(tables) if tables else target.empty_table()


def _narrowest(schema: Schema) -> str:
    primitive = [f.name for f in schema.fields if f.field_type.is_primitive]
    return primitive[0] if primitive else schema.fields[0].name


def _read_piece(
    piece: Piece,
    metadata: TableMetadata,
    io: FileIO,
    projected: Schema,
    target: pa.Schema,
    context: ScanContext,
) -> pa.Table:
    if piece.format != "PARQUET":
        raise NotSupportedError(
            f"{piece.path} of {context.table} is {piece.format}, and only Parquet is read.",
            hint=f"Rewrite the table's files with Spark: {TO_PARQUET.format(name=context.table)}",
        )

    def read() -> pa.Table:
        size = getattr(piece, "size", 0)  # a plan of an older version has none
        try:
            with opened(piece.path, size, io, _FORMAT, keep=piece.span is not None) as fragment:
                _look_at(fragment, piece, context)
                return _read_parquet(fragment, piece, metadata, io, projected, target, context)
        except OSError as error:
            raise read_error(error, piece.path, "data file", context.table, io) from error

    return renewing(io, read)


def _look_at(fragment: Any, piece: Piece, context: ScanContext) -> None:
    """Fetch its footer, if that is not at hand."""
    try:
        _ = fragment.metadata
    except pa.ArrowInvalid as error:
        raise StorageError(
            f"The data file {piece.path} of {context.table} is damaged: {error}",
            hint="Restore it, or go back to a snapshot before it: shoal.rollback().",
        ) from error


@lru_cache(maxsize=256)  # a tenth of the time of a small piece, and a table's files are mostly of one schema
def _file_schema(physical: bytes, packed: bytes) -> Schema:
    # By its bytes: Arrow's own equality of schemas knows nothing of the fields' ids.
    return file_schema_of(pa.ipc.read_schema(pa.py_buffer(physical)), unpack_metadata(packed))


def _read_parquet(
    fragment: Any,
    piece: Piece,
    metadata: TableMetadata,
    io: FileIO,
    projected: Schema,
    target: pa.Schema,
    context: ScanContext,
) -> pa.Table:
    if piece.span is not None:
        start, end = piece.span
        groups = [i for i, at in enumerate(_row_group_starts(fragment.metadata)) if start <= at < end]
        if not groups:
            return target.empty_table()
        fragment = fragment.subset(row_group_ids=groups)
    physical = fragment.physical_schema
    file_schema = _file_schema(physical.serialize().to_pybytes(), context.metadata)
    data_file = _as_data_file(piece)
    missing = column_projection_values(
        data_file, projected, metadata.schema(), metadata.specs().get(piece.spec_id), file_schema.field_ids
    )
    row_filter = AlwaysTrue() if piece.exact else context.row_filter
    bound = bind(metadata.schema(), row_filter, case_sensitive=True)
    keeps = ArrowFilter(None, None)
    if not isinstance(bound, AlwaysTrue):
        extra = column_projection_values(
            data_file,
            metadata.schema(),
            metadata.schema(),
            metadata.specs().get(piece.spec_id),
            file_schema.field_ids,
        )
        keeps = arrow_filter(bound, file_schema, extra, nans=piece.nans)

    direct = _direct_names(projected, file_schema)
    if direct is not None:
        names, pruned = direct, None
    else:
        wanted = {
            i
            for i in projected.field_ids
            if projected.find_type(i).is_primitive or projected.find_type(i).is_struct
        }
        pruned = prune_columns(file_schema, wanted | extract_field_ids(bound), select_full_types=False)
        names = [column.name for column in pruned.columns]
    if not names:
        # None of the columns is in this file (all were added later); its rows still count.
        names = [file_schema.fields[0].name]
        pruned = Schema(file_schema.fields[0])
    columns = list(dict.fromkeys(names))
    early = None if piece.deletes else keeps.early
    late = [part for part in (keeps.late, keeps.early if piece.deletes else None) if part is not None]
    needed = columns if not late else list(dict.fromkeys([*columns, *_roots(bound, file_schema)]))
    table = fragment.to_table(schema=physical, columns=needed, filter=early, batch_size=2**31 - 1)
    if piece.deletes:
        table = table.filter(kept_rows(piece.deletes, piece.path, table.num_rows, io, context.table))
    for part in late:
        table = table.filter(part)
    table = table.select(columns)
    if pruned is None:
        return table.rename_columns(target.names).cast(target)
    batches = [
        to_requested_schema(projected, pruned, batch, missing, downcast=metadata.format_version <= 2)
        for batch in table.to_batches()
    ]
    loose = [pa.Table.from_batches([b]).cast(target) for b in batches]
    return pa.concat_tables(loose) if loose else target.empty_table()


def _roots(bound: BooleanExpression, file_schema: Schema) -> set[str]:
    """The file's columns that a filter looks at, or looks into."""
    wanted = extract_field_ids(bound)
    return {
        f.name
        for f in file_schema.fields
        if (f.field_id in wanted if f.field_type.is_primitive else wanted & set(Schema(f).field_ids))
    }


def _row_group_starts(parquet: Any) -> list[int]:
    starts = []
    for i in range(parquet.num_row_groups):
        first = parquet.row_group(i).column(0)
        dictionary, data = first.dictionary_page_offset, first.data_page_offset
        starts.append(min(dictionary, data) if first.has_dictionary_page and dictionary else data)
    return starts


def _as_data_file(piece: Piece) -> DataFile:
    data_file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=piece.path,
        file_format=FileFormat.PARQUET,
        partition=Record(*piece.partition),
        record_count=piece.rows,
        file_size_in_bytes=0,
    )
    data_file.spec_id = piece.spec_id
    return data_file


def _direct_names(projected: Schema, file_schema: Schema) -> list[str] | None:
    """The file's own names of the columns, if each is in it with the very type that the table has now."""
    by_id = {f.field_id: f for f in file_schema.fields}
    names = []
    for column in projected.fields:
        found = by_id.get(column.field_id)
        if found is None or found.field_type != column.field_type:
            return None
        names.append(found.name)
    return names if len(set(names)) == len(names) else None
