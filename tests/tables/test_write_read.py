"""Writing and reading with Dask alone."""

from __future__ import annotations

from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import shoal
from shoal.errors import UsageError
from shoal.tables.errors import NoRowsError


def frame(rows: int = 1000) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": np.arange(rows, dtype="int64"),
            "s": [f"x{i % 7}" for i in range(rows)],
            "v": np.random.default_rng(1).random(rows),
            "t": pd.date_range("2026-01-01", periods=rows, freq="h"),
        }
    )


def rows_of(name: str, **how: Any) -> list[int]:
    return sorted(shoal.read_table(name, **how).compute().id.tolist())


def test_round_trip_says_who_wrote(name: str, dask_cluster: Any) -> None:
    df = frame()
    result = shoal.write_table(dd.from_pandas(df, npartitions=4), name)
    assert result.rows == sum(f.rows for f in result.files) == 1000
    assert len(result.workers) == 2
    assert set(result.pids) == {f.pid for f in result.files}
    back = shoal.read_table(name)
    assert len(back) == 1000
    found = back.compute().sort_values("id").reset_index(drop=True)
    assert found.dtypes.map(str).to_dict() == {
        "id": "int64[pyarrow]",
        "s": "string",
        "v": "double[pyarrow]",
        "t": "timestamp[us][pyarrow]",
    }
    assert found.id.tolist() == df.id.tolist()
    assert found.s.tolist() == df.s.tolist()
    assert np.array_equal(found.v.to_numpy(), df.v.to_numpy())
    assert found.t.astype("datetime64[ns]").tolist() == df.t.tolist()


def test_without_a_cluster_and_from_pandas_or_arrow(name: str) -> None:
    assert shoal.write_table(frame(10), name).workers == ("local",)
    shoal.write_table(pa.Table.from_pandas(frame(10), preserve_index=False), name)
    shoal.write_table(dd.from_pandas(frame(10), npartitions=2), name)
    assert len(rows_of(name)) == 30


def test_named_index_is_kept(name: str) -> None:
    grouped = dd.from_pandas(frame(), npartitions=2).groupby("s").id.sum().to_frame()
    shoal.write_table(grouped, name)
    assert set(shoal.read_table(name).columns) == {"s", "id"}


def test_modes(name: str, data_files: Any) -> None:
    shoal.write_table(frame(10), name, partition_by="s")
    shoal.write_table(frame(20), name, mode="overwrite")
    assert rows_of(name) == list(range(20))
    only = frame(20)
    only = only[only.s == "x1"].assign(id=lambda d: d.id + 100)
    shoal.write_table(only, name, mode="overwrite_partitions")
    assert rows_of(name) == sorted([i for i in range(20) if i % 7 != 1] + only.id.tolist())
    assert len(shoal.snapshots(name)) == 3, "one snapshot each"


def test_a_run_key_lands_once(name: str, data_files: Any) -> None:
    first = shoal.write_table(frame(10), name, run_key="flow/1")
    again = shoal.write_table(frame(10), name, run_key="flow/1")
    assert (first.replayed, again.replayed) == (False, True)
    assert again.snapshot_id == first.snapshot_id
    assert len(rows_of(name)) == 10
    assert len(data_files(name)) == 1
    assert not shoal.write_table(frame(10), name, run_key="flow/2").replayed


def test_time_travel_tags_and_branches(name: str) -> None:
    first = shoal.write_table(frame(10), name)
    assert shoal.tag(name, "start") == first.snapshot_id
    second = shoal.write_table(frame(5), name)
    shoal.branch(name, "wip")
    shoal.write_table(frame(3), name, branch="wip")
    assert len(shoal.read_table(name)) == 15
    assert len(shoal.read_table(name, branch="wip")) == 18
    assert len(shoal.read_table(name, snapshot="start")) == 10
    assert len(shoal.read_table(name, snapshot=first.snapshot_id)) == 10
    assert len(shoal.read_table(name, since=first.snapshot_id)) == 5
    when = shoal.snapshots(name).set_index("snapshot_id").time[second.snapshot_id]
    assert len(shoal.read_table(name, as_of=when)) == 15
    shoal.rollback(name, "start")
    assert len(shoal.read_table(name)) == 10
    assert shoal.history(name).is_current_ancestor.tolist() == [True, False, True]
    parents = shoal.snapshots(name).set_index("snapshot_id").parent_id
    assert parents[second.snapshot_id] == first.snapshot_id, "63 bits survive"


def test_filters_and_columns(name: str) -> None:
    shoal.write_table(frame(), name, partition_by=["s", "bucket(4, id)"], sort_by="id desc")
    df = frame()
    got = shoal.read_table(name, columns=["v", "id"], filters="s = 'x1' and id > 500").compute()
    assert list(got.columns) == ["v", "id"]
    assert sorted(got.id) == df[(df.s == "x1") & (df.id > 500)].id.tolist()
    assert rows_of(name, filters=[("s", "in", ["x1", "x2"]), ("id", "<", 20)]) == [1, 2, 8, 9, 15, 16]
    assert rows_of(name, filters=[[("id", "==", 3)], [("id", "==", 5)]]) == [3, 5]
    assert len(shoal.read_table(name, columns=[])) == 1000


def test_an_empty_frame(name: str) -> None:
    empty = pa.Table.from_pandas(frame(4), preserve_index=False).slice(0, 0)
    result = shoal.write_table(empty, name)
    assert (result.rows, result.files) == (0, ())
    assert len(shoal.read_table(name).compute()) == 0
    assert shoal.write_table(empty, name).snapshot_id == 0
    assert len(shoal.snapshots(name)) == 0
    shoal.write_table(frame(4), name)
    shoal.write_table(empty, name, mode="overwrite")
    assert len(shoal.read_table(name)) == 0


def test_columns_at_any_address_are_cut(name: str) -> None:
    """What comes over the network starts at any byte, where the Rust code of bucket() panics."""
    from pyiceberg.transforms import BucketTransform
    from pyiceberg.types import LongType

    numbers = np.arange(100)
    odd = pa.py_buffer(b"\0" * 65 + numbers.tobytes()).slice(65)
    assert odd.address % 8
    column = pa.chunked_array([pa.Array.from_buffers(pa.int64(), 100, [None, odd])])
    with pytest.raises(BaseException, match="not aligned"):
        BucketTransform(4).pyarrow_transform(LongType())(column)
    shoal.write_table(pa.table({"id": column}), name, partition_by="bucket(4, id)")
    assert rows_of(name) == numbers.tolist()


def test_nan_of_pandas_becomes_null_and_nan_of_arrow_stays(name: str, dask_cluster: Any) -> None:
    """As docs/tables.md says: in pandas' float64 NaN is the mark of what is missing."""
    shoal.write_table(pd.DataFrame({"id": [1, 2], "x": [1.0, float("nan")]}), name)
    shoal.write_table(pa.table({"id": [3], "x": [float("nan")]}), name, mode="append")
    assert rows_of(name, filters="x is null") == [2]
    assert rows_of(name, filters="x is nan") == [3]


def test_a_write_of_no_rows_is_passed_over_kept_or_refused_as_asked(name: str) -> None:
    some = pa.Table.from_pandas(frame(3), preserve_index=False)
    none, before = some.slice(0, 0), shoal.write_table(some, name).snapshot_id

    def left() -> tuple[int, list[int]]:
        return len(shoal.snapshots(name)), rows_of(name)

    assert shoal.write_table(none, name, run_key="passed").rows == 0
    assert left() == (1, [0, 1, 2])
    for mode in ("append", "overwrite"):
        with pytest.raises(NoRowsError, match=f"No row is left to write to {name}"):
            shoal.write_table(none, name, mode, on_empty="fail", run_key="failed")
    assert left() == (1, [0, 1, 2]), "nothing was emptied"
    kept = shoal.write_table(none, name, on_empty="snapshot", run_key="kept", properties={"day": "1"})
    assert kept.snapshot_id not in (0, before)
    assert left() == (2, [0, 1, 2])
    assert shoal.write_table(none, name, on_empty="snapshot", run_key="kept").replayed
    assert shoal.write_table(none, name, "overwrite").rows == 0
    assert left() == (3, []), "to overwrite with no rows empties a table"
    with pytest.raises(UsageError, match="on_empty='skip' is not known"):
        shoal.write_table(none, name, on_empty="skip")  # type: ignore[arg-type]
