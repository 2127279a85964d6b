"""What people write in ordinary Dask reaches the scan, and never changes the answer."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyiceberg import types as iceberg

import shoal
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.reading import read, source
from shoal.tables.reading.expression import ReadIceberg
from shoal.tables.reading.filters import exact_literal


@pytest.fixture(scope="module")
def table(lake: CatalogSettings) -> str:
    """1,000 rows with nulls and NaN in ten files by ``part``."""
    n = np.arange(1000)
    data = pa.table(
        {
            "i": pa.array([None if k % 11 == 0 else int(k) for k in n], pa.int64()),
            "f": pa.array([None if k % 13 == 0 else float("nan") if k % 17 == 0 else k / 2 for k in n]),
            "s": pa.array([None if k % 7 == 0 else f"x{k % 5}" for k in n]),
            "d": pa.array([dt.date(2026, 1, 1) + dt.timedelta(days=int(k) // 50) for k in n]),
            "t": pa.array(
                [dt.datetime(2026, 1, 1) + dt.timedelta(hours=int(k)) for k in n], pa.timestamp("us")
            ),
            "m": pa.array([Decimal(int(k)) / 100 for k in n], pa.decimal128(10, 2)),
            "b": pa.array([None if k % 3 == 0 else bool(k % 2) for k in n]),
            "part": pa.array([int(k) // 100 for k in n], pa.int64()),
        }
    )
    shoal.write_table(data, "expr.t", partition_by="part")
    return "expr.t"


def leaves(frame: Any) -> list[ReadIceberg]:
    return list(frame.optimize(fuse=False).expr.find_operations(ReadIceberg))


def only(frame: Any) -> ReadIceberg:
    (found,) = leaves(frame)
    return found


def test_columns_reach_the_scan(table: str) -> None:
    df = shoal.read_table(table)
    assert only(df[["i", "s"]]).columns == ["i", "s"]
    assert only(df.i.sum()).columns == ["i"]
    assert only(df[df.i > 5].f.mean()).columns == ["f"], "the filter's own column is not even returned"


def test_filters_reach_the_scan_and_prune(table: str) -> None:
    df = shoal.read_table(table, partition_size=1000)
    assert df.npartitions == 10
    narrowed = df[(df.part == 3) & (df.i >= 305)]
    assert only(narrowed).npartitions == 1
    assert not [e for e in narrowed.optimize(fuse=False).expr.walk() if type(e).__name__ == "Filter"]
    assert sorted(narrowed.compute().i) == [k for k in range(305, 400) if k % 11]


def test_a_filter_is_pushed_in_part(table: str) -> None:
    df = shoal.read_table(table, partition_size=1000)
    mixed = df[(df.part == 3) & (df.s != "x1")]
    assert only(mixed).npartitions == 1
    whole = df.compute()
    assert len(mixed.compute()) == len(whole[(whole.part == 3) & (whole.s != "x1")])


PREDICATES: list[Callable[[Any], Any]] = [
    lambda df: df.i > 500,
    lambda df: 500 > df.i,  # noqa: SIM300 - as people write it
    lambda df: df.i == 7,
    lambda df: df.i != 7,
    lambda df: ~(df.i > 500),
    lambda df: ~(df.s == "x1"),
    lambda df: df.s == "x1",
    lambda df: df.s != "x1",
    lambda df: df.s > "x2",
    lambda df: df.f < 100,
    lambda df: df.f != 100.0,
    lambda df: df.f >= 99.5,
    lambda df: df.i.isin([1, 2, 3]),
    lambda df: ~df.i.isin([1, 2, 3]),
    lambda df: df.s.isin(["x1", "x3"]),
    lambda df: df.f.isin([1.0, float("nan")]),
    lambda df: df.i.notnull(),
    lambda df: df.f.notnull(),
    lambda df: df.i.isnull(),
    lambda df: df.d == dt.date(2026, 1, 3),
    lambda df: df.t > pd.Timestamp("2026-01-10 05:00"),
    lambda df: df.t > pd.Timestamp("2026-01-10 05:00:00.000000001"),
    lambda df: df.m <= Decimal("1.50"),
    lambda df: df.b == True,  # noqa: E712 - as people write it
    lambda df: (df.i > 10) & (df.s == "x1") | (df.part == 2),
    lambda df: (df.i > 10) | (df.s != "x1"),
    lambda df: (df.i > 10) & ((df.part == 2) | (df.part == 5)),
    lambda df: df.i + df.part > 500,
    lambda df: df.i > df.part,
    lambda df: df.i > df.i.mean(),
]


@pytest.mark.parametrize("predicate", PREDICATES, ids=range(len(PREDICATES)))
def test_no_predicate_changes_the_answer(table: str, predicate: Callable[[Any], Any]) -> None:
    df = shoal.read_table(table, partition_size=4000)
    whole = df.compute()
    expected = whole[predicate(whole).fillna(False)]
    found = df[predicate(df)].compute()
    assert sorted(found.part.astype(str) + found.t.astype(str)) == sorted(
        expected.part.astype(str) + expected.t.astype(str)
    )


def test_lengths_come_from_metadata(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    df = shoal.read_table(table, partition_size=1000)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a data file was opened")

    monkeypatch.setattr("shoal.tables.reading.expression.read_partition", refuse)
    assert len(df) == 1000
    assert len(df[df.part == 3]) == 100
    assert len(df[df.part < 3][["i"]]) == 300
    assert len(df.partitions[2]) == 100
    assert df.map_partitions(len).npartitions == 10


def test_all_rows_are_counted_by_the_list_of_manifests(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shoal.write_table(pa.table({"x": range(1000)}), name)
    first = shoal.write_table(pa.table({"x": range(100)}), name).snapshot_id
    df = shoal.read_table(name)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a manifest was read, or the scheduler asked")

    monkeypatch.setattr("shoal.tables.reading.source.make_plan", refuse)
    monkeypatch.setattr("dask.dataframe.dask_expr._collection.FrameBase.compute", refuse)
    assert len(df) == 1100
    monkeypatch.undo()
    catalogs.load(name).delete("x >= 500")  # PyIceberg rewrites the file
    assert len(shoal.read_table(name)) == 600
    shoal.write_table(pa.table({"x": range(3)}), name, mode="overwrite")
    assert len(shoal.read_table(name)) == len(shoal.read_table(name).index) == 3
    assert len(shoal.read_table(name, snapshot=first)) == 1100
    catalogs.load(name).delete("x >= 0")
    assert len(shoal.read_table(name)) == 0


def test_len_of_what_metadata_cannot_tell(table: str) -> None:
    df = shoal.read_table(table)
    assert len(df[df.i > 500]) == len(df.compute().query("i > 500"))
    assert len(df.index) == 1000
    whole = df.compute()
    assert len(df[(df.part == 3) & (df.s != "x1")]) == len(whole[(whole.part == 3) & (whole.s != "x1")])
    assert len(df.i.dropna()) == 1000 - len(range(0, 1000, 11))


def test_two_reads_and_partitions(table: str) -> None:
    df = shoal.read_table(table, partition_size=1000)
    assert df.partitions[3:5].part.compute().tolist() == [3] * 100 + [4] * 100
    first = df.partitions[3]
    assert len(first[first.part == 5].compute()) == 0, "a chosen partition is not planned anew"
    both = df[df.part == 1].merge(df[df.part == 1][["t", "i"]], on="t").compute()
    assert len(both) == 100
    assert (df.i + df.part).sum().compute() == df.compute()[["i", "part"]].dropna().sum().sum()


def test_the_expression_travels_without_credentials(name: str, lake: CatalogSettings) -> None:
    secret = CatalogSettings(
        uri=lake.uri,
        warehouse=lake.warehouse,
        properties={"s3.secret-access-key": "hunter2", "s3.endpoint": "http://127.0.0.1:1"},
    )
    shoal.write_table(pa.table({"a": [1, 2]}), name, catalog=secret)
    df = shoal.read_table(name, catalog=secret)
    sent = pickle.dumps(df.optimize().expr)
    graph = pickle.dumps(dict(df.optimize().dask))
    for blob in (sent, graph):
        assert b"hunter2" not in blob
        assert b"127.0.0.1:1" in blob, "what is not secret travels"
    assert pickle.loads(sent).npartitions == 1, "the scheduler needs no catalog"


def test_dask_without_its_private_parts(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = shoal.read_table(table).compute()
    monkeypatch.setitem(__import__("sys").modules, "shoal.tables.reading.expression", None)
    df = shoal.read_table(table, columns=["i", "s"], filters="part = 3")
    assert not list(df.expr.find_operations(ReadIceberg))
    assert df.compute().i.tolist() == expected[expected.part == 3].i.tolist()
    assert read._frame_of.__module__ == "shoal.tables.reading.read"
    assert source.frame_of.__module__ == "shoal.tables.reading.source"


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (5, iceberg.LongType(), 5),
        (np.int64(5), iceberg.IntegerType(), 5),
        (5.0, iceberg.LongType(), None),
        (True, iceberg.LongType(), None),
        (2**31, iceberg.IntegerType(), None),
        (5, iceberg.DoubleType(), 5.0),
        (2**60, iceberg.DoubleType(), None),
        (float("nan"), iceberg.DoubleType(), None),
        (1.5, iceberg.FloatType(), None),
        ("a", iceberg.StringType(), "a"),
        (5, iceberg.StringType(), None),
        (pd.NaT, iceberg.TimestampType(), None),
        (pd.Timestamp("2026-01-01", tz="UTC"), iceberg.TimestampType(), None),
        (pd.Timestamp("2026-01-01"), iceberg.DateType(), None),
        ("2026-01-01", iceberg.TimestampType(), None),
        (Decimal("1.5"), iceberg.DecimalType(10, 2), Decimal("1.50")),
        (Decimal("1.555"), iceberg.DecimalType(10, 2), None),
        (None, iceberg.LongType(), None),
        (pd.NA, iceberg.LongType(), None),
    ],
)
def test_literals_are_exact_or_not_pushed(value: Any, kind: Any, expected: Any) -> None:
    assert exact_literal(value, kind) == expected


def test_a_read_whose_partitions_nobody_asked_for_travels_with_its_plan(table: str) -> None:
    """A lone reduction is optimised without them, and the scheduler, which needs them, cannot plan."""
    df = shoal.read_table(table)
    there = pickle.loads(pickle.dumps(df[df.i > 40].f.max().optimize(fuse=False).expr))
    (read,) = there.find_operations(ReadIceberg)
    assert read.npartitions >= 1
    assert read.source.metadata is None, "it was made where it was needed"
