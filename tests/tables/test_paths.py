"""Tables that are named by where they lie: Hadoop tables, as Spark writes them, and metadata files of any table."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import shoal
from shoal.tables.catalogs.opening import CatalogSettings, catalog
from shoal.tables.errors import NotSupportedError, StorageRefusedError, TableNotFoundError

ROWS = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})


@pytest.fixture(scope="module")
def hadoop(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table that Spark wrote by a Hadoop catalog: partitioned, changed, widened, rows deleted."""
    folder = tmp_path_factory.mktemp("old")
    spark.conf.set("spark.sql.catalog.old", "org.apache.iceberg.spark.SparkCatalog")
    spark.conf.set("spark.sql.catalog.old.type", "hadoop")
    spark.conf.set("spark.sql.catalog.old.warehouse", str(folder))
    spark.sql(
        "create table old.nyc.flights (a bigint, b string) using iceberg partitioned by (b) "
        "tblproperties ('write.delete.mode'='merge-on-read', 'write.metadata.compression-codec'='gzip')"
    )
    spark.sql("insert into old.nyc.flights values (1, 'x'), (2, 'y'), (3, 'y')")
    spark.sql("alter table old.nyc.flights add column c double")
    spark.sql("insert into old.nyc.flights values (4, 'z', 0.5), (5, 'z', null)")
    spark.sql("delete from old.nyc.flights where a = 2")
    return folder / "nyc" / "flights"


def rows(frame: Any) -> list[tuple[Any, ...]]:
    computed = frame.compute(scheduler="threads").sort_values("a")
    return [
        tuple(None if pd.isna(each) else each for each in row) for row in computed.itertuples(index=False)
    ]


@pytest.mark.spark
def test_a_hadoop_table_is_read_as_spark_reads_it(hadoop: Path, spark: Any, lake: CatalogSettings) -> None:
    expected = [(1, "x", None), (3, "y", None), (4, "z", 0.5), (5, "z", None)]
    assert [
        tuple(row) for row in spark.sql("select a, b, c from old.nyc.flights order by a").collect()
    ] == expected
    for name in (str(hadoop), f"{hadoop}/", f"file://{hadoop}", f"file:{hadoop}"):
        assert rows(shoal.read_table(name)) == expected, name
    assert rows(shoal.read_table(str(hadoop), columns=["a"], filters="b = 'z' and a > 4")) == [(5,)]
    first = shoal.snapshots(str(hadoop)).snapshot_id.iloc[0]
    assert rows(shoal.read_table(str(hadoop), snapshot=first)) == [(1, "x"), (2, "y"), (3, "y")]
    assert len(shoal.history(str(hadoop))) == 3


@pytest.mark.spark
def test_processes_read_it_too(hadoop: Path, dask_cluster: Any) -> None:
    assert sorted(shoal.read_table(str(hadoop)).a.compute()) == [1, 3, 4, 5]


@pytest.mark.spark
def test_a_hint_that_is_behind_or_gone_changes_nothing(hadoop: Path, tmp_path: Path) -> None:
    copy = tmp_path / "flights"
    shutil.copytree(hadoop, copy)
    hint = copy / "metadata" / "version-hint.text"
    newest = int(hint.read_text())
    for stand in (str(newest - 1), "1", "nonsense", None):
        hint.unlink(missing_ok=True)
        if stand is not None:
            hint.write_text(stand)
        assert len(shoal.read_table(str(copy))) == 4, stand


def test_a_relative_path_and_one_below_the_home_folder_are_found(
    lake: CatalogSettings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shoal.write_table(ROWS, name)
    file = Path(catalog().load_table(name).metadata_location.removeprefix("file://"))
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv("HOME", str(file.parent.parent))
    for path in (f"./{file.name}", file.name, f"~/metadata/{file.name}"):
        assert rows(shoal.read_table(path)) == [(1, "x"), (2, "y"), (3, "z")]


def test_a_metadata_file_tells_the_table_as_it_was(lake: CatalogSettings, name: str) -> None:
    shoal.write_table(ROWS, name)
    then = catalog().load_table(name).metadata_location
    shoal.write_table(ROWS, name)
    assert len(shoal.read_table(name)) == 6
    assert len(shoal.read_table(then)) == 3
    with pytest.raises(NotSupportedError, match="only that catalog knows") as told:
        shoal.read_table(then.rpartition("/metadata/")[0])
    assert ".metadata.json" in told.value.hint


def test_on_s3_the_keys_of_the_catalog_are_used(s3: Any, tmp_path: Path) -> None:
    s3.bucket("paths")
    lake = CatalogSettings(
        f"paths{tmp_path.name}", f"sqlite:///{tmp_path}/c.db", "s3://paths/w", s3.properties
    )
    shoal.write_table(ROWS, "n.t", catalog=lake)
    file = catalog(lake).load_table("n.t").metadata_location
    assert file.startswith("s3://")
    frame = shoal.read_table(file, catalog=lake)
    assert rows(frame) == [(1, "x"), (2, "y"), (3, "z")]
    wrong = {**s3.properties, "s3.secret-access-key": "wrong"}
    with pytest.raises(StorageRefusedError, match="refused these keys"):
        shoal.read_table(file, catalog=CatalogSettings("w", lake.uri, lake.warehouse, wrong, timeout=2.0))


@pytest.mark.spark
def test_it_is_never_changed(hadoop: Path, lake: CatalogSettings) -> None:
    before = sorted((str(file), file.stat().st_mtime_ns) for file in hadoop.rglob("*"))
    path = str(hadoop)
    for refused in (
        lambda: shoal.write_table(ROWS, path),
        lambda: shoal.write_table(ROWS, path, "upsert", keys="a"),
        lambda: shoal.create_table(path, ROWS),
        lambda: shoal.compact(path),
        lambda: shoal.expire_snapshots(path, older_than="0s"),
        lambda: shoal.remove_orphans(path),
        lambda: shoal.rewrite_manifests(path),
        lambda: shoal.branch(path, "b"),
        lambda: shoal.tag(path, "t"),
        lambda: shoal.rollback(path, 1),
    ):
        with pytest.raises(NotSupportedError, match="can be read, and not be changed") as told:
            refused()
        assert "write_table(read_table(PATH)" in told.value.hint
    assert sorted((str(file), file.stat().st_mtime_ns) for file in hadoop.rglob("*")) == before
    shoal.write_table(shoal.read_table(path), "taken.over", catalog=lake)  # as the hint says
    assert len(shoal.read_table("taken.over", catalog=lake)) == 4


@pytest.mark.parametrize("path", ["/nowhere/at/all", "s3a:", "file:///etc", "./x.metadata.json"])
def test_a_path_that_holds_no_table_is_told(lake: CatalogSettings, path: str) -> None:
    with pytest.raises(TableNotFoundError if path != "s3a:" else shoal.errors.ShoalError) as told:
        shoal.read_table(path)
    assert told.value.hint
