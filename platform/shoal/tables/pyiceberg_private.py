"""Where PyIceberg's private parts are touched; those that commit are in ``pyiceberg_commits``.

Why it exists: PyIceberg plans, reads and commits in one process; to do its work on many, a few of its inner
functions have to be called one by one. They may change with any release, so they are named here, once, and
the tests of this package run over every supported release. What it must not do: hold logic of its own
beyond making those parts fit.

Written against PyIceberg 0.12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, IsNull, NotNaN, Or
from pyiceberg.expressions.visitors import (
    ResidualEvaluator,
    UnpartitionedResidualEvaluator,
    bind,
    extract_field_ids,
    inclusive_projection,
)
from pyiceberg.io import FileIO, load_file_io
from pyiceberg.io.pyarrow import (
    MetricModeTypes,
    _get_column_projection_values,
    _read_deletes,
    _to_requested_schema,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    pyarrow_to_schema,
    schema_to_pyarrow,
)
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids, sanitize_column_names
from pyiceberg.table import (
    DataScan,
    FileScanTask,
    IncrementalAppendScan,
    ManifestGroupPlanner,
)
from pyiceberg.table.deletion_vector import DeletionVector
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.puffin import PuffinFile
from pyiceberg.table.snapshots import Operation, ancestors_between_ids
from pyiceberg.transforms import TruncateTransform
from pyiceberg.typedef import Record
from pyiceberg.types import DoubleType, FloatType, IcebergType, IntegerType, LongType

__all__ = [
    "AddedScan",
    "AlwaysTrue",
    "BooleanExpression",
    "CommitFailedException",
    "DataFile",
    "DataFileContent",
    "FileFormat",
    "FileIO",
    "KnownManifest",
    "Planner",
    "Record",
    "Scan",
    "Schema",
    "TableMetadata",
    "bind",
    "bitmaps",
    "column_projection_values",
    "extract_field_ids",
    "file_schema_of",
    "iceberg_schema",
    "iceberg_type",
    "load_file_io",
    "make_data_file",
    "misleads",
    "puffin_file",
    "read_deletes",
    "sanitize_column_names",
    "schema_to_pyarrow",
    "to_requested_schema",
]

read_deletes = _read_deletes
puffin_file = PuffinFile
bitmaps = DeletionVector._deserialize_bitmap
column_projection_values = _get_column_projection_values


def iceberg_schema(schema: pa.Schema | Schema) -> Schema:
    """An Arrow schema as an Iceberg one, with the field ids that a new table will give it."""
    return assign_fresh_schema_ids(Catalog._convert_schema_if_needed(schema))


def iceberg_type(kind: pa.DataType) -> IcebergType:
    """An Arrow type as an Iceberg one."""
    return Catalog._convert_schema_if_needed(pa.schema([pa.field("x", kind)])).fields[0].field_type


def file_schema_of(physical: pa.Schema, metadata: TableMetadata) -> Schema:
    """The Iceberg schema of a data file: by the field ids inside it, else by the table's name mapping."""
    return pyarrow_to_schema(
        physical,
        metadata.name_mapping(),
        downcast_ns_timestamp_to_us=metadata.format_version <= 2,
        format_version=metadata.format_version,
    )


def to_requested_schema(
    requested: Schema, file_schema: Schema, batch: pa.RecordBatch, missing: dict[int, Any], *, downcast: bool
) -> pa.RecordBatch:
    """A file's batch as the table's columns are now: renamed, added, widened, nested ones too."""
    return _to_requested_schema(
        requested,
        file_schema,
        batch,
        downcast_ns_timestamp_to_us=downcast,
        projected_missing_fields=missing,
        allow_timestamp_tz_mismatch=True,
    )


def misleads(field: PartitionField, schema: Schema) -> bool:
    try:
        source = schema.find_type(field.source_id)
    except ValueError:
        return False  # its column was dropped, so no filter looks at it
    if isinstance(field.transform, TruncateTransform):
        return isinstance(source, (IntegerType, LongType))
    return isinstance(source, (FloatType, DoubleType))


def _without_counts_of_fields(expression: Any, schema: Schema) -> BooleanExpression:
    """A filter without what is decided by counts of nulls, of NaN and of all values in fields of structs.

    Some writers, Spark among them, count these only where the struct itself is not null.
    """
    match expression:
        case And() | Or():
            make: Any = And if isinstance(expression, And) else Or
            both: BooleanExpression = make(
                _without_counts_of_fields(expression.left, schema),
                _without_counts_of_fields(expression.right, schema),
            )
            return both
        case IsNull() | NotNaN():
            term: Any = expression.term
            if schema.find_field(term.name).field_id not in {field.field_id for field in schema.fields}:
                return AlwaysTrue()
    result: BooleanExpression = expression
    return result


class Planner(ManifestGroupPlanner):
    """Plans without working out what partitions leave of a filter: PyIceberg's way cannot compare null ones, and
    keeps them for ``!=``. Whether a file needs the filter is decided by ``shoal.tables.reading.proof``."""

    def _build_partition_projection(self, spec_id: int) -> BooleanExpression:
        # Not by partitions whose values do not say what they should: a truncated integer wraps around near the
        # least one, and manifests hold floating numbers in half their bits. Bounds decide about these.
        schema, spec = self.table_metadata.schema(), self.table_metadata.specs()[spec_id]
        trusted = [field for field in spec.fields if not misleads(field, schema)]
        project = inclusive_projection(schema, PartitionSpec(*trusted, spec_id=spec_id), self.case_sensitive)
        return project(self.row_filter)

    def _build_metrics_evaluator(self) -> Callable[[DataFile], bool]:
        schema = self.table_metadata.schema()
        asked = _without_counts_of_fields(self.row_filter, schema)
        evaluate = ManifestGroupPlanner(
            self.table_metadata, self.io, asked, self.case_sensitive, self.options
        )._build_metrics_evaluator()

        def may_match(file: DataFile) -> bool:
            try:
                return evaluate(file)
            except UnicodeDecodeError:
                return True  # some writers cut the bound of a text inside a character

        return may_match

    def _build_residual_evaluator(self, spec_id: int) -> Callable[[DataFile], ResidualEvaluator]:
        whole = UnpartitionedResidualEvaluator(self.table_metadata.schema(), self.row_filter)
        return lambda _: whole


class KnownManifest:
    """A manifest whose entries are read once, however many filters are planned with it."""

    def __init__(self, manifest: ManifestFile) -> None:
        self.manifest = manifest
        self.entries: list[ManifestEntry] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.manifest, name)

    def fetch_manifest_entry(self, io: FileIO, discard_deleted: bool = True) -> list[ManifestEntry]:
        """The entries; of a planner, which wants none that are deleted."""
        if self.entries is None or not discard_deleted:
            found = self.manifest.fetch_manifest_entry(io, discard_deleted)
            if not discard_deleted:
                return found
            self.entries = found
        return self.entries


class Scan(DataScan):
    """The files of a snapshot that may hold rows that pass a filter."""

    known: Sequence[Any] | None = None
    """The snapshot's manifests, where somebody has them."""

    def plan_files(self) -> Iterable[FileScanTask]:
        if self.known is not None:
            return self._manifest_planner.plan_files(self.known)
        return super().plan_files()

    @cached_property
    def _manifest_planner(self) -> ManifestGroupPlanner:
        return Planner(self.table_metadata, self.io, self.row_filter, self.case_sensitive, self.options)


class AddedScan(IncrementalAppendScan):
    """The same of the files that were added between two snapshots."""

    def plan_files(self) -> Iterable[FileScanTask]:
        start, end = self._validate_and_resolve_snapshots()
        between = ancestors_between_ids(start, end, self.table_metadata)
        added = [s for s in between if s.summary is not None and s.summary.operation == Operation.APPEND]
        ids = {s.snapshot_id for s in added}
        manifests = {
            manifest
            for snapshot in added
            for manifest in snapshot.manifests(self.io)
            if manifest.content == ManifestContent.DATA and manifest.added_snapshot_id in ids
        }
        planner = Planner(self.table_metadata, self.io, self.row_filter, self.case_sensitive, self.options)
        return planner.plan_files(
            list(manifests),
            lambda entry: entry.snapshot_id in ids and entry.status == ManifestEntryStatus.ADDED,
        )


def make_data_file(
    path: str,
    size: int,
    parquet_metadata: Any,
    partition: Record,
    metadata: TableMetadata,
    file_schema: Schema,
    nan_counts: dict[int, int],
) -> DataFile:
    """The manifest entry of a Parquet file just written, with the statistics by which both engines prune."""
    plan = compute_statistics_plan(file_schema, metadata.properties)
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=parquet_metadata,
        stats_columns=plan,
        parquet_column_mapping=parquet_path_to_id_mapping(file_schema),
    )
    for aggregate in statistics.column_aggregates.values():
        try:
            aggregate.max_as_bytes()
        except UnicodeEncodeError:
            # PyIceberg rounds a bound up to the next character also where that is half of one (U+D800).
            aggregate.current_max = None
    # Parquet's own metadata, all that PyIceberg looks at, does not count them.
    for i, count in nan_counts.items():
        if plan[i].mode.type != MetricModeTypes.NONE:
            statistics.nan_value_counts[i] = count
    data_file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=size,
        sort_order_id=None,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )
    data_file.spec_id = metadata.default_spec_id
    return data_file
