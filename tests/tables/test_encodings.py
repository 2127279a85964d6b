"""Which columns get a dictionary and which are compressed, and that both are what Parquet then holds."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shoal
from shoal.tables import catalog as catalogs
from shoal.tables.collector import paused
from shoal.tables.encodings import writer_options

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
    assert {c for c, codec in options["compression"].items() if codec == "none"} == {"noise", "token"}
    assert options["compression_level"] == dict.fromkeys(("key", "grade", "carrier", "flag", "nothing"), 3)


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
        "key": "ZSTD",
        "noise": "UNCOMPRESSED",
        "grade": "ZSTD",
        "carrier": "ZSTD",
        "flag": "ZSTD",
    }
    assert {c for c, chunk in chunks.items() if "RLE_DICTIONARY" in chunk.encodings} == {"grade", "carrier"}
    # No encoding that an older reader of Iceberg tables lacks.
    known = {"PLAIN", "RLE", "RLE_DICTIONARY", "BIT_PACKED"}
    assert {e for chunk in chunks.values() for e in chunk.encodings} <= known
    # The page index is there, and the table's own limit of a page's rows is kept.
    assert all(chunk.has_offset_index and chunk.has_column_index for chunk in chunks.values())
    small = pa.table({"key": np.arange(ROWS)})
    sizes = []
    for limit in (1000, ROWS):
        limited = f"{name}_{limit}"
        shoal.create_table(limited, small, properties={"write.parquet.page-row-limit": str(limit)})
        sizes.append(shoal.write_table(small, limited).files[0].bytes)
    assert sizes[0] > 1.1 * sizes[1], "a hundred pages with a header each, against one"
    assert shoal.read_table(name).compute()["noise"].to_numpy().tolist() == table["noise"].to_pylist()


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
