"""Evolving tables, and everything that is refused."""

from __future__ import annotations

import datetime as dt
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import shoal
from shoal.errors import ShoalError, UsageError
from shoal.tables import errors
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.writing import points
from shoal.tables.writing.points import WritePoint

from .upserted import rows, state


def test_evolving(name: str) -> None:
    shoal.write_table(pa.table({"a": pa.array([1], pa.int32()), "b": ["x"]}), name)
    wider = pa.table({"a": pa.array([2**40], pa.int64()), "c": [1.5]})
    with pytest.raises(errors.SchemaMismatchError, match="evolve=True") as caught:
        shoal.write_table(wider, name)
    assert [(c, k) for c, k, _ in caught.value.values["differences"]] == [("b", "missing"), ("c", "new")]
    shoal.write_table(wider, name, evolve=True)
    found = shoal.read_table(name).compute().sort_values("a")
    assert found.a.tolist() == [1, 2**40] if str(found.a.dtype) == "int64[pyarrow]" else False
    assert found.b.tolist() == ["x", pd.NA]
    assert found.c.tolist() == [pd.NA, 1.5]
    assert len(shoal.snapshots(name)) == 2
    # As of its first snapshot the table has its first columns.
    first = int(shoal.snapshots(name).snapshot_id[0])
    assert list(shoal.read_table(name, snapshot=first).columns) == ["a", "b"]


def test_evolving_inside_of_columns(name: str) -> None:
    """Fields of structs, of structs in lists, and of values of maps: added, widened, or refused by their path."""
    place, stop = pa.struct([("x", pa.int32())]), pa.struct([("gate", pa.string())])
    wider_place = pa.struct([("x", pa.int64()), ("y", pa.decimal128(9, 2))])
    wider_stop = pa.struct([("late", pa.list_(pa.struct([("by", pa.int16())]))), ("gate", pa.string())])
    narrow = pa.schema({"p": place, "s": pa.list_(stop), "m": pa.map_(pa.string(), place)})
    wide = pa.schema({"p": wider_place, "s": pa.list_(wider_stop), "m": pa.map_(pa.string(), wider_place)})
    here, there = {"x": 1}, {"x": 2**40, "y": Decimal("1.50")}
    stops = [{"gate": "B4", "late": [{"by": 3}]}]
    shoal.write_table(pa.table([[here], [[{"gate": "A1"}]], [[("k", here)]]], schema=narrow), name)
    rows = pa.table([[there], [stops], [[("k", there)]]], schema=wide)
    with pytest.raises(errors.SchemaMismatchError, match="evolve=True") as caught:
        shoal.write_table(rows, name)
    found = {column: kind for column, kind, _ in caught.value.values["differences"]}
    assert found == {"p.y": "new", "s.element.late": "new", "m.value.y": "new"}
    pandas = rows.to_pandas(types_mapper=pd.ArrowDtype)
    for frame in (rows, pandas, dd.from_pandas(pandas, npartitions=1)):
        shoal.write_table(frame, name, evolve=True)
    assert len({s.schema_id for s in catalogs.load(name).metadata.snapshots}) == 2, "changed once"
    read = shoal.read_table(name).compute().sort_values("p", key=lambda p: [v["x"] for v in p])
    assert read.p.tolist() == [here | {"y": None}, *[there] * 3]
    assert [list(v) for v in read.s] == [[{"gate": "A1", "late": None}], *[stops] * 3]
    assert read.m.tolist() == [[("k", here | {"y": None})], *[[("k", there)]] * 3]

    before = catalogs.load(name).metadata
    renamed = pa.schema({"p": pa.struct([("X", pa.int64())]), "m": pa.map_(pa.string(), pa.string())})
    with pytest.raises(errors.SchemaMismatchError, match=r"p\.X: new: (?s:.*)m\.value: type: ") as caught:
        shoal.write_table(pa.table([[{"X": 1}], [[("k", "v")]]], schema=renamed), name, evolve=True)
    keyed = {"k": pa.map_(pa.struct([("a", pa.int32())]), pa.string())}
    shoal.create_table(name + "2", keyed)
    new_key = pa.map_(pa.struct([("a", pa.int32()), ("b", pa.int32())]), pa.string())
    with pytest.raises(errors.SchemaMismatchError, match=r"k\.key\.b: new: .*keys of maps never change"):
        shoal.write_table(
            pa.table({"k": pa.array([[({"a": 1, "b": 2}, "v")]], new_key)}), name + "2", evolve=True
        )
    assert catalogs.load(name).metadata == before, "nothing is half-made"


@pytest.mark.parametrize("how", ["arrow", "pandas", "dask"])
def test_numbers_and_dates_that_a_wider_column_holds(name: str, how: str) -> None:
    """Taken where no value changes, and refused by the value where one would."""
    wide = {
        "d": pa.float64(),
        "f": pa.float32(),
        "m": pa.decimal128(5, 2),
        "l": pa.int64(),
        "t": pa.timestamp("us"),
        "s": pa.list_(pa.struct([("m", pa.decimal128(38, 2))])),
    }
    shoal.create_table(name, wide)
    narrow = pa.schema(
        {
            "d": pa.int64(),
            "f": pa.int64(),
            "m": pa.int64(),
            "l": pa.int32(),
            "t": pa.date32(),
            "s": pa.list_(pa.struct([("m", pa.uint64())])),
        }
    )

    def write(**values: Any) -> None:
        good = {"d": 2**53, "f": 2**24, "m": 999, "l": 7, "t": dt.date(2026, 1, 2), "s": [{"m": 2**64 - 1}]}
        rows: Any = pa.table([[None, (good | values)[f.name]] for f in narrow], schema=narrow)
        if how != "arrow":
            rows = rows.to_pandas(types_mapper=pd.ArrowDtype)
        shoal.write_table(dd.from_pandas(rows, npartitions=1) if how == "dask" else rows, name)

    write()
    (_, kept) = catalogs.load(name).scan().to_arrow().to_pylist()
    assert kept == {
        "d": 2.0**53,
        "f": 2.0**24,
        "m": Decimal("999.00"),
        "l": 7,
        "t": dt.datetime(2026, 1, 2),
        "s": [{"m": Decimal(2**64 - 1)}],
    }
    for column, value in (("d", 2**53 + 1), ("d", -(2**53) - 1), ("f", 2**24 + 1), ("m", 1000)):
        with pytest.raises(
            errors.ValueNotRepresentableError, match=rf"'{column}' holds .*: {value}, in row 1 of partition 0"
        ):
            write(**{column: value})
    assert len(shoal.snapshots(name)) == 1


def test_evolving_fails_whole(name: str) -> None:
    shoal.write_table(pa.table({"a": pa.array([1], pa.int32())}), name)
    df = dd.from_pandas(pd.DataFrame({"a": [1, 2], "c": [1, 2]}), npartitions=1)
    broken = df.map_partitions(lambda p: 1 / 0, meta=df._meta)
    with pytest.raises(ZeroDivisionError):
        shoal.write_table(broken, name, evolve=True)
    assert list(shoal.read_table(name).columns) == ["a"], "the columns came with the rows, or not at all"


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        (
            pa.table({"id": ["1"], "v": ["a"]}),
            errors.SchemaMismatchError,
            "long, the frame string",
        ),
        (pa.table({"id": [1]}), errors.SchemaMismatchError, "v: missing"),
        (pa.table({"id": [1], "v": ["a"], "w": [1]}), errors.SchemaMismatchError, "w: new"),
        (pa.table({"id": [1.5], "v": ["a"]}), errors.SchemaMismatchError, r"double\s.*'id': 'Int64'"),
        (
            pa.table({"id": pa.array([2**63], pa.uint64()), "v": ["a"]}),
            errors.ValueNotRepresentableError,
            "row 0",
        ),
        ("not a frame", UsageError, r"Expected a DataFrame or a pyarrow\.Table, got str\.\sBoth"),
        (pd.Series([1], name="id"), UsageError, r"to_frame\('NAME'\)"),
        (pd.DataFrame({1: [1]}), UsageError, "mode"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, frame: Any, error: type, words: str, data_files: Any
) -> None:
    shoal.write_table(pa.table({"id": [1], "v": ["a"]}), name)
    with pytest.raises(error, match=words):
        shoal.write_table(frame, name, mode="oops" if words == "mode" else "append")
    assert len(data_files(name)) == 1
    assert len(shoal.snapshots(name)) == 1


def test_a_value_too_large_is_named(name: str, dask_cluster: Any) -> None:
    shoal.create_table(name, {"id": pa.int32()})
    values = np.arange(1000)
    values[777] = 2**40
    df = dd.from_pandas(pd.DataFrame({"id": values}), npartitions=1)
    with pytest.raises(errors.ValueNotRepresentableError, match=r"'id'.*1099511627776, in row 777") as caught:
        shoal.write_table(df, name)
    assert caught.value.values["row"] == 777
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert len(shoal.snapshots(name)) == 0
    required = pa.schema([pa.field("id", pa.int64(), nullable=False)])
    shoal.create_table(name + "2", required)
    with pytest.raises(errors.ValueNotRepresentableError, match="must not be null"):
        shoal.write_table(pa.table({"id": [1, None]}), name + "2")
    late = pa.table({"at": pa.array([1], pa.timestamp("ns"))})
    with pytest.raises(errors.ValueNotRepresentableError, match="would lose data"):
        shoal.write_table(late, name + "3")
    with pytest.raises(errors.TableNotFoundError):
        shoal.read_table(name + "3")


def test_types_without_a_place(name: str) -> None:
    with pytest.raises(errors.TypeNotSupportedError, match=r"d \(duration\[ns\]\)"):
        shoal.write_table(pd.DataFrame({"d": [pd.Timedelta(1, "h")]}), name)
    df = dd.from_pandas(pd.DataFrame({"o": [[1], [2]]}), npartitions=1, sort=False)
    if df.o.dtype == object:
        with pytest.raises(errors.TypeNotSupportedError, match="'object'"):
            shoal.write_table(df, name)


def test_integers_that_drifted_to_floats(name: str) -> None:
    """pandas makes floats of integers where a null appears; whole numbers are taken back."""
    shoal.create_table(name, {"id": pa.int64()})
    meta = pd.DataFrame({"id": pd.Series([], dtype="int64")})
    drifted = dd.from_map(lambda i: pd.DataFrame({"id": [1.0, None] if i else [2, 3]}), [0, 1], meta=meta)
    shoal.write_table(drifted, name)
    assert shoal.read_table(name).id.sum().compute() == 6


@pytest.mark.parametrize("change", ["drop", "recreate", "schema", "spec"])
def test_a_table_that_changes_mid_job(name: str, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    shoal.write_table(rows(range(5)), name)
    location = Path(catalogs.load(name).location().removeprefix("file://"))
    before = set((location / "data").rglob("*.parquet"))

    def meddle(point: WritePoint) -> None:
        if point is not WritePoint.CLIENT_AFTER_FILES:
            return
        monkeypatch.setattr(points, "hook", None)
        table, catalog = catalogs.load(name), shoal.catalog()
        if change in ("drop", "recreate"):
            catalog.drop_table(name)
        if change == "recreate":
            shoal.create_table(name, rows([1]).schema)
        if change == "schema":
            with table.update_schema() as update:
                update.rename_column("v", "w")
        if change == "spec":
            with table.update_spec() as update:
                update.add_identity("k")

    monkeypatch.setattr(points, "hook", meddle)
    with pytest.raises(errors.TableChangedError, match="Nothing was written"):
        shoal.write_table(rows(range(5, 9)), name)
    assert set((location / "data").rglob("*.parquet")) == before, "its files are deleted again"


def test_data_that_vanishes_under_a_reader(name: str) -> None:
    shoal.write_table(rows(range(5)), name)
    df = shoal.read_table(name)
    for task in catalogs.load(name).scan().plan_files():
        Path(task.file.file_path.removeprefix("file://")).unlink()
    with pytest.raises(errors.TableChangedError, match="vanished while it was read"):
        df.compute()


def test_no_space_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real full file system: /dev/full answers every write with "no space left"."""
    shoal.create_table(name, rows([1]).schema)
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    location = Path(catalogs.load(name).location().removeprefix("file://"))
    monkeypatch.setattr("shoal.tables.writing.files._path", lambda *_: f"file://{location}/data/full.parquet")
    (location / "data").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(
        "pyiceberg.io.pyarrow.PyArrowFile.create", lambda *_, **__: pa.OSFile("/dev/full", "wb")
    )
    with pytest.raises(errors.StorageError, match="No space is left"):
        shoal.write_table(rows(range(100_000)), name)
    assert len(shoal.snapshots(name)) == 0


def test_a_frame_without_known_divisions(name: str) -> None:
    df = dd.from_pandas(rows(range(100)).to_pandas(), npartitions=4).clear_divisions().shuffle("k")
    assert not df.known_divisions
    shoal.write_table(df, name)
    assert len(state(name)) == 100


def test_every_error_is_one_of_ours_and_says_what_to_do() -> None:
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and e.__module__ == errors.__name__]
    assert len(kinds) > 10
    assert all(issubclass(e, ShoalError | Warning) and e.__doc__ for e in kinds)
