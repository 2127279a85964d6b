"""Data files, written where the data is.

Why it exists: it is what a write runs on the workers: give a partition the table's types, cut and sort it,
and write Parquet files of a good size with the statistics by which both engines prune. What it must not do:
commit, or talk to a catalog. A file's name is random per execution, because Dask may run a task twice and
a name made from the task would let the second run overwrite a file that is already referenced.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table.locations import load_location_provider
from pyiceberg.types import DoubleType, FloatType, NestedField, StructType

from shoal.tables.arguments import number
from shoal.tables.errors import TypeNotSupportedError
from shoal.tables.keys import file_io
from shoal.tables.pyiceberg_private import (
    DataFile,
    FileIO,
    Record,
    Schema,
    TableMetadata,
    make_data_file,
    sanitize_column_names,
    schema_to_pyarrow,
)
from shoal.tables.quality.judging import Tally, digest_of, judge
from shoal.tables.quality.rules import OnFailure, RuleSet
from shoal.tables.reading.plan import unpack_metadata
from shoal.tables.storage import renewing, storage_error
from shoal.tables.types.fit import fit
from shoal.tables.types.partitioning import split
from shoal.tables.writing.attempts import go_on, part_of
from shoal.tables.writing.encodings import DELTA_PROPERTY, ROWS_PER_PAGE, writer_options
from shoal.tables.writing.points import WritePoint, reached

ROW_GROUP_BYTES = 64 * 2**20
"""Bytes in memory of a row group: small enough to split a file well under a worker's memory."""
TARGET_FILE_BYTES = 512 * 2**20
"""Bytes on disk of a file, unless the table has ``write.target-file-size-bytes``; Iceberg's own default."""
REASON, RUN = "failed_rules", "quarantine_run"
"""What a quarantine table has beside its table's columns: the rules that a row breaks, and which write it was in."""


@dataclass(frozen=True)
class Gate:
    """What every task of a checked write has to know."""

    rules: RuleSet
    on_failure: OnFailure
    run: str
    """The write's run key, or its attempt."""
    side: WriteContext | None = None
    """Where failing rows go, if they are put aside."""


@dataclass(frozen=True)
class WriteContext:
    """What every task of a write has to know. Holds no secret."""

    metadata: bytes
    table: str
    data_path: str
    """Where this attempt's files go; nothing else is in there."""
    index_names: tuple[str, ...] = ()
    """Names of index levels that are stored as columns."""
    columns: tuple[str, ...] = ()
    """What every partition has to have, index levels included."""
    sort: tuple[tuple[str, bool], ...] = ()
    io_properties: dict[str, str] = field(default_factory=dict, repr=False)
    gate: Gate | None = None
    """The rules that rows are checked against."""


@dataclass(frozen=True)
class Written:
    """A data file that a worker wrote, and who wrote it."""

    data_file: DataFile
    rows: int
    worker: str
    """The worker's address, or ``"local"`` without a cluster."""
    pid: int


@dataclass(frozen=True)
class CheckedPart:
    """What a partition's check found, and where its failing rows were put."""

    tally: Tally
    aside: tuple[Written, ...] = ()
    digest: int = 0
    """Of the rows that were put aside; of several partitions, the sum. Alike rows have alike ones, however divided."""


def here() -> str:
    """The address of the Dask worker that runs this, or ``"local"``."""
    if "distributed" in sys.modules:
        from distributed import get_worker

        with suppress(ValueError):
            return str(get_worker().address)
    return "local"


_NOT_FIT = (pa.ArrowException, ValueError, TypeError, OverflowError, NotImplementedError, AttributeError)
"""What Arrow and PyIceberg raise for what they cannot store, once the user's own code is done."""


def write_frame(
    frame: pd.DataFrame, context: WriteContext, partition_info: dict[str, Any] | None = None
) -> pd.DataFrame:
    """Write one partition; give back one row per file, as Dask wants a frame. Empty frames write nothing.

    ``partition_info`` is what Dask tells a function with a parameter of this name: which partition it is.
    """
    written = write_partition(frame, context, (partition_info or {}).get("number", 0))
    return pd.DataFrame({"written": pd.Series(written, dtype=object)})


def write_partition(
    frame: pd.DataFrame | pa.Table, context: WriteContext, position: int = 0
) -> list[Written | CheckedPart]:
    """Check one partition, and write its files. If it fails, what it wrote is deleted again."""
    if isinstance(frame, pd.DataFrame) and context.index_names:
        frame = frame.reset_index([name for name in context.index_names if name in frame.index.names])
    if len(frame) == 0:
        return []
    reached(WritePoint.WORKER_BEFORE_FILE)
    schema = unpack_metadata(context.metadata).schema()
    try:
        table = fit(frame, schema, context.table, position, context.columns)
        if context.gate is None:
            written: list[Written | CheckedPart] = [*_written(table, context)]
        else:
            written = _gated(table, frame, context, context.gate, schema, position)
    except _NOT_FIT as error:
        raise TypeNotSupportedError(
            f"Partition {position} of the frame could not be stored in {context.table}: {error}",
            hint="Is each column of a type that Parquet holds, and each property of the table what it should be?",
        ) from error
    reached(WritePoint.WORKER_AFTER_FILES)
    return written


def _written(table: pa.Table, context: WriteContext) -> list[Written]:
    if not table.num_rows:
        return []
    io = file_io(unpack_metadata(context.metadata).location, context.io_properties)
    return renewing(io, lambda: write_stream(iter([table]), context))


def _gated(
    table: pa.Table,
    frame: pd.DataFrame | pa.Table,
    context: WriteContext,
    gate: Gate,
    schema: Schema,
    position: int,
) -> list[Written | CheckedPart]:
    """Write what passes the gate, and put aside what does not, if it should be."""
    judged = judge(table, frame, gate.rules, schema, f"partition {position} of the frame")
    if not judged.tally.failed or gate.on_failure == "warn":
        return [CheckedPart(judged.tally), *_written(table, context)]
    if gate.side is None:
        return [CheckedPart(judged.tally)]  # nothing will be committed, so nothing more is written
    passed, failed, reasons = judged.divide(table)
    failed = failed.append_column(REASON, reasons)
    digest = digest_of(failed)
    failed = failed.append_column(RUN, pa.array([gate.run] * failed.num_rows, pa.string()))
    side = unpack_metadata(gate.side.metadata).schema()
    aside = _written(fit(failed, side, gate.side.table, position), gate.side)
    return [CheckedPart(judged.tally, tuple(aside), digest), *_written(passed, context)]


def write_stream(
    tables: Iterator[pa.Table], context: WriteContext, partition: Record | None = None
) -> list[Written]:
    """Write tables that have the target's columns and types, one after the other, without holding two.

    Without partitions they share files; with partitions each table makes its own, unless all their rows are known to
    be of one ``partition`` (and in order). If it fails, what it wrote is deleted again.
    """
    metadata = unpack_metadata(context.metadata)
    io = file_io(metadata.location, context.io_properties)
    spec, schema = metadata.spec(), metadata.schema()
    written: list[Written] = []
    try:
        if partition is not None:
            groups: Iterator[tuple[Record, Iterator[pa.Table]]] = iter([(partition, tables)])
        elif spec.is_unpartitioned():
            parts = ((p for table in tables for _, p in split(table, spec, schema, context.sort)),)
            groups = iter([(Record(), parts[0])])
        else:
            groups = (
                (record, iter([part]))
                for table in tables
                for record, part in split(table, spec, schema, context.sort)
            )
        with part_of(context.data_path):
            try:
                for record, stream in groups:
                    for data_file in _write_files(stream, record, metadata, io, context.data_path):
                        written.append(Written(data_file, data_file.record_count, here(), os.getpid()))
                go_on(context.data_path)
            except BaseException:
                for one in written:
                    with suppress(OSError):
                        io.delete(one.data_file.file_path)
                raise
    except BaseException as error:
        if isinstance(error, OSError):
            what = f"A file of {context.table} could not be written"
            raise storage_error(error, context.data_path, what, io=io, table=context.table) from error
        if not isinstance(error, (Exception, KeyboardInterrupt, SystemExit, GeneratorExit)):
            # A panic of Rust code is not an Exception, and would end the worker's thread without an answer.
            raise RuntimeError(f"Writing a partition of {context.table} panicked: {error}") from error
        raise
    return written


def file_arrow_schema(metadata: TableMetadata) -> tuple[Schema, pa.Schema]:
    """The schema inside the files: names that Avro and Parquet can bear, with Iceberg's field ids."""
    file_schema = sanitize_column_names(metadata.schema())
    return file_schema, schema_to_pyarrow(file_schema, include_field_ids=True)


def _path(metadata: TableMetadata, data_path: str, record: Record) -> str:
    provider = load_location_provider(
        table_location=metadata.location,
        table_properties={**metadata.properties, "write.data.path": data_path},
    )
    name = f"{uuid.uuid4().hex}.parquet"
    spec = metadata.spec()
    if spec.is_unpartitioned():
        return str(provider.new_data_location(name))
    values = [PartitionFieldValue(field=f, value=record[i]) for i, f in enumerate(spec.fields)]
    return str(provider.new_data_location(name, PartitionKey(values, spec, metadata.schema())))


def _write_files(
    tables: Iterator[pa.Table], record: Record, metadata: TableMetadata, io: FileIO, data_path: str
) -> Iterator[DataFile]:
    file_schema, arrow_schema = file_arrow_schema(metadata)
    target = number(metadata.properties, "write.target-file-size-bytes", TARGET_FILE_BYTES)

    def row_groups() -> Iterator[pa.Table]:
        for table in tables:
            step = rows_per_group(table, metadata.properties)
            ready = table.rename_columns(arrow_schema.names).cast(arrow_schema)
            yield from (ready.slice(begin, step) for begin in range(0, ready.num_rows, step))

    groups = row_groups()
    following = next(groups, None)
    while following is not None:
        path = _path(metadata, data_path, record)
        output = io.new_output(path)
        try:
            # Nobody else has this name, and looking whether it is there would be two requests.
            with output.create(overwrite=True) as sink:
                nans: Counter[int] = Counter()
                writer = pq.ParquetWriter(
                    sink, arrow_schema, **_writer_options(following, metadata.properties)
                )
                with writer:
                    while following is not None:
                        nans.update(count_nans(following, file_schema))
                        writer.write_table(following, row_group_size=following.num_rows)
                        reached(WritePoint.WORKER_IN_FILE)
                        go_on(data_path)
                        following = next(groups, None)
                        if sink.tell() >= target:
                            break
                size = sink.tell()
        except BaseException:
            with suppress(OSError):
                io.delete(path)
            raise
        yield make_data_file(path, size, writer.writer.metadata, record, metadata, file_schema, dict(nans))


def count_nans(table: pa.Table, schema: Schema) -> dict[int, int]:
    """NaN in each column of floating numbers, by field id; also in structs, but not in lists and maps, whose
    values have no bounds either. Engines take no filter for proved without this."""
    counts: dict[int, int] = {}

    def walk(fields: Sequence[NestedField], arrays: Sequence[Any]) -> None:
        for column, array in zip(fields, arrays, strict=True):
            if isinstance(column.field_type, (FloatType, DoubleType)):
                counts[column.field_id] = pc.sum(pc.is_nan(array)).as_py() or 0
            elif isinstance(column.field_type, StructType):
                walk(
                    column.field_type.fields,
                    [pc.struct_field(array, i) for i in range(array.type.num_fields)],
                )

    walk(schema.fields, table.columns)
    return counts


def rows_per_group(table: pa.Table, properties: dict[str, str]) -> int:
    """Rows of a row group: some :data:`ROW_GROUP_BYTES`, and at most the table's own limit."""
    limit = number(properties, "write.parquet.row-group-limit", 1_048_576)
    width = max(1.0, table.nbytes / max(1, table.num_rows))
    return max(1, min(limit, int(ROW_GROUP_BYTES / width)))


def _writer_options(first: pa.Table, properties: dict[str, str]) -> dict[str, Any]:
    codec = properties.get("write.parquet.compression-codec", "zstd")
    level = properties.get("write.parquet.compression-level")
    return writer_options(
        first,
        "none" if codec == "uncompressed" else codec,
        int(level) if level else None,
        number(properties, "write.parquet.page-row-limit", ROWS_PER_PAGE),
        delta=properties.get(DELTA_PROPERTY, "true").lower() != "false",
    )


def delete_files(io: FileIO, paths: Sequence[str]) -> list[str]:
    """Delete files; give back those that could not be deleted."""
    left = []
    for path in paths:
        try:
            io.delete(path)
        except FileNotFoundError:
            continue
        except OSError:
            left.append(path)
    return left
