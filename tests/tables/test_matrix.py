"""Who writes x who reads x what is done: every reader sees what a plain Python model says, type by type."""

from __future__ import annotations

import datetime as dt
import uuid
import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import shoal
from shoal.tables.catalogs import opening as catalogs

pytestmark = pytest.mark.spark

TYPES = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("part", pa.string()),
        pa.field("small", pa.int32()),
        pa.field("yes", pa.bool_()),
        pa.field("single", pa.float32()),
        pa.field("double", pa.float64()),
        pa.field("money", pa.decimal128(20, 4)),
        pa.field("raw", pa.binary()),
        pa.field("day", pa.date32()),
        pa.field("local", pa.timestamp("us")),
        pa.field("instant", pa.timestamp("us", tz="UTC")),
        pa.field("many", pa.list_(pa.int64())),
        pa.field("inner", pa.struct([pa.field("x", pa.int64()), pa.field("y", pa.string())])),
        pa.field("named", pa.map_(pa.string(), pa.float64())),
    ]
)
Row = dict[str, Any]
Model = dict[int, Row]


def row(i: int, **changed: Any) -> Row:
    """A row whose every column but ``id`` and ``part`` is null now and then."""
    values: Row = {
        "small": i * 3 - 5,
        "yes": i % 2 == 0,
        "single": i / 4,
        "double": i / 3,
        "money": Decimal(i * 12345) / 10000,
        "raw": bytes([i % 256, 0, 255]),
        "day": dt.date(1969, 12, 30) + dt.timedelta(days=i),
        "local": dt.datetime(1969, 12, 31, 23, 59, 59, 999999) + dt.timedelta(hours=i),
        "instant": dt.datetime(2026, 3, 29, tzinfo=dt.UTC) + dt.timedelta(hours=i),
        "many": [i, None, i + 1] if i % 3 else [],
        "inner": {"x": i, "y": None if i % 2 else "é"},
        "named": {"a": i / 2, "b": None},
    }
    values = {k: None if (i + n) % 7 == 0 else v for n, (k, v) in enumerate(values.items())}
    return {"id": i, "part": "abc"[i % 3], **values, **changed}


def rows(ids: Any, **changed: Any) -> Model:
    return {i: row(i, **changed) for i in ids}


def arrow(model: Model, schema: pa.Schema = TYPES) -> pa.Table:
    return pa.Table.from_pylist(list(model.values()), schema=schema)


# ---- readers: each gives plain rows


def plain(value: Any) -> Any:
    match value:
        case list() if value and all(isinstance(v, tuple) and len(v) == 2 for v in value):
            return dict(value)
        case list():
            return [plain(v) for v in value]
        case dt.datetime() if value.tzinfo is not None:
            return value.astimezone(dt.UTC)
    return value


def by_dask(name: str, branch: str | None, _: Any) -> list[Row]:
    frame = shoal.read_table(name, branch=branch, partition_size=600).compute()
    return pa.Table.from_pandas(frame, preserve_index=False).to_pylist()


def by_pyiceberg(name: str, branch: str | None, _: Any) -> list[Row]:
    scan = catalogs.load(name).scan()
    return (scan.use_ref(branch) if branch else scan).to_arrow().to_pylist()


def by_spark(name: str, branch: str | None, spark: Any) -> list[Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PySpark's own, of its conversion
        at = f" version as of '{branch}'" if branch else ""
        return spark.sql(f"select * from shoal.{name}{at}").toArrow().to_pylist()


def check(name: str, expected: Model, spark: Any, branch: str | None = None) -> None:
    for read in (by_dask, by_pyiceberg, by_spark):
        found = {r["id"]: {k: plain(v) for k, v in r.items()} for r in read(name, branch, spark)}
        assert found == expected, read.__name__
    assert len(shoal.read_table(name, branch=branch)) == len(expected)


# ---- writers: (writer, operation) -> what it does to the table

Do = Callable[[str, Any], Any]


def staged(spark: Any, model: Model) -> str:
    spark.createDataFrame(arrow(model)).createOrReplaceTempView("staged")
    return "staged"


def spark_sql(statement: str, model: Model | None = None) -> Do:
    def do(name: str, spark: Any) -> None:
        if model is not None:
            staged(spark, model)
        spark.sql(statement.format(t=f"shoal.{name}")).collect()

    return do


def pyiceberg(action: Callable[[Any], Any]) -> Do:
    return lambda name, _: action(catalogs.load(name))


def dask(model: Model, mode: Any = "append", **how: Any) -> Do:
    return lambda name, _: shoal.write_table(arrow(model), name, mode=mode, **how)


BASE = rows(range(12))
MORE = rows(range(12, 20))
NEW_B = {i: row(i, part="b", small=-1) for i in (1, 40, 43)}
CHANGED = {i: row(i, small=999) for i in (3, 4, 50)}
NO_B = {i: r for i, r in BASE.items() if r["part"] != "b"}
UPDATED = {i: {**r, "small": 7} if i < 5 else r for i, r in BASE.items()}
SET_ALL = "update set *"
MERGE = (
    f"merge into {{t}} t using staged s on t.id = s.id "
    f"when matched then {SET_ALL} when not matched then insert *"
)

CASES: dict[str, tuple[Do, Model]] = {
    "append by dask": (dask(MORE), BASE | MORE),
    "append by pyiceberg": (pyiceberg(lambda t: t.append(arrow(MORE))), BASE | MORE),
    "append by spark": (spark_sql("insert into {t} select * from staged", MORE), BASE | MORE),
    "overwrite by dask": (dask(MORE, "overwrite"), MORE),
    "overwrite by pyiceberg": (pyiceberg(lambda t: t.overwrite(arrow(MORE))), MORE),
    "overwrite by spark": (
        lambda name, spark: spark.createDataFrame(arrow(MORE)).writeTo(f"shoal.{name}").overwrite(_true()),
        MORE,
    ),
    "overwrite partitions by dask": (dask(NEW_B, "overwrite_partitions"), NO_B | NEW_B),
    "overwrite partitions by pyiceberg": (
        pyiceberg(lambda t: t.dynamic_partition_overwrite(arrow(NEW_B))),
        NO_B | NEW_B,
    ),
    "overwrite partitions by spark": (
        lambda name, spark: (
            spark.createDataFrame(arrow(NEW_B)).writeTo(f"shoal.{name}").overwritePartitions()
        ),
        NO_B | NEW_B,
    ),
    "delete by pyiceberg": (
        pyiceberg(lambda t: t.delete("id >= 3 and id < 8")),
        {i: r for i, r in BASE.items() if not 3 <= i < 8},
    ),
    "delete by spark": (
        spark_sql("delete from {t} where id >= 3 and id < 8"),
        {i: r for i, r in BASE.items() if not 3 <= i < 8},
    ),
    "update by spark": (spark_sql("update {t} set small = 7 where id < 5"), UPDATED),
    "update by dask": (dask({i: UPDATED[i] for i in range(5)}, "upsert", keys="id"), UPDATED),
    "merge by dask": (dask(CHANGED, "upsert", keys=["id"]), BASE | CHANGED),
    "merge by spark": (spark_sql(MERGE, CHANGED), BASE | CHANGED),
    "rename by spark": (
        spark_sql("alter table {t} rename column small to little"),
        {i: {("little" if k == "small" else k): v for k, v in r.items()} for i, r in BASE.items()},
    ),
    "rename by pyiceberg": (
        pyiceberg(lambda t: t.update_schema().rename_column("inner.y", "z").commit()),
        {
            i: {**r, "inner": r["inner"] and {"x": r["inner"]["x"], "z": r["inner"]["y"]}}
            for i, r in BASE.items()
        },
    ),
    "widen by spark": (spark_sql("alter table {t} alter column small type bigint"), BASE),
    "widen by dask": (
        lambda name, _: shoal.write_table(
            arrow(rows([12], small=2**40), TYPES.set(2, pa.field("small", pa.int64()))), name, evolve=True
        ),
        BASE | rows([12], small=2**40),
    ),
    "add by dask": (
        lambda name, _: shoal.write_table(arrow(MORE).append_column("extra", [["x"] * 8]), name, evolve=True),
        {i: {**r, "extra": "x" if i in MORE else None} for i, r in (BASE | MORE).items()},
    ),
    "drop by spark": (
        spark_sql("alter table {t} drop column money"),
        {i: {k: v for k, v in r.items() if k != "money"} for i, r in BASE.items()},
    ),
}


def _true() -> Any:
    from pyspark.sql.connect.functions import lit

    return lit(True)


MERGE_ON_READ = ("delete by spark", "update by spark", "merge by spark")
PARAMS = [(case, "copy-on-write") for case in CASES] + [(case, "merge-on-read") for case in MERGE_ON_READ]


@pytest.mark.parametrize(("case", "layout"), PARAMS)
def test_matrix(case: str, layout: str, name: str, spark: Any) -> None:
    modes = {f"write.{command}.mode": layout for command in ("delete", "update", "merge")}
    shoal.create_table(name, TYPES, partition_by="part", properties=modes)
    shoal.write_table(arrow(BASE), name)
    do, expected = CASES[case]
    do(name, spark)
    check(name, expected, spark)
    if layout == "merge-on-read":
        tasks = list(catalogs.load(name).scan().plan_files())
        assert any(task.delete_files for task in tasks), "there are deletes to apply"
        # Rewriting a file that has deletes must not bring the deleted rows back.
        again = {i: {**expected[i], "small": 5} for i in list(expected)[:4]}
        shoal.write_table(arrow(again), name, mode="upsert", keys="id")
        check(name, expected | again, spark)


WRITERS = {"dask": "append by dask", "pyiceberg": "append by pyiceberg", "spark": "append by spark"}


@pytest.mark.parametrize("changer", ["spark", "pyiceberg"])
@pytest.mark.parametrize("writer", WRITERS)
def test_partition_change(writer: str, changer: str, name: str, spark: Any) -> None:
    shoal.create_table(name, TYPES, partition_by="part")
    shoal.write_table(arrow(BASE), name)
    if changer == "spark":
        spark.sql(f"alter table shoal.{name} replace partition field part with bucket(4, id)").collect()
    else:
        with catalogs.load(name).update_spec() as update:
            update.remove_field("part")
            update.add_field("id", "bucket[4]", "id_bucket")
    CASES[WRITERS[writer]][0](name, spark)
    check(name, BASE | MORE, spark)
    assert {i["id"] for i in shoal.read_table(name, filters="id = 15").compute().to_dict("records")} == {15}
    found = spark.sql(f"select id from shoal.{name} where id = 15").toArrow().to_pylist()
    assert found == [{"id": 15}], "bucket pruning agrees"
    changed = {i: {**r, "small": 1} for i, r in (BASE | MORE).items() if i % 5 == 0}
    shoal.write_table(arrow(changed), name, mode="upsert", keys="id")
    check(name, BASE | MORE | changed, spark)


@pytest.mark.parametrize("writer", WRITERS)
def test_branch(writer: str, name: str, spark: Any) -> None:
    shoal.write_table(arrow(BASE), name)
    shoal.branch(name, "wip")
    if writer == "dask":
        shoal.write_table(arrow(MORE), name, branch="wip")
    elif writer == "pyiceberg":
        catalogs.load(name).append(arrow(MORE), branch="wip")
    else:
        staged(spark, MORE)
        spark.sql(f"insert into shoal.{name}.branch_wip select * from staged").collect()
    check(name, BASE, spark)
    check(name, BASE | MORE, spark, branch="wip")


def test_uuid(name: str, spark: Any) -> None:
    """Spark and pandas have no UUIDs and read them as text; PyIceberg keeps them."""
    values = [uuid.UUID(int=i) for i in range(3)] + [None]
    bytes_ = pa.array([v and v.bytes for v in values], pa.binary(16))
    table = pa.table({"u": pa.ExtensionArray.from_storage(pa.uuid(), bytes_)})
    shoal.write_table(table, name)
    assert catalogs.load(name).scan().to_arrow().column("u").to_pylist() == values
    read = [None if pd.isna(u) else u for u in shoal.read_table(name).compute().u]
    assert sorted(map(str, read)) == sorted(map(str, table["u"].to_pylist()))
    found = spark.sql(f"select u from shoal.{name}").toArrow().to_pylist()
    assert sorted(map(str, (r["u"] for r in found))) == sorted(map(str, values))
