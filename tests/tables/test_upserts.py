"""Upserts: which rows are replaced and which added, beside others that write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pytest

import shoal
from shoal.errors import UsageError
from shoal.tables import errors
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.writing import points, upsert, write
from shoal.tables.writing.points import WritePoint

from .upserted import rows, state


@pytest.mark.parametrize("partition_by", [None, "k", "bucket(4, id)"])
@pytest.mark.parametrize("keys", [["id"], ["id", "k"]])
def test_upsert(
    name: str, dask_cluster: Any, partition_by: str | None, keys: list[str], data_files: Any
) -> None:
    shoal.write_table(rows(range(100)), name, partition_by=partition_by)
    shoal.write_table(rows(range(100, 200)), name)
    new = dd.from_pandas(rows(range(150, 250), "new").to_pandas(), npartitions=3)
    result = shoal.write_table(new, name, mode="upsert", keys=keys)
    assert (result.rows, result.replaced_rows) == (100, 50)
    assert state(name) == {i: "new" if i >= 150 else "old" for i in range(250)}
    assert len(shoal.snapshots(name)) == 3
    live = {Path(f.file.file_path.removeprefix("file://")) for f in catalogs.load(name).scan().plan_files()}
    assert live <= data_files(name)


@pytest.mark.parametrize("keys", [["id"], ["k2"], ["day"], ["money"], ["id", "k2"]])
def test_keys_are_gone_through_in_turns(name: str, monkeypatch: pytest.MonkeyPatch, keys: list[str]) -> None:
    """More new keys than a worker may hold at a time, of every kind of key; null keys of old rows stay."""
    monkeypatch.setattr(upsert, "KEYS_AT_ONCE", 30)

    def wide(ids: Any, value: str) -> pa.Table:
        plain = rows(ids, value)
        wanted = plain.column("id")
        text = pa.array([f"key-{i}" for i in wanted.to_pylist()])
        days = wanted.cast(pa.int32()).cast(pa.date32())
        return (
            plain.append_column("k2", text)
            .append_column("day", days)
            .append_column("money", wanted.cast(pa.decimal128(20, 0)))
        )

    shoal.write_table(wide(range(200), "old"), name)
    unknown = pa.table({"v": ["unknown"] * 3})
    shoal.write_table(unknown, name, evolve=True)
    new = dd.from_pandas(wide(range(100, 300), "new").to_pandas(types_mapper=pd.ArrowDtype), npartitions=8)
    result = shoal.write_table(new, name, mode="upsert", keys=keys)
    assert (result.rows, result.replaced_rows) == (200, 100)
    found = shoal.read_table(name).compute()
    assert (found.v == "unknown").sum() == 3
    known = found[found.id.notna()]
    assert dict(zip(known.id.tolist(), known.v.tolist(), strict=True)) == {
        i: "new" if i >= 100 else "old" for i in range(300)
    }
    # The two of a key are in different files, and so in different turns.
    again = wide([107, 108], "again").to_pandas(types_mapper=pd.ArrowDtype)
    twice = dd.concat([new, dd.from_pandas(again, npartitions=1)])
    with pytest.raises(errors.DuplicateKeysError) as error:
        shoal.write_table(twice, name, mode="upsert", keys=keys)
    assert error.value.values["examples"]
    assert len(shoal.read_table(name)) == 303


def test_upsert_leaves_other_files_alone(name: str) -> None:
    for start in range(0, 50, 10):
        shoal.write_table(rows(range(start, start + 10)), name)
    before = {f.file.file_path for f in catalogs.load(name).scan().plan_files()}
    shoal.write_table(rows([12, 99], "new"), name, mode="upsert", keys="id")
    after = {f.file.file_path for f in catalogs.load(name).scan().plan_files()}
    assert len(before - after) == 1, "only the file that held row 12"
    assert state(name)[12] == "new"


def test_upsert_of_new_rows_only_is_an_append(name: str) -> None:
    shoal.write_table(rows(range(10)), name, mode="upsert", keys="id")
    shoal.write_table(rows(range(10, 20)), name, mode="upsert", keys="id")
    assert shoal.snapshots(name).operation.tolist() == ["append", "append"]
    assert len(state(name)) == 20


@pytest.mark.usefixtures("elsewhere")
def test_upsert_looks_again_when_the_table_moved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shoal.write_table(rows(range(10)), name)
    meddled: list[bool] = []

    def meddle(point: WritePoint) -> None:
        if point is WritePoint.CLIENT_BEFORE_SWAP and not meddled:
            meddled.append(True)
            shoal.write_table(rows([77], "other"), name)

    monkeypatch.setattr(points, "hook", meddle)
    shoal.write_table(rows([5, 77], "new"), name, mode="upsert", keys="id")
    assert meddled
    assert state(name) == {**dict.fromkeys(range(10), "old"), 5: "new", 77: "new"}


@pytest.mark.usefixtures("elsewhere")
def test_an_upsert_that_often_comes_second_lands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen who upsert keys of their own into one file: each meets the others more often than it tries at least."""
    shoal.write_table(rows(range(9)), name)
    many = write.UPSERT_TRIES + 2
    others = iter(range(many))

    def meddle(point: WritePoint) -> None:
        if point is WritePoint.CLIENT_BEFORE_SWAP and (other := next(others, None)) is not None:
            monkeypatch.setattr(points, "hook", None)
            shoal.write_table(rows([other], "other"), name, mode="upsert", keys="id")
            monkeypatch.setattr(points, "hook", meddle)

    monkeypatch.setattr(points, "hook", meddle)
    shoal.write_table(rows([8], "mine"), name, mode="upsert", keys="id")
    expected = dict.fromkeys(range(many), "other")
    assert state(name) == {**dict.fromkeys(range(9), "old"), **expected, 8: "mine"}


def test_duplicate_keys_are_refused(name: str, data_files: Any) -> None:
    shoal.write_table(rows(range(3)), name)
    twice = pa.concat_tables([rows([1, 2, 2]), rows([1])])
    with pytest.raises(errors.DuplicateKeysError, match="2 keys") as caught:
        shoal.write_table(twice, name, mode="upsert", keys="id")
    assert sorted(caught.value.values["examples"]) == [(1,), (2,)]
    null = pa.table({"id": pa.array([1, None], pa.int64()), "k": ["a", "b"], "v": ["x", "y"]})
    with pytest.raises(errors.DuplicateKeysError, match="null"):
        shoal.write_table(null, name, mode="upsert", keys="id")
    assert len(data_files(name)) == 1, "nothing is left behind"
    with pytest.raises(UsageError, match="keys="):
        shoal.write_table(twice, name, mode="upsert")
    with pytest.raises(errors.ColumnNotFoundError, match="Did you mean 'id'"):
        shoal.write_table(twice, name, mode="upsert", keys="idd")


@pytest.mark.parametrize("mode", ["overwrite", "overwrite_partitions"])
def test_two_writers_of_one_partition(name: str, monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    shoal.write_table(rows(range(9)), name, partition_by="k")

    def meddle(with_rows: pa.Table) -> None:
        def once(point: WritePoint) -> None:
            if point is WritePoint.CLIENT_AFTER_FILES:
                monkeypatch.setattr(points, "hook", None)
                shoal.write_table(with_rows, name)

        monkeypatch.setattr(points, "hook", once)

    meddle(rows([30]))  # k0
    with pytest.raises(errors.ConflictError, match="Someone else changed"):
        shoal.write_table(rows([0, 3], "new"), name, mode=mode)
    assert len(state(name)) == 10
    if mode == "overwrite_partitions":
        meddle(rows([31]))  # k1: another partition
        shoal.write_table(rows([0, 3], "new"), name, mode=mode)
        assert state(name) == {**dict.fromkeys((1, 2, 4, 5, 7, 8, 31), "old"), 0: "new", 3: "new"}


@pytest.mark.usefixtures("elsewhere")
def test_an_upsert_that_always_comes_second_gives_up_and_changes_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else replaces the same rows before each of its commits: it looks again, but not for ever."""
    shoal.write_table(rows(range(9)), name)
    others: list[int] = []

    def meddle(point: WritePoint) -> None:
        if point is WritePoint.CLIENT_BEFORE_SWAP:
            monkeypatch.setattr(points, "hook", None)
            others.append(len(others))
            shoal.write_table(rows([0], f"other {len(others)}"), name, mode="overwrite")
            monkeypatch.setattr(points, "hook", meddle)

    monkeypatch.setattr(points, "hook", meddle)
    monkeypatch.setattr(write, "COMMIT_SECONDS", 1.0)
    with pytest.raises(errors.ConflictError, match="Someone else changed"):
        shoal.write_table(rows([0, 1], "mine"), name, mode="upsert", keys=["k"])
    assert len(others) > 1, "it tried again"
    assert state(name) == {0: f"other {len(others)}"}
