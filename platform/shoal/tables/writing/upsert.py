"""Upsert: rows with keys that the table has replace those, all others are added.

Why it exists: the new rows are in files already (written like any append); what is left is to find the old
rows of the same keys and rewrite just the files that hold some. Each such file is one task: it joins its
keys with those of the new files, which every worker reads for itself (in turns if they are many), so nothing
passes through the client and no worker's memory has to hold all keys.
What it must not do: commit, or rewrite a file in which nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg import expressions as ex
from pyiceberg.conversions import from_bytes
from pyiceberg.table import Table
from pyiceberg.types import DoubleType, FloatType, PrimitiveType, UUIDType

from shoal.errors import UsageError
from shoal.tables.errors import DuplicateKeysError
from shoal.tables.pyiceberg_private import AlwaysTrue, BooleanExpression, DataFile, Schema, TableMetadata
from shoal.tables.reading.plan import PARTITION_SIZE, Piece, make_plan, pack_metadata
from shoal.tables.reading.scan import ScanContext, read_arrow
from shoal.tables.types.dtypes import types_mapper
from shoal.tables.types.schemas import check_columns
from shoal.tables.writing.files import WriteContext, Written, write_stream
from shoal.tables.writing.replace import head
from shoal.words import count

SHOWN = 5
"""Examples of duplicate keys in an error."""
KEYS_AT_ONCE = 8_000_000
"""New rows whose keys a worker holds at a time: 64 MB of whole numbers, and some 400 MB while they are
compared. More are gone through in turns, so that a worker's memory does not grow with what is upserted."""


@dataclass(frozen=True)
class Rewritten:
    """What became of an old file: ``None`` files if no key of it is among the new ones."""

    path: str
    written: tuple[Written, ...]
    replaced: int
    """Rows left out, because new ones take their place."""


def check_keys(keys: Sequence[str], schema: Schema, frame: Sequence[str]) -> None:
    """Raise unless every key is a column of both, of a type that can be compared."""
    check_columns(keys, frame, "the frame")
    check_columns(keys, [f.name for f in schema.fields], "the table")
    for key in keys:
        kind = schema.find_field(key).field_type
        if not isinstance(kind, PrimitiveType) or isinstance(kind, (FloatType, DoubleType, UUIDType)):
            raise UsageError(
                f"{key!r} cannot be a key: it is {kind}.",
                hint="Keys are whole numbers, text, dates or times.",
            )


def pieces_of(files: Sequence[DataFile]) -> tuple[Piece, ...]:
    """Data files just written, as pieces to read."""
    return tuple(
        Piece(
            path=f.file_path,
            format="PARQUET",
            spec_id=f.spec_id or 0,
            partition=tuple(f.partition[i] for i in range(len(f.partition))),
            span=None,
            rows=f.record_count,
            share=1.0,
            deletes=(),
            exact=True,
            weight=0.0,
            size=f.file_size_in_bytes,
        )
        for f in files
    )


@lru_cache(maxsize=2)  # every task of an upsert on a worker needs the same keys
def _keys(
    pieces: tuple[Piece, ...], packed: bytes, io: tuple[tuple[str, str], ...], keys: tuple[str, ...]
) -> Any:
    context = ScanContext(packed, "the new rows", AlwaysTrue(), "pyarrow", dict(io))
    return read_arrow(pieces, context, keys).combine_chunks()


def _keys_for(new: tuple[Piece, ...], context: ScanContext, keys: tuple[str, ...]) -> Any:
    return _keys(new, context.metadata, tuple(sorted(context.io_properties.items())), keys)


def _turns(new: Sequence[Piece]) -> list[tuple[Piece, ...]]:
    """The new files, in groups of at most :data:`KEYS_AT_ONCE` rows (a larger file is a group by itself)."""
    groups: list[list[Piece]] = []
    rows = 0
    for piece in new:
        if not groups or rows + piece.rows > KEYS_AT_ONCE:
            groups.append([])
            rows = 0
        groups[-1].append(piece)
        rows += piece.rows
    return [tuple(group) for group in groups]


def refuse_duplicates(
    new: tuple[Piece, ...], context: ScanContext, keys: tuple[str, ...], part: int = 0, parts: int = 1
) -> None:
    """Raise :class:`DuplicateKeysError` if a key is there twice, or is null. Runs as one task.

    ``part`` of ``parts``: looks only at the keys whose hash says so, for equal keys have equal hashes.
    """
    if parts == 1:
        table = _keys_for(new, context, keys)
    else:
        table = pa.concat_tables(_of_part(read_arrow([p], context, keys), keys, part, parts) for p in new)
    for key in keys:
        if table.column(key).null_count:
            raise DuplicateKeysError(
                f"The key {key!r} is null in {count(table.column(key).null_count, 'row')}, and a key must not be null.",
                hint=f"Leave those rows out: df[df[{key!r}].notnull()].",
                examples=[],
            )
    counted = table.append_column("__n__", pa.nulls(table.num_rows, pa.int8())).group_by(list(keys))
    counts = counted.aggregate([("__n__", "count", pc.CountOptions(mode="all"))])
    twice = counts.filter(pc.greater(counts.column("__n___count"), 1))
    if twice.num_rows:
        examples = [tuple(row[k] for k in keys) for row in twice.slice(0, SHOWN).to_pylist()]
        shown = ", ".join(str(e[0] if len(e) == 1 else e) for e in examples)
        raise DuplicateKeysError(
            f"{count(twice.num_rows, 'key')} ({', '.join(keys)}) {'is' if twice.num_rows == 1 else 'are'} in the frame "
            f"more than once, such as {shown}.",
            hint="Keep one row per key, for example df.drop_duplicates(subset=keys).",
            examples=examples,
        )


def _of_part(table: pa.Table, keys: tuple[str, ...], part: int, parts: int) -> pa.Table:
    frame = table.select(list(keys)).to_pandas(types_mapper=types_mapper("pyarrow"))
    hashes = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return table.filter(pa.array(hashes % parts == part))


def key_range(files: Sequence[DataFile], schema: Schema, keys: Sequence[str]) -> BooleanExpression:
    """A filter that every row with one of the new keys passes: their range, by the new files' statistics."""
    result: BooleanExpression = ex.AlwaysTrue()
    for key in keys:
        field = schema.find_field(key)
        lows = [(f.lower_bounds or {}).get(field.field_id) for f in files]
        highs = [(f.upper_bounds or {}).get(field.field_id) for f in files]
        kind = field.field_type
        if any(b is None for b in [*lows, *highs]) or str(kind) in ("string", "binary", "uuid"):
            continue  # bounds of text are cut off
        assert isinstance(kind, PrimitiveType), "checked before"
        low = min(from_bytes(kind, b) for b in lows if b is not None)
        high = max(from_bytes(kind, b) for b in highs if b is not None)
        result = ex.And(result, _bounds(key, kind, low, high))
    return result


def _bounds(key: str, kind: PrimitiveType, low: Any, high: Any) -> BooleanExpression:
    from pyiceberg.expressions.literals import DateLiteral, LongLiteral, TimestampLiteral

    literal: Any = {"date": DateLiteral, "timestamp": TimestampLiteral, "timestamptz": TimestampLiteral}.get(
        str(kind), LongLiteral if str(kind) in ("int", "long") else None
    )
    if literal is None:
        return ex.AlwaysTrue()
    new: Any = ex
    return ex.And(new.GreaterThanOrEqual(key, literal(low)), new.LessThanOrEqual(key, literal(high)))


def rewrite_file(
    old: tuple[Piece, ...],
    new: tuple[Piece, ...],
    scan: ScanContext,
    new_scan: ScanContext,
    context: WriteContext,
    keys: tuple[str, ...],
) -> Rewritten:
    """Rewrite one old file (in pieces that fit memory) without the rows whose keys are new."""
    path = old[0].path
    hits = [_hits(read_arrow([piece], scan, keys), new, new_scan, keys) for piece in old]
    hit = sum(mask.true_count for mask in hits)
    if not hit:
        return Rewritten(path, (), 0)
    names = [f.name for f in _schema(scan).fields]

    def kept() -> Iterator[pa.Table]:
        for piece, mask in zip(old, hits, strict=True):
            rest = read_arrow([piece], scan, names).filter(pc.invert(mask))
            if rest.num_rows:
                yield rest

    return Rewritten(path, tuple(write_stream(kept(), context)), hit)


def _schema(scan: ScanContext) -> Schema:
    from shoal.tables.reading.plan import unpack_metadata

    return unpack_metadata(scan.metadata).schema()


def _hits(
    table: pa.Table, new: tuple[Piece, ...], new_scan: ScanContext, keys: tuple[str, ...]
) -> pa.BooleanArray:
    """Which rows have a key that is among the new ones; a bit per row, never null."""
    hits = pa.array(np.zeros(table.num_rows, dtype=bool))
    if not table.num_rows:
        return hits
    first = table.column(keys[0])
    bounds = pc.min_max(first) if _ordered(first.type) else None
    for group in _turns(new):
        news = _keys_for(group, new_scan, keys)
        if bounds is not None:
            # Looking up in few is much faster than in many, and files often hold a range of keys.
            key = news.column(keys[0])
            inside = pc.and_(pc.greater_equal(key, bounds["min"]), pc.less_equal(key, bounds["max"]))
            news = news.filter(inside)
        if news.num_rows:
            hits = pc.or_(hits, pc.fill_null(_matches(table, news, keys), False))
    return hits


def _ordered(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_temporal(kind) or pa.types.is_large_string(kind))


def _matches(table: pa.Table, news: pa.Table, keys: tuple[str, ...]) -> Any:
    """Which rows have a key that is among the new ones. Null matches nothing."""
    if len(keys) == 1:
        found = pc.is_in(table.column(keys[0]), value_set=news.column(keys[0]))
        return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    rows = pa.array(np.arange(table.num_rows))
    left = table.select(list(keys)).append_column("__row__", rows)
    hits = left.join(news.select(list(keys)), keys=list(keys), join_type="left semi").column("__row__")
    return pc.is_in(rows, value_set=hits)


def plan_rewrites(
    table: Table, metadata: TableMetadata, files: Sequence[DataFile], keys: Sequence[str], branch: str
) -> list[tuple[Piece, ...]]:
    """The old files that may hold one of the keys, each as the pieces in which it is read."""
    plan, _ = make_plan(
        table.metadata,
        table.io,
        schema_id=table.metadata.current_schema_id,
        snapshot_id=head(table, branch),
        since=None,
        row_filter=key_range(files, table.schema(), [k for k in keys if k in table.schema().column_names]),
        partition_size=PARTITION_SIZE,
        name=".".join(table.name()),
    )
    by_file: dict[str, list[Piece]] = {}
    for piece in (p for part in plan.partitions for p in part):
        # The rewrite is of all the file's rows, whatever range of keys led to it.
        by_file.setdefault(piece.path, []).append(replace(piece, exact=True))
    return [tuple(pieces) for pieces in by_file.values()]


def run_rewrites(
    table: Table,
    metadata: TableMetadata,
    written: Sequence[Written],
    context: WriteContext,
    keys: tuple[str, ...],
    branch: str,
) -> list[Rewritten]:
    """Rewrite, on the workers, every old file that holds one of the new keys."""
    new = pieces_of([w.data_file for w in written])
    new_scan = ScanContext(context.metadata, context.table, AlwaysTrue(), "pyarrow", context.io_properties)
    # Old files are read with the columns that the table will have: what was just added is null there.
    scan = ScanContext(
        pack_metadata(metadata, metadata.current_schema_id),
        context.table,
        AlwaysTrue(),
        "pyarrow",
        context.io_properties,
    )
    candidates = plan_rewrites(table, metadata, [w.data_file for w in written], keys, branch)
    job = partial(rewrite_file, new=new, scan=scan, new_scan=new_scan, context=context, keys=keys)
    task = dask.delayed(job, name="upsert-rewrite", pure=False, traverse=False)
    found = dask.compute(*[task(old) for old in candidates])
    return [r for r in found if r.replaced]


def run_duplicate_check(written: Sequence[Written], context: WriteContext, keys: tuple[str, ...]) -> None:
    """:func:`refuse_duplicates`, where the data is."""
    new = pieces_of([w.data_file for w in written])
    scan = ScanContext(context.metadata, context.table, AlwaysTrue(), "pyarrow", context.io_properties)
    parts = math.ceil(sum(piece.rows for piece in new) / KEYS_AT_ONCE)
    check = dask.delayed(refuse_duplicates, pure=False, traverse=False)
    dask.compute(*[check(new, scan, keys, part, parts) for part in range(parts)])
