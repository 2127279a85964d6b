"""Partition specs as people write them, and the splitting of a frame by them.

Why it exists: ``partition_by=["day(ts)", "bucket(16, id)"]`` has to become Iceberg's transforms, and a frame
has to be cut by them in one pass (PyIceberg's own cutting looks at every row once per partition). What it
must not do: write files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import SortDirection, SortOrder
from pyiceberg.transforms import IdentityTransform, Transform, parse_transform
from pyiceberg.types import IcebergType, PrimitiveType, UUIDType

from shoal.errors import UsageError
from shoal.tables import arguments
from shoal.tables.pyiceberg_private import Record

_CALL = re.compile(r"^\s*(\w+)\s*\(\s*(?:(\d+)\s*,\s*)?([^(),]+?)\s*(?:,\s*(\d+)\s*)?\)\s*$")


@dataclass(frozen=True)
class PartitionField:
    """One field of a spec: a column, and what is done with it."""

    column: str
    transform: Transform[Any, Any]
    name: str


def parse_field(text: str) -> PartitionField:
    """``"carrier"``, ``"day(ts)"``, ``"bucket(16, id)"``, ``"truncate(4, name)"``; year, month, hour too."""
    call = _CALL.match(text) if isinstance(text, str) else None
    if call is None:
        if not isinstance(text, str) or not text.strip() or "(" in text:
            raise _bad(text)
        return PartitionField(text, IdentityTransform(), text)
    kind, before, column, after = call.groups()
    kind = kind.lower().rstrip("s")
    width = before or after
    if kind in ("bucket", "truncate"):
        if width is None or not 1 <= int(width) < 2**31:
            raise _bad(text)
        suffix = "bucket" if kind == "bucket" else "trunc"
        return PartitionField(column, parse_transform(f"{kind}[{width}]"), f"{column}_{suffix}")
    if kind not in ("year", "month", "day", "hour", "identity") or width is not None:
        raise _bad(text)
    name = column if kind == "identity" else f"{column}_{kind}"
    return PartitionField(column, parse_transform(kind), name)


def _bad(text: object) -> UsageError:
    return UsageError(
        f"{text!r} is not a partition field.",
        hint='Use "column", "year(c)", "month(c)", "day(c)", "hour(c)", "bucket(16, c)" or "truncate(4, c)".',
    )


def parse_sorts(given: object) -> list[tuple[str, bool]]:
    """``"a"``, ``"a desc"`` or a list of such."""
    keys = [parse_sort(text) for text in arguments.names(given, "sort_by", '["at desc"]')]
    arguments.names([column for column, _ in keys], "sort_by", '["at desc"]')
    return keys


def check_sortable(column: str, kind: IcebergType) -> None:
    """Raise :class:`UsageError` for a column that rows cannot be sorted by."""
    if not isinstance(kind, PrimitiveType) or isinstance(kind, UUIDType):
        raise UsageError(
            f"Rows cannot be sorted by {column!r}, which is {kind}.",
            hint="Sort by numbers, text, dates or times.",
        )


def parse_sort(text: str) -> tuple[str, bool]:
    """``"a"`` or ``"a desc"`` -> column and whether it is ascending."""
    parts = text.split()
    if len(parts) == 2 and parts[1].lower() in ("asc", "desc"):
        return parts[0], parts[1].lower() == "asc"
    return text, True


def own_sort(order: SortOrder, schema: Schema) -> list[tuple[str, bool]]:
    """A table's own order as columns and whether they are ascending; without what is ordered by a transform."""
    named = [(schema.find_column_name(f.source_id) or "", f) for f in order.fields]
    return [
        (column, f.direction == SortDirection.ASC) for column, f in named if str(f.transform) == "identity"
    ]


def spec_fields(spec: PartitionSpec, schema: Schema) -> list[PartitionField]:
    """A table's current spec in the words above. Void fields (dropped in format v1) are left in."""
    found = []
    for f in spec.fields:
        column = schema.find_column_name(f.source_id)
        assert column is not None, f"partition field {f.name} has no source column"
        found.append(PartitionField(column, f.transform, f.name))
    return found


def same_spec(one: Sequence[PartitionField], other: Sequence[PartitionField]) -> bool:
    """Whether two specs cut alike, whatever their fields are called."""
    return [(f.column, str(f.transform)) for f in one] == [(f.column, str(f.transform)) for f in other]


def split(
    table: pa.Table, spec: PartitionSpec, schema: Schema, sort: Sequence[tuple[str, bool]]
) -> Iterator[tuple[Record, pa.Table]]:
    """Cut a table by partition, each part sorted: one sort of the row numbers, then slices."""
    keys = [_transformed(table, f, schema) for f in spec_fields(spec, schema)]
    if not keys:
        if sort:
            table = table.take(order(table, sort))
        yield Record(), table
        return
    codes = np.zeros(table.num_rows, dtype=np.int64)
    values: list[list[Any]] = []
    for key in keys:
        encoded = pc.dictionary_encode(key)
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
            encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
        dictionary, indices = encoded.dictionary.to_pylist(), encoded.indices
        if indices.null_count:
            # A value of its own here, for Arrow cannot unify dictionaries that hold nulls.
            indices = pc.fill_null(indices, len(dictionary))
            dictionary.append(None)
        codes = codes * max(1, len(dictionary)) + indices.to_numpy(zero_copy_only=False)
        values.append(dictionary)
    # Dense codes: products of many dictionaries would be sparse, and dense ones sort fastest.
    distinct, codes = np.unique(codes, return_inverse=True)
    if len(distinct) == 1 and not sort:
        places = None
    elif sort:
        places = order(
            table.append_column("__partition__", pa.array(codes)), [("__partition__", True), *sort]
        )
    else:
        places = pa.array(np.argsort(codes, kind="stable"))
    arranged = table if places is None else table.take(places)
    ends = np.cumsum(np.bincount(codes, minlength=len(distinct)))
    begin = 0
    for whole, end in zip(distinct.tolist(), ends.tolist(), strict=True):
        record, code = [], whole
        for dictionary in reversed(values):
            index = code % max(1, len(dictionary))
            code //= max(1, len(dictionary))
            record.append(_plain(dictionary[index]))
        yield Record(*reversed(record)), arranged.slice(begin, end - begin)
        begin = end


def order(table: pa.Table, sort: Sequence[tuple[str, bool]]) -> pa.Array:
    """The numbers of the rows, sorted; nulls first."""
    keys = [(name, "ascending" if ascending else "descending", "at_start") for name, ascending in sort]
    return pc.sort_indices(table.select([name for name, _ in sort]), sort_keys=keys)


def _transformed(table: pa.Table, part: PartitionField, schema: Schema) -> Any:
    path = part.column.split(".")
    column = table.column(part.column) if part.column in table.column_names else table.column(path[0])
    if part.column not in table.column_names:
        column = pc.struct_field(column, path[1:])
    source = schema.find_field(part.column).field_type
    if isinstance(part.transform, IdentityTransform):
        return column
    return part.transform.pyarrow_transform(source)(_aligned(column))


def _aligned(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with its buffers where Rust may read them.

    What came over the network in one message starts at any byte; Arrow's C++ does not mind, but the Rust code
    behind Iceberg's transforms panics, with an exception that ends a Dask worker's thread.
    """
    chunks = [
        chunk
        if all(b is None or b.address % 64 == 0 for b in chunk.buffers())
        else pa.concat_arrays([chunk, chunk.slice(0, 0)])
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, type=column.type)


def _plain(value: Any) -> Any:
    """Iceberg keeps dates and times in partition records as numbers."""
    import datetime as dt

    match value:
        case dt.datetime():
            epoch = dt.datetime(1970, 1, 1, tzinfo=value.tzinfo and dt.UTC)
            return (value - epoch) // dt.timedelta(microseconds=1)
        case dt.date():
            return (value - dt.date(1970, 1, 1)).days
        case dt.time():
            return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    return value
