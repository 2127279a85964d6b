"""Which bytes are read by which task.

Why it exists: Iceberg plans files, but a file may be many times a worker's memory, or a thousandth of a
worthwhile task. Here files are split between row groups and small ones are put together, so that every
partition is about as large in memory. What it must not do: open a data file (a plan reads metadata only),
or hold anything secret (a plan travels to the workers).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from pyiceberg import types as iceberg
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import FileScanTask
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.typedef import IcebergBaseModel

from shoal.tables.errors import NotSupportedError
from shoal.tables.pyiceberg_private import (
    AddedScan,
    BooleanExpression,
    DataFile,
    DataFileContent,
    FileIO,
    KnownManifest,
    Scan,
    Schema,
    TableMetadata,
)
from shoal.tables.reading.equality import files_of
from shoal.tables.reading.proof import whole_file, without_nans
from shoal.tables.storage import renewing

PARTITION_SIZE = 128 * 2**20
"""Bytes of a partition in memory, by default: as Dask's habit is, some 100 MB."""

KEPT_FILES = 5000
"""Files of a snapshot at most whose manifest entries are kept for the next filter: some 5 KB each."""
_TEXT_EXPANSION = 3.0
"""Bytes in memory per compressed byte of text. Zstandard gives 2-4 on ordinary columns; too high only makes
partitions smaller."""
_UNKNOWN_WIDTH = 24.0
"""Bytes per value of variable length where the manifest holds no column sizes."""


@dataclass(frozen=True, slots=True)
class DeleteFile:
    """Positions of rows that are deleted: a Parquet position delete file or a v3 deletion vector."""

    path: str
    format: str
    size: int = 0
    """Bytes, by its manifest; 0: not known."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A data file, or those of its row groups that start in a range of bytes."""

    path: str
    format: str
    spec_id: int
    partition: tuple[Any, ...]
    span: tuple[int, int] | None
    """Row groups starting at ``[from, to)``; ``None``: the whole file."""
    rows: int
    """Rows of the file (of all of it, also if ``span`` is set), before deletes and filters."""
    share: float
    """The part of the file that this piece is, 0..1, by bytes."""
    deletes: tuple[DeleteFile, ...]
    exact: bool
    """Every row passes the filter: it need not be looked at again."""
    weight: float
    """Estimated bytes in memory, all columns."""
    nans: bool = True
    """There may be NaN in the columns that the filter looks at."""
    size: int = 0
    """Bytes of the file (of all of it), by its manifest; 0: not known."""


@dataclass(frozen=True)
class ReadPlan:
    """The partitions of a read, each a few pieces."""

    partitions: tuple[tuple[Piece, ...], ...]

    @property
    def length(self) -> int | None:
        """Rows in all, if metadata alone says so: no deletes, and the filter decided by statistics."""
        pieces = [piece for part in self.partitions for piece in part]
        if any(piece.deletes or not piece.exact for piece in pieces):
            return None
        seen: dict[str, int] = {piece.path: piece.rows for piece in pieces}
        return sum(seen.values())

    @property
    def lengths(self) -> tuple[int, ...] | None:
        """Rows per partition, if metadata alone says so: also, no file may be split."""
        pieces = [piece for part in self.partitions for piece in part]
        if any(piece.deletes or not piece.exact or piece.span is not None for piece in pieces):
            return None
        return tuple(sum(piece.rows for piece in part) for part in self.partitions)


def pack_metadata(metadata: TableMetadata, schema_id: int) -> bytes:
    """What a worker has to know of a table: its schema, specs and properties; not its history. Some 1 KB."""
    slim = metadata.model_copy(
        update={
            "current_schema_id": schema_id,
            "schemas": [s for s in metadata.schemas if s.schema_id == schema_id],
            "snapshots": [],
            "snapshot_log": [],
            "metadata_log": [],
            "refs": {},
            "current_snapshot_id": None,
            "statistics": [],
            "partition_statistics": [],
            "properties": {k: v for k, v in metadata.properties.items() if not k.startswith("shoal.run.")},
        }
    )
    # By its base class: metadata of version 3 refuses to be written, and this is not a metadata file.
    return zlib.compress(IcebergBaseModel.model_dump_json(slim, by_alias=True).encode())


@lru_cache(maxsize=64)  # parsing takes a millisecond, and a worker runs thousands of tasks of one table
def unpack_metadata(packed: bytes) -> TableMetadata:
    """The inverse of :func:`pack_metadata`."""
    return TableMetadataUtil.parse_raw(zlib.decompress(packed).decode())


def column_weights(schema: Schema, files: Sequence[FileScanTask]) -> dict[str, float]:
    """Bytes in memory per row of each column: by its type, and of text by its compressed size."""
    known = [task.file for task in files if task.file.column_sizes]
    rows = sum(file.record_count for file in known)
    weights: dict[str, float] = {}
    for field in schema.fields:
        width = _fixed_width(field.field_type)
        if width is None:
            width = _varying_width(field, known, rows) if rows else _UNKNOWN_WIDTH
        weights[field.name] = width
    return weights


def _varying_width(column: iceberg.NestedField, files: Sequence[DataFile], rows: int) -> float:
    """Of text, and of what is nested: of each of its leaves the number of values times their size.

    Not by compressed sizes alone: numbers in order take next to nothing in a file.
    """
    total = 0.0
    plain = column.field_type.is_primitive
    if plain:  # nothing to look through
        leaves = [(column.field_id, column.field_type)]
    else:
        schema = Schema(column)
        leaves = [(i, schema.find_type(i)) for i in schema.field_ids if schema.find_type(i).is_primitive]
    for i, kind in leaves:
        values = sum((file.value_counts or {}).get(i, file.record_count) for file in files)
        width = _fixed_width(kind)
        if width is None:
            size = sum((file.column_sizes or {}).get(i, 0) for file in files)
            total += 8 * values + _TEXT_EXPANSION * size
        else:
            total += width * values
    return (0 if plain else 8) + total / rows


def _fixed_width(kind: iceberg.IcebergType) -> float | None:
    match kind:
        case iceberg.BooleanType():
            return 0.25
        case iceberg.IntegerType() | iceberg.FloatType() | iceberg.DateType():
            return 4.2
        case iceberg.DecimalType() | iceberg.UUIDType():
            return 16.2
        case iceberg.FixedType():
            return len(kind) + 0.2
        case iceberg.StringType() | iceberg.BinaryType() | iceberg.ListType() | iceberg.MapType():
            return None
        case iceberg.StructType():
            return None
    return 8.2


def make_plan(
    metadata: TableMetadata,
    io: FileIO,
    *,
    schema_id: int,
    snapshot_id: int | None,
    since: int | None,
    row_filter: BooleanExpression,
    partition_size: int,
    columns: Sequence[str] | None = None,
    known: Sequence[Any] | None = None,
    name: str = "namespace.table",
) -> tuple[ReadPlan, dict[str, float]]:
    """Plan the read of a snapshot (``None``: of an empty table), and say what each column weighs.

    ``known``: the snapshot's manifests, from :func:`manifests_of`; without it they are read.
    """
    pinned = metadata.model_copy(update={"current_schema_id": schema_id})
    schema = pinned.schema()
    if snapshot_id is None:
        return ReadPlan(()), column_weights(schema, [])
    scan = (
        AddedScan(pinned, io, row_filter=row_filter, from_snapshot_id=since, to_snapshot_id=snapshot_id)
        if since is not None
        else Scan(pinned, io, row_filter=row_filter, snapshot_id=snapshot_id)
    )
    if isinstance(scan, Scan):
        scan.known = known
    tasks = renewing(io, lambda: files_of(scan, name))
    weights = column_weights(schema, tasks)
    whole = whole_file(schema, pinned.specs(), row_filter)
    no_nans = without_nans(schema, pinned.specs(), row_filter)
    row_width = sum(weights[c] for c in columns) if columns else sum(weights.values())
    pieces: list[Piece] = []
    for task in tasks:
        found = _split(task, whole(task.file), row_width, partition_size)
        pieces.extend(replace(piece, nans=not no_nans(task.file)) for piece in found)
    return ReadPlan(tuple(pack(pieces, partition_size))), weights


def pieces_by_file(tasks: Sequence[FileScanTask], schema: Schema, size: int) -> dict[str, tuple[Piece, ...]]:
    """All rows of data files, each in pieces of some ``size`` in memory."""
    width = sum(column_weights(schema, tasks).values())
    return {
        task.file.file_path: tuple(_split(task, exact=True, row_width=width, target=size)) for task in tasks
    }


def manifests_of(metadata: TableMetadata, io: FileIO, snapshot_id: int | None) -> list[Any] | None:
    """A snapshot's manifests, to plan several filters with: what is read of one is kept, if it is not too much.

    ``None`` if there is no such snapshot, or its list cannot be read: the plan will say what is wrong.
    """
    snapshot = metadata.snapshot_by_id(snapshot_id) if snapshot_id is not None else None
    if snapshot is None:
        return None
    try:
        manifests = snapshot.manifests(io)
    except OSError:
        return None
    files = sum((m.added_files_count or 0) + (m.existing_files_count or 0) for m in manifests)
    return [KnownManifest(m) for m in manifests] if files <= KEPT_FILES else list(manifests)


def count_rows(manifests: Sequence[Any]) -> int | None:
    """Rows of a snapshot by its list of manifests, which is one small file however many files the table has.

    ``None`` if the list does not say: rows were deleted without rewriting their files, or the list is of
    format 1, where counts may be left out. https://iceberg.apache.org/spec/#manifest-lists
    """
    total = 0
    for manifest in manifests:
        if manifest.content != ManifestContent.DATA:
            if manifest.added_files_count != 0 or manifest.existing_files_count != 0:
                return None
        elif manifest.added_rows_count is None or manifest.existing_rows_count is None:
            return None
        else:
            total += manifest.added_rows_count + manifest.existing_rows_count
    return total


def _split(task: FileScanTask, exact: bool, row_width: float, target: int) -> Iterator[Piece]:
    file = task.file
    if file.content != DataFileContent.DATA:
        raise NotSupportedError(f"{file.file_path} is not a data file.")
    deletes = tuple(
        DeleteFile(d.file_path, str(d.file_format.value), d.file_size_in_bytes)
        for d in sorted(task.delete_files, key=lambda d: d.file_path)
    )
    weight = file.record_count * row_width
    # Positions in delete files count from the file's start, so such a file stays whole.
    count = 1 if deletes or file.file_format.value != "PARQUET" else max(1, round(weight / target))
    spans = _spans(file.split_offsets, file.file_size_in_bytes, count)
    for start, end in spans:
        share = (end - start) / max(1, file.file_size_in_bytes)
        yield Piece(
            path=file.file_path,
            format=str(file.file_format.value),
            spec_id=file.spec_id or 0,
            partition=tuple(file.partition[i] for i in range(len(file.partition))),
            span=None if len(spans) == 1 else (start, end),
            rows=file.record_count,
            share=1.0 if len(spans) == 1 else share,
            deletes=deletes,
            exact=exact,
            weight=weight * (1.0 if len(spans) == 1 else share),
            size=file.file_size_in_bytes,
        )


def _spans(offsets: Sequence[int] | None, size: int, count: int) -> list[tuple[int, int]]:
    """Up to ``count`` ranges that cover a file; where row groups are known, none is without one."""
    if count == 1 or size <= 1:
        return [(0, size)]
    known = sorted(o for o in offsets or () if 0 < o < size)
    if offsets and len(known) <= 1:
        return [(0, size)]
    if not known:
        # No row groups in the manifest: equal ranges; some may turn out to hold none.
        edges = [size * i // count for i in range(count + 1)]
        return list(itertools.pairwise(edges))
    starts = [0, *known[1:]]
    spans: list[tuple[int, int]] = []
    begin, wanted = 0, size / count
    for nxt in starts[1:]:
        if nxt - begin >= wanted * 0.75:
            spans.append((begin, nxt))
            begin = nxt
    spans.append((begin, size))
    return spans


def pack(pieces: Sequence[Piece], target: int) -> Iterator[tuple[Piece, ...]]:
    """Put neighbours together up to the target; their order stays."""
    together: list[Piece] = []
    weight = 0.0
    for piece in pieces:
        if together and weight + piece.weight > target:
            yield tuple(together)
            together, weight = [], 0.0
        together.append(piece)
        weight += piece.weight
    if together:
        yield tuple(together)
