"""Edges that ordinary jobs come to: nothing new, a partition unlike its meta, numbers and texts of unusual make."""

from __future__ import annotations

import os
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record

import shoal
from shoal.tables import errors
from shoal.tables.catalogs import opening as catalogs


def ids(frame: Any) -> list[int]:
    return sorted(frame.id.compute().tolist())


def test_a_partition_that_lacks_a_column(name: str) -> None:
    """It was written as nulls."""

    def part(i: int) -> pd.DataFrame:
        return pd.DataFrame({"a": [i], "b": [5]}) if i == 0 else pd.DataFrame({"a": [i]})

    frame = dd.from_map(part, [0, 1], meta=part(0).iloc[:0])
    with pytest.raises(errors.SchemaMismatchError, match=r"Partition 1 .* lacks .*\['b'\]") as caught:
        shoal.write_table(frame, name)
    assert caught.value.values["differences"] == [("b", "missing", "partition 1 does not have it")]
    with pytest.raises(errors.TableNotFoundError):
        shoal.read_table(name)
    # A column that the whole frame lacks is another matter.
    shoal.write_table(pa.table({"a": [1], "b": [2]}), name)
    shoal.write_table(frame[["a"]], name, evolve=True)
    assert len(shoal.read_table(name)) == 3


def test_a_partition_that_lacks_an_index_level(name: str) -> None:
    def part(i: int) -> pd.DataFrame:
        frame = pd.DataFrame({"a": [i]}, index=pd.Index([i], name="k"))
        return frame if i == 0 else frame.reset_index(drop=True)

    frame = dd.from_map(part, [0, 1], meta=part(0).iloc[:0])
    with pytest.raises(errors.SchemaMismatchError, match=r"Partition 1 .* lacks .*\['k'\]"):
        shoal.write_table(frame, name)


def test_nothing_new(name: str) -> None:
    seen = shoal.write_table(pa.table({"id": [1], "x": ["a"]}), name).snapshot_id
    new = shoal.read_table(name, since=seen)
    assert (len(new), ids(new), list(new.columns)) == (0, [], ["id", "x"])
    assert ids(new[new.x == "a"]) == []
    assert len(shoal.read_table(name, since=seen, filters="x = 'a'")) == 0
    assert len(shoal.read_table(name, since=seen, snapshot=seen)) == 0
    shoal.write_table(pa.table({"id": [2], "x": ["b"]}), name)
    assert ids(shoal.read_table(name, since=seen)) == [2]


def test_a_first_write_without_rows_has_no_snapshot(name: str) -> None:
    """The table is made all the same, and a run that landed no row is not done."""
    empty = pa.table({"id": pa.array([], pa.int64())})
    first, again = (shoal.write_table(empty, name, run_key="one") for _ in range(2))
    assert (first.snapshot_id, first.replayed, again.snapshot_id, again.replayed) == (0, False, 0, False)
    assert all(f"{name}: no rows, so no snapshot" in repr(one) for one in (first, again))
    assert (len(shoal.snapshots(name)), len(shoal.read_table(name))) == (0, 0)
    assert shoal.write_table(pa.table({"id": [1]}), name, run_key="one").snapshot_id in set(
        shoal.snapshots(name).snapshot_id
    )


def test_uuids_are_text_in_frames(name: str) -> None:
    """pandas can neither print nor compare Arrow's. They are the table's own again when they are written."""
    values = [uuid.UUID(int=2**127 + 10**30 * i) for i in (3, 1, 2)]
    raw = pa.array([None, *(v.bytes for v in values)], pa.uuid())
    shoal.write_table(pa.table({"id": [0, 1, 2, 3], "u": raw}), name)
    df = shoal.read_table(name)
    frame = df.compute()
    assert frame.u.tolist() == [pd.NA, *map(str, values)]
    assert str(values[0]) in repr(frame)
    assert frame.dtypes.u == df.dtypes.u
    assert ids(df[df.u == str(values[0])]) == [1]
    assert df.sort_values("u").id.compute().tolist() == [2, 3, 1, 0]
    assert len(df[df.id > 0].merge(frame, on="u")) == 3
    for again in (df[df.id > 1], frame[frame.id == 1], pa.table({"id": [9], "u": [values[0].hex.upper()]})):
        shoal.write_table(again, name)
    shoal.write_table(frame[frame.id == 0], name)
    kept = catalogs.load(name).scan().to_arrow()
    assert kept.schema.field("u").type == pa.uuid()
    assert sorted(map(str, kept["u"].to_pylist())) == sorted(
        ["None", "None", *map(str, [*values, *values, values[0]])]
    )
    assert ids(shoal.read_table(name, filters=[("u", "==", values[0])])) == [1, 1, 9]
    with pytest.raises(
        errors.ValueNotRepresentableError, match=r"'u' holds .*: 'zz', in row 1 of partition 0"
    ):
        shoal.write_table(pa.table({"id": [7, 8], "u": [str(values[0]), "zz"]}), name)


def test_a_decimal_of_all_its_digits(name: str) -> None:
    """Python's decimals round to 28 digits unless told otherwise."""
    big = Decimal("9999999999999999999999999999.9999999999")
    values = pa.array([big, big.copy_negate(), Decimal("1.1")], pa.decimal128(38, 10))
    shoal.write_table(pa.table({"id": [0, 1, 2], "d": values}), name)
    df = shoal.read_table(name)
    assert ids(df[df.d == big]) == [0]
    assert ids(df[df.d < big]) == [1, 2]
    assert ids(df[df.d.isin([big, big.copy_negate()])]) == [0, 1]
    assert ids(df[df.d == Decimal("1.10000000000000000000000000000000000")]) == [2]
    assert ids(shoal.read_table(name, filters=[("d", "in", [big])])) == [0]


@pytest.mark.parametrize("partition_by", [None, "truncate(3, s)"])
def test_a_bound_that_was_cut_inside_a_character(name: str, partition_by: str | None) -> None:
    """As some writers did: such a bound says nothing."""
    text = '{"name":"John O\u2019Hara'
    rows = pa.table({"id": [1], "s": [text]})
    shoal.create_table(name, rows.schema, partition_by=partition_by or ())
    table = catalogs.load(name)
    path = Path(table.location().removeprefix("file://"), "data", "theirs.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows.cast(schema_to_pyarrow(table.schema())), path)
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"file://{path}",
        file_format=FileFormat.PARQUET,
        partition=Record(text[:3]) if partition_by else Record(),
        record_count=1,
        file_size_in_bytes=os.path.getsize(path),
        column_sizes={},
        value_counts={2: 1},
        null_value_counts={2: 0},
        nan_value_counts=None,
        lower_bounds={2: b'{"name":"John O\xe2'},
        upper_bounds={2: b'{"name":"John P\xe2'},
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
        key_metadata=None,
    )
    file.spec_id = 0
    with table.transaction() as change, change.update_snapshot().fast_append() as append:
        append.append_data_file(file)
    df = shoal.read_table(name)
    for found, filters in (
        ([1], "s > 'a'"),
        ([1], "s like '{%'"),
        ([1], "s not like 'a%'"),
        ([1], "s not in ('q', 'r')"),
        ([1], f"s = '{text}'"),
        ([], "s = 'q'"),
        ([], "s in ('q', 'r')"),
        ([], "s <= 'q'"),
        ([1], "s is not null"),
    ):
        assert ids(shoal.read_table(name, filters=filters)) == found, filters
    assert ids(df[df.s == text]) == ids(df[df.s > "a"]) == ids(df[df.s.str.startswith("{")]) == [1]
    assert ids(df[df.s == "q"]) == []
    assert shoal.write_table(rows, name, mode="upsert", keys="s").replaced_rows == 1


@pytest.mark.parametrize(
    ("filters", "said", "hint"),
    [
        ('"a.b" = 4', "character 1", "a.b"),
        ('"my a.b" > 4', "character 1", '"my a".b'),
        ("`a.b` = 4", "character 1", '"a column" = 1'),
        ("s = 'x\ny'", "character 5", r"[('column', '==', 'x\ny')]"),
        ('"q""q" = 1', "character 1", """[('q"q', '==', 1)]"""),
        ('id > 1 and "q\\q', "character", "as in SQL"),
    ],
)
def test_a_filter_that_cannot_be_read(name: str, filters: str, said: str, hint: str) -> None:
    """It was told by the insides of the parser."""
    shoal.write_table(pa.table({"id": [1], "a.b": [4], "my a.b": [5], 'q"q': [1], "s": ["x\ny"]}), name)
    with pytest.raises(errors.FilterError) as caught:
        shoal.read_table(name, filters=filters)
    assert said in str(caught.value)
    assert hint in caught.value.hint
    assert not any(word in str(caught.value) for word in ("W:(", "Group", "Expected {"))
    assert len(str(caught.value)) < 300


def test_what_the_hints_say_can_be_read(name: str) -> None:
    shoal.write_table(pa.table({"id": [1], "a.b": [4], "my a.b": [5], 'q"q': [1], "s": ["x\ny"]}), name)
    given: list[Any] = ["a.b = 4", '"my a".b > 4', [("s", "==", "x\ny")], [('q"q', "==", 1)]]
    for filters in given:
        assert ids(shoal.read_table(name, filters=filters)) == [1], filters


def test_a_column_of_nulls_alone(name: str) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [None, None]})
    with pytest.raises(errors.TypeNotSupportedError, match="All values of 'b' are null") as caught:
        shoal.write_table(frame, name)
    assert "df.astype({'b': 'string[pyarrow]'})" in caught.value.hint
    shoal.write_table(frame.astype({"b": "string[pyarrow]"}), name)
    assert shoal.read_table(name).b.isnull().all().compute()


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.date32()]
)
def test_a_time_too_far_off_is_a_wrong_value(name: str, kind: pa.DataType) -> None:
    """It was told as a wrong type."""
    far = {pa.timestamp("s"): 2**40, pa.date32(): 2**25}.get(kind, 2**40 * 1_000_000)
    rows = pa.table(
        {"id": [0, 1], "at": pa.array([0, far], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)}
    )
    with pytest.raises(
        errors.ValueNotRepresentableError, match=r"row 1 of partition 0 .*outside 1 to 9999"
    ) as caught:
        shoal.write_table(rows, name)
    assert (caught.value.values["column"], caught.value.values["row"]) == ("at", 1)
    shoal.write_table(rows.slice(0, 1), name)
    assert ids(shoal.read_table(name)) == [0]


def test_a_partition_whose_folder_has_too_long_a_name(name: str) -> None:
    rows = pa.table({"id": [1], "s": ["x" * 300]})
    with pytest.raises(errors.StorageError, match="too long") as caught:
        shoal.write_table(rows, name, partition_by="s")
    assert '"write.object-storage.partitioned-paths": "false"' in caught.value.hint
    flat = {"write.object-storage.enabled": "true", "write.object-storage.partitioned-paths": "false"}
    shoal.create_table(name, rows.schema, partition_by="s", properties=flat)
    shoal.write_table(rows, name)
    assert ids(shoal.read_table(name, filters=[("s", "==", "x" * 300)])) == [1]
