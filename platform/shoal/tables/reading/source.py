"""A read that is settled: one snapshot, one filter, and the plans made of it.

Why it exists: the Dask expression (or ``dd.from_map``, where Dask's expressions have changed) asks it for
plans as filters are pushed into it, and it travels to the scheduler, where no catalog is at hand. What it
must not do: travel with credentials, or plan anything twice.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dask.dataframe as dd
import pandas as pd
from dask.base import normalize_token
from pyiceberg.types import DoubleType, FloatType, IcebergType

from shoal.tables.pyiceberg_private import (
    AlwaysTrue,
    BooleanExpression,
    FileIO,
    TableMetadata,
    schema_to_pyarrow,
)
from shoal.tables.reading.collector import paused
from shoal.tables.reading.plan import ReadPlan, count_rows, make_plan, manifests_of, unpack_metadata
from shoal.tables.reading.scan import ScanContext, read_partition
from shoal.tables.types.dtypes import to_pandas


class Source:
    """What is read: a table's snapshot (or what was added since another)."""

    def __init__(
        self,
        metadata: TableMetadata,
        io: FileIO,
        context: ScanContext,
        schema_id: int,
        snapshot_id: int | None,
        since: int | None,
        partition_size: int,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.metadata: TableMetadata | None = metadata
        self.io: FileIO | None = io
        self.context = context
        self.schema_id = schema_id
        self.snapshot_id = snapshot_id
        self.since = since
        self.partition_size = partition_size
        self.columns = tuple(columns) if columns is not None else None
        """Those of the first request: partitions are sized by them."""
        self.identity = (
            str(metadata.table_uuid),
            schema_id,
            snapshot_id,
            since,
            partition_size,
            self.columns,
            context.backend,
        )
        self._known: list[Any] | None = None
        self._plans: dict[str, tuple[ReadPlan, dict[str, float]]] = {}

    def plan(self, row_filter: BooleanExpression) -> tuple[ReadPlan, dict[str, float]]:
        """The plan for a filter, and what each column weighs; made once."""
        key = repr(row_filter)
        if key not in self._plans:
            assert self.metadata is not None, "plans are made where the read began"
            assert self.io is not None, "plans are made where the read began"
            with paused():
                self._plans[key] = make_plan(
                    self.metadata,
                    self.io,
                    schema_id=self.schema_id,
                    snapshot_id=self.snapshot_id,
                    since=self.since,
                    row_filter=row_filter,
                    partition_size=self.partition_size,
                    columns=self.columns,
                    known=self._manifests() if self.since is None else None,
                    name=self.context.table,
                )
        return self._plans[key]

    def length(self, row_filter: BooleanExpression) -> int | None:
        """Rows that pass a filter, if metadata alone says so; of all rows, without looking at any file."""
        if self.metadata is not None and self.io is not None and self.since is None:
            known = repr(row_filter) in self._plans
            if isinstance(row_filter, AlwaysTrue) and not known:
                manifests = self._manifests()
                length = count_rows(manifests) if manifests is not None else None
                if self.snapshot_id is None:
                    return 0
                if length is not None:
                    return length
        return self.plan(row_filter)[0].length

    def _manifests(self) -> list[Any] | None:
        """The snapshot's manifests, read once for all filters."""
        if self._known is None and self.metadata is not None and self.io is not None:
            self._known = manifests_of(self.metadata, self.io, self.snapshot_id)
        return self._known

    def context_for(self, row_filter: BooleanExpression) -> ScanContext:
        """What the tasks of a plan for this filter have to know."""
        return replace(self.context, row_filter=row_filter)

    def field_type(self, column: str) -> IcebergType:
        """A column's Iceberg type."""
        return unpack_metadata(self.context.metadata).schema().find_field(column).field_type

    def is_floating(self, column: str) -> bool:
        """Whether a column can hold NaN."""
        return isinstance(self.field_type(column), (FloatType, DoubleType))

    @functools.cached_property
    def meta(self) -> pd.DataFrame:
        """The frame with no rows: all columns, with their types."""
        schema = schema_to_pyarrow(unpack_metadata(self.context.metadata).schema(), include_field_ids=False)
        return to_pandas(schema.empty_table(), self.context.backend)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "metadata": None, "io": None, "_known": None}

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("shoal.tables.reading.source", *self.identity)

    def __repr__(self) -> str:
        return f"{self.context.table}@{self.snapshot_id}"


def _expression_token(expression: BooleanExpression) -> tuple[str, str]:
    return ("iceberg-expression", repr(expression))


normalize_token.register(BooleanExpression, _expression_token)


def frame_of(source: Source, columns: Sequence[str] | None) -> dd.DataFrame:
    """The read as a Dask frame, through Dask's public ``from_map``."""
    plan, _ = source.plan(source.context.row_filter)
    meta = source.meta
    if columns is not None:
        meta = meta[list(columns)]
    parts = plan.partitions or ((),)
    return dd.from_map(
        read_partition,
        parts,
        context=source.context,
        columns=list(columns) if columns is not None else None,
        meta=meta,
        enforce_metadata=False,
        label="read-iceberg",
    )
