"""How many requests a read over S3 takes, and how many bytes: counted at a real server, beside a bare PyArrow."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import S3FileSystem
from s3_proxy import Fault

import shoal
from shoal.tables.catalogs.opening import CatalogSettings, load
from shoal.tables.reading.plan import DeleteFile, Piece
from shoal.tables.reading.scan import read_partition

GROUPS, ROWS, COLUMNS = 8, 40_000, 6
"""Of the wide file: row groups, rows in each, and columns of eight bytes that cannot be compressed."""
_count = itertools.count()


@pytest.fixture
def lake(s3: Any, proxy: Any, tmp_path: Path) -> CatalogSettings:
    s3.bucket("counted")
    return CatalogSettings(
        uri=f"sqlite:///{tmp_path / 'catalog.db'}",
        warehouse=f"s3://counted/w{next(_count)}",
        properties=proxy.properties,
    )


def noise(rows: int, columns: int) -> pa.Table:
    dice = np.random.default_rng(7)
    return pa.table({"id": range(rows), **{f"c{i}": dice.random(rows) for i in range(1, columns)}})


@pytest.fixture
def wide(lake: CatalogSettings) -> str:
    """A table of one file with all row groups."""
    data = noise(GROUPS * ROWS, COLUMNS)
    properties = {"write.parquet.row-group-limit": str(ROWS)}
    shoal.create_table("counted.wide", data, properties=properties, catalog=lake)
    shoal.write_table(data, "counted.wide", catalog=lake)
    return "counted.wide"


def bare(lake: CatalogSettings, path: str, columns: list[str] | None) -> pa.Table:
    """The same ranges by nothing but PyArrow, which is told of no size."""
    given = lake.properties
    system = S3FileSystem(
        access_key=given["s3.access-key-id"],
        secret_key=given["s3.secret-access-key"],
        endpoint_override=given["s3.endpoint"],
        region="us-east-1",
    )
    return pq.ParquetFile(path.removeprefix("s3://"), filesystem=system, pre_buffer=True).read(columns)


def the_file(name: str, lake: CatalogSettings) -> Any:
    (task,) = load(name, lake).scan().plan_files()
    return task.file


def test_a_whole_file_takes_no_more_than_bare_pyarrow(lake: CatalogSettings, wide: str, proxy: Any) -> None:
    path = the_file(wide, lake).file_path
    for columns in (None, ["id", "c3"], ["c5"]):
        proxy.forget()
        expected = bare(lake, path, columns)
        theirs = proxy.of(ending=".parquet")
        proxy.forget()
        frame = shoal.read_table(wide, columns, catalog=lake).compute(scheduler="sync")
        ours = proxy.of(ending=".parquet")
        assert len(frame) == expected.num_rows
        assert not [a for a in ours if a.kind == "HEAD"], "its size is in the manifest"
        assert len(ours) < len(theirs), f"{columns}: {ours} against {theirs}"
        assert sum(a.sent for a in ours) <= 1.01 * sum(a.sent for a in theirs)


def test_a_file_read_in_parts_has_its_footer_fetched_once(
    lake: CatalogSettings, wide: str, proxy: Any
) -> None:
    size = the_file(wide, lake).file_size_in_bytes
    proxy.forget()
    df = shoal.read_table(wide, partition_size=ROWS * COLUMNS * 8, catalog=lake)
    assert df.npartitions == GROUPS
    frame = df.compute(scheduler="threads")
    assert frame.id.sum() == sum(range(GROUPS * ROWS))
    asked = proxy.of(ending=".parquet")
    footers = [a for a in asked if a.range is not None and a.range[1] == size - 1]
    assert len(footers) == 1
    assert len(asked) == 1 + GROUPS, "one request for a row group's columns, which lie side by side"
    assert sum(a.sent for a in asked) < size + 2 * 65536, "nothing is fetched twice"


def test_row_groups_that_cannot_match_are_not_fetched(lake: CatalogSettings, wide: str, proxy: Any) -> None:
    df = shoal.read_table(
        wide, ["id"], f"id >= {ROWS} and id < {ROWS + 5}", partition_size=ROWS * 8, catalog=lake
    )
    assert df.npartitions > 1
    proxy.forget()
    assert df.id.compute(scheduler="sync").tolist() == list(range(ROWS, ROWS + 5))
    assert len(proxy.of(ending=".parquet")) == 2, "the footer, and one row group's column"


def test_another_filter_of_the_same_read_reads_no_manifest_again(
    lake: CatalogSettings, wide: str, proxy: Any
) -> None:
    df = shoal.read_table(wide, catalog=lake)
    assert df[df.id < 5].id.compute(scheduler="sync").tolist() == [0, 1, 2, 3, 4]
    proxy.forget()
    assert df[df.id < 3].id.compute(scheduler="sync").tolist() == [0, 1, 2]
    assert len(df[df.id >= 0]) == len(df) == GROUPS * ROWS
    assert not proxy.of(ending=".avro")
    assert not proxy.of(ending=".json")


def test_columns_that_lie_close_are_fetched_in_one_go(lake: CatalogSettings, proxy: Any) -> None:
    data = noise(2_000, 40)
    shoal.write_table(data, "counted.narrow", catalog=lake)
    path = the_file("counted.narrow", lake).file_path
    columns = [f"c{i}" for i in range(2, 40, 6)]
    proxy.forget()
    bare(lake, path, columns)
    theirs = len(proxy.of(ending=".parquet"))
    proxy.forget()
    shoal.read_table("counted.narrow", columns, catalog=lake).compute(scheduler="sync")
    ours = proxy.of(ending=".parquet")
    assert len(ours) == 2 < theirs, "footer and columns"
    assert sum(a.sent for a in ours) < 2 * data.nbytes


def test_row_groups_are_fetched_beside_each_other_with_a_bound(
    lake: CatalogSettings, wide: str, proxy: Any
) -> None:
    df = shoal.read_table(wide, ["c2"], catalog=lake)
    proxy.forget()
    slow = Fault(lambda a: a.kind == "GET" and a.key.endswith(".parquet"), wait=0.3)
    with proxy.failing(slow):
        df.compute(scheduler="sync")
    assert len(proxy.of("GET", ".parquet")) == 1 + GROUPS
    assert 4 <= proxy.most <= pa.io_thread_count()


def test_what_metadata_knows_takes_no_data_file(lake: CatalogSettings, wide: str, proxy: Any) -> None:
    proxy.forget()
    assert len(shoal.read_table(wide, catalog=lake)) == GROUPS * ROWS
    assert not proxy.of(ending=".parquet")
    assert len(proxy.of()) <= 4, "the table's metadata and its list of manifests"


def test_a_small_file_is_written_in_one_request(lake: CatalogSettings, proxy: Any) -> None:
    shoal.write_table(noise(10, 3), "counted.small", catalog=lake)
    assert [a.kind for a in proxy.of(ending=".parquet")] == ["PUT"]
    assert [a.kind for a in proxy.of("PUT", ".avro")] == ["PUT", "PUT"], "a manifest, and the list of them"


def test_a_large_file_goes_up_in_parts(lake: CatalogSettings, proxy: Any) -> None:
    data = noise(400_000, 6)
    shoal.write_table(data, "counted.large", catalog=lake)
    assert len(proxy.of("PUT partNumber", ".parquet")) >= math.floor(data.nbytes / 12e6) >= 1
    assert len(shoal.read_table("counted.large", catalog=lake).compute(scheduler="threads")) == 400_000


def test_a_manifest_that_is_wrong_about_a_size_does_no_harm(lake: CatalogSettings, wide: str) -> None:
    source = shoal.read_table(wide, catalog=lake).expr.source
    plan = source.plan(source.context.row_filter)[0]
    for wrong in (-100, 100):
        pieces = [replace(piece, size=piece.size + wrong) for part in plan.partitions for piece in part]
        assert len(read_partition(pieces, source.context, ["id"])) == GROUPS * ROWS


def test_a_plan_of_an_older_version_knows_no_size_and_is_read(lake: CatalogSettings, wide: str) -> None:
    source = shoal.read_table(wide, catalog=lake).expr.source
    (piece,) = [p for part in source.plan(source.context.row_filter)[0].partitions for p in part]
    for kind in (Piece, DeleteFile):
        assert [f.name for f in fields(kind)][-1] == "size", "older versions overlook what comes last"
    # As it was pickled: the values in order, without the last.
    values = [getattr(piece, f.name) for f in fields(Piece)]
    old: Any = object.__new__(Piece)
    old.__setstate__(values[:-1])
    assert not hasattr(old, "size")
    assert len(read_partition([old], source.context, ["id"])) == GROUPS * ROWS


def test_a_frame_read_over_s3_is_the_frame_that_was_written(lake: CatalogSettings, wide: str) -> None:
    frame = shoal.read_table(wide, catalog=lake, partition_size="1 MiB").compute(scheduler="threads")
    expected = noise(GROUPS * ROWS, COLUMNS).to_pandas()
    got = frame.sort_values("id").reset_index(drop=True).astype(expected.dtypes)
    pd.testing.assert_frame_equal(got, expected)
