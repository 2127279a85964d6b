"""What Spark deleted without rewriting its files: applied as Spark applies it, or refused with the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.table import DataScan

import shoal
from shoal.tables import errors
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.reading.equality import files_of

pytestmark = pytest.mark.spark

Sql = Callable[[str], list[dict[str, Any]]]
ROWS = 20_000


@pytest.fixture
def run(spark: Any) -> Sql:
    """Run one statement; the answer as plain rows."""
    return lambda statement: spark.sql(statement).toArrow().to_pylist()


@pytest.fixture
def java(spark: Any) -> Callable[[str], tuple[Any, Any]]:
    """A table as Iceberg's own Java object, and the gateway to that Java."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    def load(name: str) -> tuple[Any, Any]:
        gateway = SparkContext._gateway
        session = gateway.jvm.org.apache.spark.sql.SparkSession.active()
        table = gateway.jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(session, f"shoal.{name}")
        return table, gateway

    assert SparkSession is not None
    return load


def make(run: Sql, name: str, *, version: int, files: int = 1, partitioned: bool = False) -> None:
    """A table by Spark, merging on read, of some data files with several row groups each."""
    modes = ", ".join(f"'write.{c}.mode' = 'merge-on-read'" for c in ("delete", "update", "merge"))
    run(f"create namespace if not exists shoal.{name.split('.')[0]}")
    run(
        f"create table shoal.{name} (id int, part int, v double, s string) using iceberg "
        f"{'partitioned by (part)' if partitioned else ''} tblproperties ('format-version' = '{version}', "
        f"'write.parquet.row-group-size-bytes' = '20000', 'write.parquet.page-size-bytes' = '4000', {modes})"
    )
    step = ROWS // files
    for start in range(0, ROWS, step):
        run(
            f"insert into shoal.{name} select /*+ coalesce(1) */ cast(id as int), cast(id % 4 as int), "
            f"if(id % 11 = 0, null, id / 3.0), concat('text ', id) from range({start}, {start + step}, 1, 1)"
        )


def same(run: Sql, name: str, at: str = "", **how: Any) -> Any:
    """Read by Dask and by Spark; every row and value has to be the same."""
    df = shoal.read_table(name, partition_size="64 KiB", **how)
    ours = pa.Table.from_pandas(df.compute(), preserve_index=False).to_pylist()
    theirs = run(f"select * from shoal.{name}{at}")
    assert sorted(ours, key=lambda r: r["id"]) == sorted(theirs, key=lambda r: r["id"])
    assert len(df) == len(theirs)
    return df


def live(name: str) -> dict[str, list[Any]]:
    """Data file -> its delete files."""
    return {t.file.file_path: list(t.delete_files) for t in catalogs.load(name).scan().plan_files()}


@pytest.mark.parametrize(("version", "layout"), [(2, "files"), (3, "one file"), (3, "partitions")])
def test_deletes_are_applied_as_spark_does(version: int, layout: str, name: str, run: Sql) -> None:
    kind = {2: "PARQUET", 3: "PUFFIN"}[version]
    make(
        run, name, version=version, files=1 if layout == "one file" else 3, partitioned=layout == "partitions"
    )
    data = list(live(name))
    groups = [pq.ParquetFile(path.removeprefix("file:").removeprefix("//")).num_row_groups for path in data]
    assert max(groups) >= (1 if layout == "partitions" else 3), "a file of one row group would prove little"
    whole = same(run, name)
    assert layout == "partitions" or whole.npartitions > len(data), "before the delete, files are split"

    run(f"delete from shoal.{name} where id % 7 = 0 or id between 9000 and 9500")
    first = live(name)
    assert {d.file_format for deletes in first.values() for d in deletes} == {kind}
    df = same(run, name)
    snapshot = catalogs.load(name).current_snapshot().snapshot_id  # type: ignore[union-attr] # there is one

    # A second delete of the same files replaces a vector (or adds to position deletes).
    run(f"delete from shoal.{name} where id % 5 = 0 and id < 12000")
    second = live(name)
    assert set(second) == set(first), "no file was rewritten"
    assert second != first
    if version == 3 and layout == "one file":
        assert [len(d) for d in second.values()] == [1], "the vector was replaced"
    narrow = same(run, name)
    same(run, name, f" version as of {snapshot}", snapshot=snapshot)
    assert len(df) > len(narrow), "the frame from before is pinned"

    # What people do with it: projection, filters over row groups, counting.
    truth = {r["id"]: r for r in run(f"select * from shoal.{name}")}
    assert sorted(narrow.id.compute()) == sorted(truth)
    assert sorted(narrow[narrow.id > 15000].s.compute()) == sorted(
        r["s"] for i, r in truth.items() if i > 15000
    )
    assert len(narrow[(narrow.part == 1) & (narrow.id < 10000)]) == sum(
        r["part"] == 1 and i < 10000 for i, r in truth.items()
    )
    assert len(narrow[narrow.id.isin([0, 7, 9001, 8])]) == 1, "of these only 8 is left"
    assert narrow.v.sum().compute() == pytest.approx(sum(r["v"] or 0 for r in truth.values()))
    assert len(narrow.index) == len(truth)
    assert sum(narrow.map_partitions(len).compute()) == len(truth)

    run(f"update shoal.{name} set s = 'new' where id in (1, 2, 16001)")
    changed = same(run, name)
    assert sorted(changed[changed.s == "new"].id.compute()) == [1, 2, 16001]

    # Since: what was only added may be read by itself; what was deleted in between may not be told.
    before = shoal.snapshots(name).snapshot_id.tolist()
    run(f"insert into shoal.{name} values (100001, 1, 1.5, 'late'), (100002, 2, null, null)")
    added = shoal.read_table(name, since=before[-1])
    assert sorted(added.id.compute()) == [100001, 100002]
    assert len(added) == 2
    with pytest.raises(errors.NotSupportedError, match="were not only added"):
        shoal.read_table(name, since=before[0])

    run(f"call shoal.system.rewrite_data_files(table => '{name}', options => map('rewrite-all', 'true'))")
    assert not any(live(name).values())
    same(run, name)


def test_a_damaged_delete_file_is_an_error_and_not_rows(name: str, run: Sql) -> None:
    make(run, name, version=3)
    run(f"delete from shoal.{name} where id < 100")
    ((delete,),) = live(name).values()
    path = Path(delete.file_path.removeprefix("file:").removeprefix("//"))
    whole = path.read_bytes()
    df = shoal.read_table(name)
    assert len(df) == ROWS - 100
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(errors.StorageError, match="checksum of the deletion vector"):
        df.id.sum().compute()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.StorageError, match="is damaged"):
        df.id.sum().compute()
    path.unlink()
    with pytest.raises(errors.TableChangedError, match=r"delete file of .* vanished"):
        df.id.sum().compute()


def test_a_column_with_a_default_has_it_in_older_files(name: str, run: Sql, java: Any) -> None:
    """Version 3: rows that were written before the column was added have its default, not null."""
    make(run, name, version=3)
    table, gateway = java(name)
    kind = gateway.jvm.org.apache.iceberg.types.Types.IntegerType.get()
    default = gateway.jvm.org.apache.iceberg.expressions.Literal.of(7)
    table.updateSchema().addColumn("grade", kind, default).commit()
    run(f"insert into shoal.{name} values (100001, 1, 1.5, 'late', 8)")
    run(f"delete from shoal.{name} where id < 10")
    df = same(run, name)
    assert len(df[df.grade == 7]) == ROWS - 10
    assert len(shoal.read_table(name, filters="grade = 7").compute()) == ROWS - 10
    assert sorted(df[df.grade > 7].id.compute()) == [100001]
    assert df.grade.sum().compute() == 7 * (ROWS - 10) + 8


def test_a_table_of_version_3_is_not_written_and_the_error_says_how(
    name: str, spark: Any, run: Sql, data_files: Any
) -> None:
    make(run, name, version=3)
    before = data_files(name)
    more = pa.table(
        {"id": pa.array([1], pa.int32()), "part": pa.array([1], pa.int32()), "v": [1.0], "s": ["x"]}
    )
    for how in ({}, {"mode": "overwrite"}, {"mode": "upsert", "keys": "id"}, {"evolve": True}):
        with pytest.raises(errors.NotSupportedError, match="format version 3") as caught:
            shoal.write_table(more, name, **how)
    acts: list[Callable[[], object]] = [
        lambda: shoal.tag(name, "t"),
        lambda: shoal.branch(name, "b"),
        lambda: shoal.drop_branch(name, "b"),
        lambda: shoal.compact(name),
        lambda: shoal.rewrite_manifests(name),
        lambda: shoal.expire_snapshots(name, older_than="0s"),
    ]
    folder = Path(catalogs.load(name).metadata_location.removeprefix("file:")).parent
    metadata = set(folder.iterdir())
    for act in acts:
        with pytest.raises(errors.NotSupportedError, match=r"format version 3[\s\S]*On Spark: (CALL|ALTER)"):
            act()
    assert data_files(name) == before
    assert set(folder.iterdir()) == metadata, "not even an empty file is left"
    with shoal.staged(more) as staged:
        statement = str(caught.value).split("and there ")[1].rstrip(".").replace("<t>", staged)
        assert statement.startswith(f"INSERT INTO shoal.{name} SELECT * FROM")
        spark.sql(statement).collect()
    assert len(same_length(run, name)) == ROWS + 1


def same_length(run: Sql, name: str) -> Any:
    df = shoal.read_table(name)
    assert len(df) == run(f"select count(*) n from shoal.{name}")[0]["n"]
    return df


def delete_equal(java: Any, name: str, column: str, values: list[int], partition: int | None = None) -> None:
    """An equality delete, as a streaming engine commits it, by Iceberg's own writer."""
    table, gateway = java(name)
    jvm = gateway.jvm
    fields = jvm.java.util.ArrayList()
    fields.add(column)
    schema = table.schema().select(fields)
    ids = gateway.new_array(jvm.int, 1)
    ids[0] = schema.findField(column).fieldId()
    parquet = jvm.org.apache.iceberg.FileFormat.PARQUET
    factory = jvm.org.apache.iceberg.data.GenericAppenderFactory(
        table.schema(), table.spec(), ids, schema, None
    )
    outputs = jvm.org.apache.iceberg.io.OutputFileFactory.builderFor(table, 1, 1).format(parquet).build()
    where = None
    if partition is not None:
        where = jvm.org.apache.iceberg.PartitionData(table.spec().partitionType())
        where.set(0, partition)
    output = outputs.newOutputFile(where) if where is not None else outputs.newOutputFile()
    writer = factory.newEqDeleteWriter(output, parquet, where)
    record = jvm.org.apache.iceberg.data.GenericRecord.create(schema)
    for value in values:
        record.setField(column, value)
        writer.write(record.copy())
    writer.close()
    table.newRowDelta().addDeletes(writer.toDeleteFile()).commit()


@pytest.mark.parametrize(("version", "partitioned"), [(2, True), (3, False)])
def test_equality_deletes_are_refused_and_the_error_says_how_to_apply_them(
    version: int, partitioned: bool, name: str, run: Sql, java: Any, spark: Any
) -> None:
    make(run, name, version=version, partitioned=partitioned)
    before = catalogs.load(name).current_snapshot().snapshot_id  # type: ignore[union-attr] # there is one
    delete_equal(java, name, "id", [4, 8, 15_000], partition=0 if partitioned else None)
    expected = ROWS - 3
    assert run(f"select count(*) n from shoal.{name}")[0]["n"] == expected, "to Spark they are gone"

    # At the call itself: there is no frame of which a task could run.
    with pytest.raises(errors.NotSupportedError, match=f"{name} has 3 equality deletes") as caught:
        shoal.read_table(name)
    assert len(shoal.read_table(name, snapshot=before)) == ROWS, "the past is there"
    table = catalogs.load(name)
    with pytest.raises(errors.NotSupportedError, match="has equality deletes"):
        files_of(DataScan(table.metadata, table.io))  # also of a table whose summaries do not count
    if version == 2:
        row = pa.table(
            {"id": pa.array([4], pa.int32()), "part": pa.array([0], pa.int32()), "v": [1.0], "s": ["x"]}
        )
        files = {*live_paths(name)}
        for how in (
            {"mode": "overwrite"},
            {"mode": "overwrite_partitions"},
            {"mode": "upsert", "keys": "id"},
        ):
            with pytest.raises(errors.NotSupportedError, match="equality deletes"):
                shoal.write_table(row, name, **how)
        assert {*live_paths(name)} == files, "nothing is left of what was refused"
        # Adding is safe: a delete concerns rows that were there before it.
        shoal.write_table(row, name)
        expected += 1
        assert run(f"select count(*) n from shoal.{name}")[0]["n"] == expected

    statement = "CALL" + str(caught.value).split("CALL")[1]
    spark.sql(statement).collect()
    df = shoal.read_table(name)
    assert len(df) == len(df.compute()) == expected
    assert (
        len(df[df.id < 100].compute()) == run(f"select count(*) n from shoal.{name} where id < 100")[0]["n"]
    )
    assert run(f"select count(*) n from shoal.{name}")[0]["n"] == expected
    assert {4, 8, 15_000} & set(df[df.s != "x"].id.compute()) == set()
    run(f"insert into shoal.{name} values (99999, null, 1.0, 'n')")
    either = shoal.read_table(name, filters="part < 0 or id = 99999")
    assert list(either.id.compute()) == [99999], "filters mean the same beside deletes that are done"


def live_paths(name: str) -> list[Path]:
    location = catalogs.load(name).location().removeprefix("file://").removeprefix("file:")
    return [*Path(location).rglob("*.parquet")]
