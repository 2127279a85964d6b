"""Rows that compaction writes are in order: that of the call, of the table, or a z-order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import shoal
from shoal.tables.maintenance.rewriting import interleaved

from .small_files import NAN, content, files, meanwhile, paths


def test_rows_are_put_in_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(1)
    for _ in range(4):
        x, y = dice.permutation(4096), dice.permutation(4096)
        shoal.write_table(pa.table({"x": x, "y": y}), name)
    before = content(name)
    done = shoal.compact(name, sort_by="x desc")
    assert done.files_written == 1
    (one,) = paths(name)
    assert pq.read_table(one).column("x").to_pylist() == sorted([*range(4096)] * 4, reverse=True)
    size = one.stat().st_size
    shoal.expire_snapshots(name, older_than="0s")
    shoal.rewrite_manifests(name)
    assert shoal.compact(name, sort_by="x desc").files == 0, "nothing was written since"
    shoal.compact(name, zorder_by=["x", "y"], target_size=size // 16)
    assert len(files(name)) >= 12
    for column in ("x", "y"):
        spans = [pc.min_max(pq.read_table(path).column(column)).as_py() for path in paths(name)]
        assert np.mean([s["max"] - s["min"] for s in spans]) < 4096 / 2, f"each file has a range of {column}"
    assert content(name) == before
    shoal.compact(name, sort_by="x")
    shoal.compact(name)
    assert (shoal.compact(name, sort_by="x").files, shoal.compact(name, sort_by="y").files) == (0, 1)
    meanwhile(monkeypatch, lambda: shoal.write_table(pa.table({"x": [0], "y": [0]}), name))
    shoal.compact(name, sort_by="x")
    assert shoal.compact(name, sort_by="x").files == 2, "one was not in order when it landed"


def test_the_order_of_a_table_is_kept(name: str) -> None:
    for x in ([3, None, 1], [2, 0]):
        shoal.write_table(
            pa.table({"x": pa.array(x, pa.int64())}), name, sort_by="x desc" if x[0] == 3 else None
        )
    assert shoal.compact(name).files == 2
    (one,) = paths(name)
    assert pq.read_table(one).column("x").to_pylist() == [None, 3, 2, 1, 0]


def test_a_z_order_takes_each_column_by_its_ranks() -> None:
    table = pa.table({"a": [0, 0, 1, 1], "b": ["p", "q", "p", "q"], "c": [None, NAN, -1e300, 5.0]})
    assert np.argsort(interleaved(table, ["b", "a"])).tolist() == [0, 1, 2, 3]
    assert np.argsort(interleaved(table, ["a", "b"])).tolist() == [0, 2, 1, 3]
    assert np.argsort(interleaved(table, ["c", "c"])).tolist() == [2, 3, 1, 0], (
        "NaN above all numbers, and null above it"
    )
