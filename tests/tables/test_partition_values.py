"""Which partitions a replacement replaces, where floating numbers name them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

import shoal
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import ConflictError, NotSupportedError
from shoal.tables.writing import points
from shoal.tables.writing.points import WritePoint

NAN = float("nan")


def ids(name: str) -> list[int]:
    return sorted(shoal.read_table(name).id.compute())


def rows(values: list[Any], kind: pa.DataType, first: int = 0) -> pa.Table:
    return pa.table({"id": range(first, first + len(values)), "x": pa.array(values, kind)})


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_each_partition_is_replaced(name: str, kind: pa.DataType) -> None:
    """NaN is unequal to itself, and PyIceberg's manifests hold 0.1 in half its bits."""
    values = [0.1, NAN, 1.0, None, -0.0, 0.0, float("inf"), 1e300 if kind == pa.float64() else 1e30, 2**-140]
    shoal.write_table(rows(values, kind), name, partition_by="x")
    for first in (100, 200):
        shoal.write_table(rows(values, kind, first), name, mode="overwrite_partitions")
        assert ids(name) == list(range(first, first + len(values)))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.string(), ["a", None, None, "b", "", "a"]),
        (pa.float64(), [NAN, None, 0.0, -0.0, None, NAN]),
        (pa.binary(), [b"", None, b"\0", b"", None, b"x"]),
        (pa.string(), [None] * 6),
    ],
)
def test_nulls_in_a_frame_of_several_chunks(name: str, kind: pa.DataType, values: list[Any]) -> None:
    """And in files of an earlier partitioning, which a compaction reads as such a frame and divides again."""
    chunks = [values[:2], values[2:4], values[4:]]
    frame = pa.table({"id": range(6), "x": pa.chunked_array([pa.array(chunk, kind) for chunk in chunks])})
    partitions = len({repr(value) for value in values})
    assert len(shoal.write_table(frame, name, partition_by="x").files) == partitions
    for first in (6, 9):
        shoal.write_table(rows(values[first - 6 : first - 3], kind, first), f"{name}_later")
    with catalogs.load(f"{name}_later").update_spec() as change:
        change.add_identity("x")
    assert shoal.compact(f"{name}_later").files_written == partitions
    for one, first in ((name, 0), (f"{name}_later", 6)):
        read = shoal.read_table(one).compute().sort_values("id")
        assert read.id.tolist() == list(range(first, first + 6))
        assert list(map(repr, pa.Array.from_pandas(read.x).to_pylist())) == list(map(repr, values))


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_zero_and_minus_zero_are_two_partitions(name: str, kind: pa.DataType) -> None:
    """As to Iceberg's own library in Java."""
    shoal.write_table(rows([0.0, -0.0], kind), name, partition_by="x")
    shoal.write_table(rows([-0.0], kind, 2), name, mode="overwrite_partitions")
    assert ids(name) == [0, 2]
    shoal.write_table(rows([0.0], kind, 3), name, mode="overwrite_partitions")
    assert ids(name) == [2, 3]


def test_numbers_that_differ_in_their_last_bits(name: str) -> None:
    shoal.write_table(rows([0.1, 0.1 + 1e-12], pa.float64()), name, partition_by="x")
    shoal.write_table(rows([0.1], pa.float64(), 2), name, mode="overwrite_partitions")
    assert ids(name) == [1, 2]


def test_numbers_that_nothing_tells_apart_are_refused(name: str) -> None:
    """Without statistics there is only what the manifest has."""
    kept = {"write.metadata.metrics.default": "none"}
    shoal.create_table(name, {"id": pa.int64(), "x": pa.float64()}, partition_by="x", properties=kept)
    shoal.write_table(rows([0.1, 0.5], pa.float64()), name)
    shoal.write_table(rows([0.5], pa.float64(), 2), name, mode="overwrite_partitions")
    assert ids(name) == [0, 2]
    with pytest.raises(NotSupportedError, match="statistics"):
        shoal.write_table(rows([0.1 + 1e-12], pa.float64(), 3), name, mode="overwrite_partitions")
    assert ids(name) == [0, 2]


@pytest.mark.parametrize(("other", "conflicts"), [(NAN, True), (0.1, True), (-0.0, False), (2.0, False)])
@pytest.mark.usefixtures("elsewhere")
def test_a_conflict_is_one_in_the_same_partition(
    name: str, other: float, conflicts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shoal.write_table(rows([NAN, 0.1, 0.0], pa.float64()), name, partition_by="x")

    def between(reached: WritePoint) -> None:
        if reached is WritePoint.CLIENT_BEFORE_SWAP:
            monkeypatch.setattr(points, "hook", None)
            shoal.write_table(rows([other], pa.float64(), 50), name)

    monkeypatch.setattr(points, "hook", between)
    again = rows([NAN, 0.1, 0.0], pa.float64(), 10)
    if conflicts:
        with pytest.raises(ConflictError):
            shoal.write_table(again, name, mode="overwrite_partitions")
        assert ids(name) == [0, 1, 2, 50]
    else:
        shoal.write_table(again, name, mode="overwrite_partitions")
        assert ids(name) == [10, 11, 12, 50]
