"""Which columns get a dictionary and which are compressed, and that both are what Parquet then holds."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import shoal
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.reading.collector import paused
from shoal.tables.reading.plan import column_weights
from shoal.tables.writing.encodings import DELTA, DELTA_PROPERTY, writer_options

ROWS = 100_000


def _columns() -> pa.Table:
    random = np.random.default_rng(0)
    return pa.table(
        {
            "key": np.arange(ROWS),
            "noise": random.normal(0, 1, ROWS),
            "grade": random.integers(0, 6, ROWS).astype("float64"),
            "carrier": pa.array([f"c{i}" for i in random.integers(0, 40, ROWS)], pa.large_string()),
            "flag": pa.array(random.random(ROWS) < 0.5),
            "token": pa.array([random.bytes(16) for _ in range(ROWS)], pa.binary(16)),
            "nothing": pa.nulls(ROWS, pa.int32()),
        }
    )


def test_a_sample_decides() -> None:
    options = writer_options(_columns(), "zstd", 3)
    assert options["use_dictionary"] == ["grade", "carrier", "nothing"]
    assert options["column_encoding"] == {"key": DELTA}
    assert {c for c, codec in options["compression"].items() if codec == "none"} == {"key", "noise", "token"}
    assert options["compression_level"] == dict.fromkeys(("grade", "carrier", "flag", "nothing"), 3)
    plain = writer_options(_columns(), "zstd", 3, delta=False)
    assert plain["column_encoding"] is None
    assert plain["compression"]["key"] == "zstd"


def test_differences_are_for_what_comes_in_order() -> None:
    """Sorted, in order with gaps, falling; not for what jumps, nor for what Zstandard does better."""
    random = np.random.default_rng(0)
    kept = {
        "sorted": np.sort(random.integers(-(2**62), 2**62, ROWS)),
        "falling": np.arange(ROWS, 0, -1) * 1000,
        "small": np.arange(ROWS, dtype="int32"),
        "day": pa.array(np.arange(ROWS, dtype="int32")).cast(pa.date32()),
        "at": pa.array(
            np.arange(ROWS) * 60_000_000 + random.integers(0, 1000, ROWS), pa.timestamp("us", "UTC")
        ),
        "gaps": pa.array(np.arange(ROWS), mask=random.random(ROWS) < 0.3),
    }
    other = {
        "noise": random.integers(-(2**63), 2**63 - 1, ROWS),
        "floats": np.arange(ROWS, dtype="float64"),
        "price": pa.array(np.arange(ROWS)).cast(pa.decimal128(22, 2)),
        "often": np.arange(ROWS) % 5000 // 10,
        "turns": np.tile(random.integers(-(2**63), 2**63 - 1, 1000), ROWS // 1000),
    }
    assert writer_options(pa.table(kept | other), "zstd", None)["column_encoding"] == dict.fromkeys(
        kept, DELTA
    )
    # Whatever is said of a table's compression, differences are never the larger.
    assert writer_options(pa.table(other), "none", None)["column_encoding"] is None


def test_few_rows_say_nothing_against_compressing() -> None:
    options = writer_options(_columns().slice(0, 100), "zstd", None)
    assert set(options["compression"].values()) == {"zstd"}
    assert set(writer_options(_columns(), "none", None)["compression"].values()) == {"none"}


def test_repeats_show_wherever_they_are() -> None:
    """Sorted runs of one value, and values that come again only far away."""
    near = pa.table({"x": np.arange(ROWS) // 500})
    far = pa.table({"x": np.arange(ROWS) % 1024})
    none = pa.table({"x": np.arange(ROWS)})
    assert [bool(writer_options(t, "zstd", None)["use_dictionary"]) for t in (near, far, none)] == [
        True,
        True,
        False,
    ]


def test_nested_columns_have_the_paths_that_parquet_gives_them() -> None:
    table = pa.table(
        {
            "m": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
            "l": pa.array([[1], None, [2, 3]], pa.large_list(pa.int32())),
            "ls": pa.array([[{"x": 1, "y": [1.0]}], None, []]),
            "s": pa.array([{"a": 1, "b": [1.5]}, None, {"a": 2, "b": None}]),
            "u": pa.array([b"0" * 16] * 3, pa.uuid()),
            "d": pa.array([1, 2, 3]).cast(pa.decimal128(30, 2)),
        }
    )
    for piece in (table, table.slice(1, 1), table.slice(0, 0), pa.concat_tables([table] * 9000).slice(1)):
        sink = pa.BufferOutputStream()
        options = writer_options(piece, "zstd", None)
        with pq.ParquetWriter(sink, table.schema, **options) as writer:
            writer.write_table(piece)
        written = pq.ParquetFile(sink.getvalue()).metadata
        paths = [written.schema.column(i).path for i in range(written.num_columns)]
        assert list(options["compression"]) == paths
        assert set(options["use_dictionary"] or ()) <= set(paths)


def test_written_files_are_stored_so(name: str) -> None:
    table = _columns().drop_columns(["token", "nothing"])
    shoal.write_table(table, name)
    (task,) = catalogs.load(name).scan().plan_files()
    group = pq.ParquetFile(task.file.file_path.removeprefix("file://")).metadata.row_group(0)
    chunks = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    codecs = {c: chunk.compression for c, chunk in chunks.items()}
    assert codecs == {
        "key": "UNCOMPRESSED",
        "noise": "UNCOMPRESSED",
        "grade": "ZSTD",
        "carrier": "ZSTD",
        "flag": "ZSTD",
    }
    assert {c for c, chunk in chunks.items() if "RLE_DICTIONARY" in chunk.encodings} == {"grade", "carrier"}
    # The key alone as differences; all else as every reader of Iceberg tables knows it.
    known = {"PLAIN", "RLE", "RLE_DICTIONARY", "BIT_PACKED"}
    assert {c for c, chunk in chunks.items() if not set(chunk.encodings) <= known} == {"key"}
    assert DELTA in chunks["key"].encodings
    # The page index is there, and the table's own limit of a page's rows is kept.
    assert all(chunk.has_offset_index and chunk.has_column_index for chunk in chunks.values())
    small = pa.table({"key": np.arange(ROWS)})
    sizes = []
    for limit in (1000, ROWS):
        limited = f"{name}_{limit}"
        properties = {"write.parquet.page-row-limit": str(limit), DELTA_PROPERTY: "false"}
        shoal.create_table(limited, small, properties=properties)
        (file,) = shoal.write_table(small, limited).files
        sizes.append(file.bytes)
        chunk = pq.ParquetFile(file.path.removeprefix("file://")).metadata.row_group(0).column(0)
        assert DELTA not in chunk.encodings
    assert sizes[0] > 1.1 * sizes[1], "a hundred pages with a header each, against one"
    assert shoal.read_table(name).compute()["noise"].to_numpy().tolist() == table["noise"].to_pylist()


@pytest.mark.spark
def test_every_engine_reads_differences(name: str, sql: Any) -> None:
    """Every type that is stored so, with nulls and without, over several pages and row groups."""
    random = np.random.default_rng(0)
    numbers = np.cumsum(random.integers(0, 1000, ROWS))
    full = {
        "long": pa.array(numbers),
        "int": pa.array(numbers // 50, pa.int32()),
        "day": pa.array((numbers // 50).astype("int32")).cast(pa.date32()),
        "at": pa.array(numbers * 1_000_000, pa.timestamp("us")),
        "zoned": pa.array(numbers * 1_000_000, pa.timestamp("us", "UTC")),
    }
    gaps = {f"{column}_or_null": pc.if_else(random.random(ROWS) < 0.2, None, full[column]) for column in full}
    items = pa.ListArray.from_arrays(np.arange(0, ROWS + 1, 2, dtype="int32"), full["long"])
    table = pa.table({**full, **gaps, "items": pa.concat_arrays([items, items])})
    shoal.create_table(name, table, properties={"write.parquet.row-group-limit": "30000"})
    (file,) = shoal.write_table(table, name).files
    written = pq.ParquetFile(file.path.removeprefix("file://")).metadata
    assert written.num_row_groups == 4
    chunks = [written.row_group(3).column(i) for i in range(written.num_columns)]
    assert all(DELTA in chunk.encodings for chunk in chunks), [chunk.path_in_schema for chunk in chunks]
    assert catalogs.load(name).scan().to_arrow().to_pylist() == table.to_pylist()
    found = shoal.read_table(name).compute()
    assert (
        pa.Table.from_pandas(found, preserve_index=False).cast(table.schema).to_pylist() == table.to_pylist()
    )
    spark = sql(f"select * from shoal.{name} order by long, int")
    for column in table.column_names:
        wanted = table.column(column).to_pandas(timestamp_as_object=False)
        if column.startswith("zoned"):
            wanted = wanted.dt.tz_localize(None)
        if column == "items":
            assert [list(x) for x in spark[column]] == [list(x) for x in wanted]
        else:
            assert spark[column].isna().tolist() == wanted.isna().tolist()
            assert spark[column].dropna().tolist() == wanted.dropna().tolist()
    low, high = int(numbers[70_000]), int(numbers[70_100])
    (count,) = sql(f"select count(*) as n from shoal.{name} where long between {low} and {high}")["n"]
    assert count == ((numbers >= low) & (numbers <= high)).sum()


def test_what_takes_next_to_nothing_in_a_file_is_planned_by_its_size_in_memory(name: str) -> None:
    """Else a partition of numbers in order would be many times what was asked for."""
    numbers = pa.array(np.arange(4 * ROWS))
    items = pa.ListArray.from_arrays(np.arange(0, 4 * ROWS + 1, 4, dtype="int32"), numbers)
    table = pa.table({"key": np.arange(ROWS), "items": items})
    (file,) = shoal.write_table(table, name).files
    assert file.bytes < table.nbytes / 50
    loaded = catalogs.load(name)
    weights = column_weights(loaded.schema(), list(loaded.scan().plan_files()))
    for column in table.column_names:
        assert weights[column] == pytest.approx(table.column(column).nbytes / ROWS, rel=0.2)


def test_the_collector_is_on_again_whatever_happens() -> None:
    assert gc.isenabled()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with paused():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    with pytest.raises(ZeroDivisionError), paused():
        _ = 1 / 0
    assert not gc.isenabled()  # the other is still inside
    leave.set()
    thread.join()
    assert gc.isenabled()
