"""Tables of many small files, and what is in them."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import shoal
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.maintenance import compaction

NAN, INF = float("nan"), float("inf")


def made(first: int, rows: int = 50) -> pa.Table:
    """Rows of all sorts: nulls, NaN, text, lists, structs, decimals; of three carriers."""
    dice = random.Random(first)
    ids = range(first, first + rows)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "carrier": [("AA", "UA", None)[i % 3] for i in ids],
            "x": [dice.choice([None, NAN, INF, -0.0, 0.0, i / 7]) for i in ids],
            "at": pa.array([i * 1_000_000 if i % 5 else None for i in ids], pa.timestamp("us")),
            "text": [None if i % 11 == 0 else f"row {i} é" for i in ids],
            "tags": pa.array([[str(i), None] if i % 4 else None for i in ids], pa.list_(pa.string())),
            "part": [{"a": i, "b": NAN} if i % 6 else None for i in ids],
            "price": pa.array([Decimal(dice.randint(-999, 999)) / 4 for _ in ids], pa.decimal128(12, 2)),
        }
    )


def content(name: str, **how: Any) -> list[str]:
    """Every row, exactly and in no order: NaN is NaN, -0.0 is not 0.0."""
    from shoal.tables.reading.plan import make_plan
    from shoal.tables.reading.scan import read_arrow

    source = shoal.read_table(name, **how).expr.source
    plan, _ = make_plan(
        source.metadata,
        source.io,
        schema_id=source.schema_id,
        snapshot_id=source.snapshot_id,
        since=None,
        row_filter=source.context.row_filter,
        partition_size=2**30,
    )
    names = [field.name for field in source.metadata.schema().fields]
    return sorted(
        repr(row) for part in plan.partitions for row in read_arrow(part, source.context, names).to_pylist()
    )


def files(name: str) -> list[Any]:
    return [task.file for task in catalogs.load(name).scan().plan_files()]


def paths(name: str) -> set[Path]:
    return {Path(file.file_path.removeprefix("file://")) for file in files(name)}


def small_files(name: str, count: int = 6, **how: Any) -> None:
    for i in range(count):
        shoal.write_table(made(50 * i), name, **(how if not i else {}))


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """``act`` happens when the files are written and the commit has not begun."""
    commit, done = compaction.commit_surely, []

    def late(*given: Any) -> Any:
        if not done:
            done.append(act())
        return commit(*given)

    monkeypatch.setattr(compaction, "commit_surely", late)
