"""Whatever nonsense a public function of tables is given, it says so with a ShoalError, and makes nothing.

The table of nonsense is broad on purpose: most of it came back as an error of pandas, Arrow or PyIceberg, three
calls below the one who could fix it.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyiceberg import expressions as ex

import shoal
from shoal.errors import ShoalError, UsageError
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.names import table_names
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import FilterError, NotSupportedError

NAN = float("nan")
_new: Any = ex
ALL = pa.table(
    {
        "a": [1],
        "s": ["x"],
        "b": [True],
        "f": [1.0],
        "t": pa.array([dt.datetime(2026, 1, 1)], pa.timestamp("us")),
        "tm": pa.array([dt.time(1)], pa.time64("us")),
        "d": [dt.date(2026, 1, 1)],
        "m": pa.array([Decimal("1.00")], pa.decimal128(9, 2)),
        "u": pa.array([uuid.UUID(int=7).bytes], pa.uuid()),
        "bin": [b"x"],
        "fx": pa.array([b"abc"], pa.binary(3)),
        "l": [[1]],
        "st": [{"a": 1}],
    }
)


@pytest.fixture(scope="module")
def table(lake: CatalogSettings) -> str:
    shoal.write_table(ALL, "wrong.t")
    shoal.tag("wrong.t", "tag")
    return "wrong.t"


def snapshot_of_everything(lake: CatalogSettings) -> tuple[list[str], set[Path], int]:
    """What is there: tables, files, and the table's snapshots."""
    opened = catalogs.catalog()
    folder = Path(lake.warehouse.removeprefix("file://"))
    files = {p for p in folder.rglob("*.parquet") if "wrong" in str(p)}
    return table_names(opened), files, len(shoal.snapshots("wrong.t"))


def demand_shoal_errors(lake: CatalogSettings, cases: dict[str, Callable[[], Any]]) -> None:
    before = snapshot_of_everything(lake)
    wrong = []
    for what, call in cases.items():
        try:
            call()
        except ShoalError as error:
            if len(str(error)) < 30 or "Traceback" in str(error):
                wrong.append(f"{what}: says only {str(error)!r}")
        except Exception as error:
            wrong.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
        else:
            wrong.append(f"{what}: no error")
    assert not wrong, "\n".join(wrong)
    assert snapshot_of_everything(lake) == before, "something was left behind"


FILTERS: list[Any] = [
    5, 5.0, True, b"x", {"a": 1}, lambda df: df.a > 1, object(), pd.Series([True]), dd.from_pandas(pd.Series([True])),
    "", "a ==", "a = 1 and", "( a = 1", "a in ()", "s like '%x'", "nope = 1", "st.zz = 1",
    "a = 'x'", "s = 1", "b = 1", "t > 'junk'", "u = 'junk'", "d = 5", "a is nan", "s is nan", "a like 'x%'",
    "l = 1", "l.element = 1", "st = 1",
    [5], [[5]], [("a",)], [("a", "==")], [(1, "==", 1)], [("a", "~", 1)], [("zz", "==", 1)],
    [("a", "==", None)], [("a", "!=", None)], [("a", "in", [1, None])], [("a", "not in", [None])], [("a", "==", pd.NA)],
    [("t", "==", pd.NaT)], [("f", "==", NAN)], [("f", "in", [NAN])], [("f", "!=", np.float64("nan"))],
    [("a", "in", 5)], [("a", "in", None)], [("s", "in", "xy")], [("a", "==", [1])], [("a", "==", object())],
    [("a", "==", 1 + 2j)], [("a", "==", "x")], [("a", "==", True)], [("s", "==", 1)], [("t", "==", "junk")],
    [("l", "==", 1)], [("st", "==", 1)], [("a", "==", np.datetime64("2026-01-01"))], [("u", "==", "junk")],
    _new.EqualTo("zz", 1), _new.EqualTo("a", "x"),
]  # fmt: skip


def test_filters(lake: CatalogSettings, table: str) -> None:
    demand_shoal_errors(
        lake, {f"filters={f!r}": lambda f=f: shoal.read_table(table, filters=f).compute() for f in FILTERS}
    )
    with pytest.raises(FilterError, match=r'\("a", "is", None\)'):
        shoal.read_table(table, filters=[("a", "==", None)])


def test_filters_that_look_odd_and_are_right(table: str) -> None:
    """The other side of the table above: what was refused, or worse, and has an answer."""

    def count(filters: Any) -> int:
        return len(shoal.read_table(table, filters=filters).compute())

    assert count([("u", "==", uuid.UUID(int=7))]) == count([("u", "==", str(uuid.UUID(int=7)))]) == 1
    assert count([("u", "in", [uuid.UUID(int=7), uuid.UUID(int=8)])]) == 1
    assert count([("u", "!=", uuid.UUID(int=7))]) == 0
    assert (
        count([("tm", "==", dt.time(1))])
        == count([("bin", "==", b"x")])
        == count([("fx", "==", b"abc")])
        == 1
    )
    assert count([("a", "<", 10**400)]) == count([("f", "<", 10**400)]) == 1
    assert count([("d", "==", dt.datetime(2026, 1, 1, 12))]) == 0
    assert count([("a", "in", [])]) == 0
    assert count([("a", "not in", [])]) == count([]) == count([[], [("a", "=", 1)]]) == 1
    assert count("true") == 1


READS: list[dict[str, Any]] = [
    *({"partition_size": v} for v in ("junk", None, 0, -1, NAN, [1], True, "128 MoB")),
    *({"columns": v} for v in (["a", "a"], 5, [5], [None], [["a"]], {"a": 1}, b"a", "zz", ["zz"])),
    *({"snapshot": v} for v in ("zz", 5, 1.5, True, [], "", b"x", NAN)),
    *({"as_of": v} for v in ("junk", 5, NAN, pd.NaT, [], "1800-01-01", "99999-01-01")),
    *({"branch": v} for v in ("tag", "zz", 5, "", [])),
    *({"since": v} for v in ("zz", 5, 1.5, [])),
    *({"dtype_backend": v} for v in ("zz", 5, [])),
    *({"catalog": v} for v in ("x", 5)),
    {"snapshot": "tag", "branch": "main"},
]
NAMES: list[Any] = [
    5,
    None,
    "",
    "a",
    "a.",
    "..",
    "a..b",
    b"n.t",
    " n.t",
    ["n", "t"],
    "n.\x00",
    "n.a/b",
    f"n.{'x' * 400}",
]


def test_reads_and_names(lake: CatalogSettings, table: str) -> None:
    cases: dict[str, Callable[[], Any]] = {
        f"read_table {how!r}": lambda how=how: shoal.read_table(table, **how).compute() for how in READS
    }
    frame = pd.DataFrame({"id": [1]})
    for name in NAMES:
        cases[f"read_table {name!r:.40}"] = lambda name=name: shoal.read_table(name)
        cases[f"snapshots {name!r:.40}"] = lambda name=name: shoal.snapshots(name)
        cases[f"history {name!r:.40}"] = lambda name=name: shoal.history(name)
        cases[f"write_table {name!r:.40}"] = lambda name=name: shoal.write_table(frame, name)
        cases[f"create_table {name!r:.40}"] = lambda name=name: shoal.create_table(name, {"a": pa.int64()})
    cases["write_table a.b.c.d"] = lambda: shoal.write_table(frame, "a.b.c.d")
    cases["create_table a.b.c.d"] = lambda: shoal.create_table("a.b.c.d", {"a": pa.int64()})
    for given in (5, None, "", [], "tag", b"x"):
        cases[f"tag {given!r}"] = lambda given=given: shoal.tag(table, given)
        cases[f"branch {given!r}"] = lambda given=given: shoal.branch(table, given)
        if given not in ("tag", None):
            cases[f"tag of {given!r}"] = lambda given=given: shoal.tag(table, "new", snapshot=given)
            cases[f"rollback to {given!r}"] = lambda given=given: shoal.rollback(table, given)
    demand_shoal_errors(lake, cases)
    with pytest.raises(UsageError, match="dtype_backend"):
        shoal.read_table(table, dtype_backend="numpy")  # type: ignore[arg-type]  # before anything is computed


def frames() -> dict[str, Any]:
    def one(values: Any, **how: Any) -> pd.DataFrame:
        return pd.DataFrame({"a": values}, **how)

    multi = pd.MultiIndex.from_tuples
    return {
        "duplicate columns": pd.DataFrame([[1, 2]], columns=["a", "a"]),
        "mixed objects": one([1, "x", None]),
        "objects": one([object()]),
        "complex": one([1 + 2j]),
        "sparse": pd.DataFrame({"a": pd.arrays.SparseArray([0, 0, 1])}),
        "long double": one(np.array([1], dtype="longdouble")),
        "huge integers": one([2**70]),
        "lists of two types": one([[1], ["x"]]),
        "dicts of two types": one([{"x": 1}, {"x": "y"}]),
        "empty dicts": one([{}]),
        "intervals": one(pd.interval_range(0, 1)),
        "durations": one(pd.to_timedelta([1])),
        "mixed categories": one(pd.Categorical([1, "x"])),
        "half a character": one(["\ud800"]),
        "integer names": pd.DataFrame({0: [1], 1: [2]}),
        "no name": pd.DataFrame({None: [1]}),
        "tuples as names": pd.DataFrame([[1]], columns=multi([("a", "b")])),
        "an empty name": pd.DataFrame({"": [1]}),
        "half a character as name": pd.DataFrame({"\ud800": [1]}),
        "no columns": pd.DataFrame(index=[1]),
        "an index named like a column": one([1], index=pd.Index([5], name="a")),
        "an index with an integer name": one([1], index=pd.Index([5], name=7)),
        "an index named in part": one([1], index=multi([(1, 2)], names=["x", None])),
        "an index named twice": one([1], index=multi([(1, 2)], names=["x", "x"])),
        "a series": pd.Series([1]),
        "a list": [{"a": 1}],
        "text": "x",
        "nothing": None,
        "Arrow: duplicate columns": pa.table([[1], [2]], names=["a", "a"]),
        "Arrow: an empty name": pa.table({"": [1]}),
        "Arrow: nothing": pa.table({}),
        "Arrow: a duration": pa.table({"a": pa.array([1], pa.duration("s"))}),
        "Arrow: 256 bits": pa.table({"a": pa.array([1], pa.decimal256(50, 2))}),
        "Arrow: a null type": pa.table({"a": pa.nulls(1)}),
    }


def test_frames(lake: CatalogSettings, table: str) -> None:
    cases: dict[str, Callable[[], Any]] = {}
    for what, frame in frames().items():
        cases[f"write {what}"] = lambda frame=frame: shoal.write_table(frame, "wrong.new")
        cases[f"write {what} into a table"] = lambda frame=frame: shoal.write_table(frame, table)
        # Dask makes text of objects, and takes no index of several levels.
        lazily = isinstance(frame, pd.DataFrame) and frame.index.nlevels == 1
        if lazily and (
            what == "duplicate columns" or not any(map(pd.api.types.is_object_dtype, frame.dtypes))
        ):
            lazy = dd.from_pandas(frame, npartitions=1, sort=False)
            cases[f"write {what} by Dask"] = lambda lazy=lazy: shoal.write_table(lazy, "wrong.new")
    demand_shoal_errors(lake, cases)
    with pytest.raises(ShoalError, match=r"df\.columns = \[str\(name\) for name in df\.columns\]"):
        shoal.write_table(pd.DataFrame({0: [1]}), "wrong.new")


PARTITIONS: list[Any] = [
    5, [5], [None], {"a": 1}, b"a", "", "zz", "day(zz)", "year(s)", "hour(d)", "truncate(2, f)", "bucket(2, f)",
    "bucket(0, a)", "bucket(a)", "bucket(99999999999999999999, a)", "truncate(0, s)", "l", "st", "tm", "bucket(4, tm)",
    "u", "truncate(2, bin)", ["a", "a"], ["a", "bucket(2, a)"], ["day(t)", "month(t)"],
]  # fmt: skip
SORTS: list[Any] = [
    5,
    [5],
    {"a": 1},
    "",
    [""],
    "zz",
    "a sideways",
    ["a", "a"],
    ["a", "a desc"],
    "l",
    "st",
    "u",
]
WRITES: list[dict[str, Any]] = [
    *({"mode": v} for v in ("zz", 5, None, [], "upsert")),
    *({"mode": "upsert", "keys": v} for v in (5, [5], [None], ["a", "a"], "zz", "f", "l", "u", {"a": 1})),
    *({"run_key": v} for v in (5, b"x", ["x"])),
    *({"branch": v} for v in ("tag", "zz", 5, None, "")),
    *({"properties": v} for v in (5, {1: "a"}, {"a": None}, [("a", "b")], {"a": [1]})),
    *({"catalog": v} for v in ("x", 5)),
    {"keys": "a"},
]
SCHEMAS: list[Any] = [
    5, None, "x", {}, {"a": 5}, {"a": "int"}, {5: pa.int64()}, {"": pa.int64()}, pa.schema([]), pa.int64(),
    pa.schema([("a", pa.int64()), ("a", pa.int64())]), {"a": pa.duration("s")}, [("a", pa.int64())],
]  # fmt: skip
PROPERTIES: list[Any] = [5, {1: "x"}, {"a": None}, {"format-version": "3"}, {"format-version": "x"}]


def test_writes_and_tables(lake: CatalogSettings, table: str) -> None:
    cases: dict[str, Callable[[], Any]] = {}
    for by in PARTITIONS:
        cases[f"partition_by={by!r}"] = lambda by=by: shoal.write_table(ALL, "wrong.new", partition_by=by)
        cases[f"create partition_by={by!r}"] = lambda by=by: shoal.create_table(
            "wrong.new", ALL, partition_by=by
        )
    for by in SORTS:
        cases[f"sort_by={by!r}"] = lambda by=by: shoal.write_table(ALL, "wrong.new", sort_by=by)
        cases[f"sort_by={by!r} into a table"] = lambda by=by: shoal.write_table(ALL, table, sort_by=by)
        cases[f"create sort_by={by!r}"] = lambda by=by: shoal.create_table("wrong.new", ALL, sort_by=by)
    for how in WRITES:
        cases[f"write {how!r}"] = lambda how=how: shoal.write_table(ALL, table, **how)
    for schema in SCHEMAS:
        cases[f"create {schema!r}"] = lambda schema=schema: shoal.create_table("wrong.new", schema)
    for given in PROPERTIES:
        cases[f"properties={given!r}"] = lambda given=given: shoal.create_table(
            "wrong.new", ALL, properties=given
        )
    demand_shoal_errors(lake, cases)


@pytest.mark.parametrize(
    "properties",
    [
        {"write.target-file-size-bytes": "x"},
        {"write.parquet.compression-codec": "zz"},
        {"write.parquet.compression-level": "x"},
        {"write.parquet.row-group-limit": "0"},
        {"write.parquet.page-row-limit": "x"},
        {"write.metadata.metrics.default": "junk"},
    ],
    ids=lambda p: next(iter(p)),
)
def test_properties_that_the_writer_cannot_follow(
    name: str, properties: dict[str, str], data_files: Callable[[str], set[Path]]
) -> None:
    """Another engine may have set them, so they are found where they are used: on a worker."""
    shoal.create_table(name, ALL, properties=properties)
    with pytest.raises(ShoalError):
        shoal.write_table(ALL, name)
    assert not data_files(name)
    assert len(shoal.read_table(name)) == 0


def test_a_column_that_pyiceberg_does_not_know(name: str, sql: Callable[[str], Any]) -> None:
    """Spark makes tables with variants, of which not even the other columns can be read here."""
    sql(f"CREATE NAMESPACE IF NOT EXISTS shoal.{name.split('.')[0]}")
    sql(f"CREATE TABLE shoal.{name} (id INT, v VARIANT) USING iceberg TBLPROPERTIES ('format-version' = '3')")
    for call in (
        lambda: shoal.read_table(name, columns=["id"]),
        lambda: shoal.write_table(pd.DataFrame({"id": [1]}), name),
        lambda: shoal.snapshots(name),
    ):
        with pytest.raises(NotSupportedError, match="variant"):
            call()
