"""Random sequences of operations by two writers, Dask and Spark, against a plain dictionary."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shoal

pytestmark = pytest.mark.spark

IDS = st.sets(st.integers(0, 30), min_size=1, max_size=8).map(sorted)
OPERATIONS = st.one_of(
    st.tuples(st.just("dask append"), IDS),
    st.tuples(st.just("dask upsert"), IDS),
    st.tuples(st.just("dask overwrite"), IDS),
    st.tuples(st.just("dask overwrite_partitions"), IDS),
    st.tuples(st.just("spark insert"), IDS),
    st.tuples(st.just("spark delete"), IDS),
    st.tuples(st.just("spark update"), IDS),
    st.tuples(st.just("spark merge"), IDS),
    st.tuples(st.just("rollback"), st.integers(1, 2)),
)
EXAMPLES = int(os.environ.get("SHOAL_SOAK", "10"))
_count = itertools.count()


class Model:
    """The table as it should be: rows as (id, part, value), any number of each id."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, str]] = []
        self.past: list[list[tuple[int, int, str]]] = []

    def become(self, rows: list[tuple[int, int, str]]) -> None:
        self.past.append(self.rows)
        self.rows = rows


def fresh(ids: list[int], value: str) -> list[tuple[int, int, str]]:
    return [(i, i % 3, value) for i in ids]


def arrow(rows: list[tuple[int, int, str]]) -> pa.Table:
    names = ["id", "part", "value"]
    schema = pa.schema([("id", pa.int64()), ("part", pa.int64()), ("value", pa.string())])
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=schema)


def apply(model: Model, name: str, spark: Any, operation: str, argument: Any, value: str) -> None:
    """Do it to the table and to the model; what would not be sensible is left out of both."""
    who, what = operation.split() if " " in operation else ("", operation)
    if what == "rollback":
        steps = shoal.history(name)
        live = steps[steps.is_current_ancestor].snapshot_id.drop_duplicates(keep="last").tolist()
        if len(live) <= argument or len(live) != len(model.past) + 1:
            return
        shoal.rollback(name, int(live[-1 - argument]))
        model.rows = model.past[-argument]
        del model.past[-argument:]
        return
    new, chosen = fresh(argument, value), set(argument)
    unique = len({row[0] for row in model.rows}) == len(model.rows)
    others = [row for row in model.rows if row[0] not in chosen]
    if who == "dask":
        if what == "upsert":
            shoal.write_table(arrow(new), name, mode="upsert", keys="id")
            model.become(others + new)
        else:
            shoal.write_table(arrow(new), name, mode=what)  # type: ignore[arg-type] # one of the modes
            parts = {row[1] for row in new}
            kept = {
                "append": model.rows,
                "overwrite": [],
                "overwrite_partitions": [row for row in model.rows if row[1] not in parts],
            }
            model.become(kept[what] + new)
        return
    listed = ", ".join(map(str, argument))
    if what in ("delete", "update") and len(others) == len(model.rows):
        return  # a command that finds nothing makes no snapshot
    if what == "delete":
        spark.sql(f"delete from shoal.{name} where id in ({listed})").collect()
        model.become(others)
    elif what == "update":
        spark.sql(f"update shoal.{name} set value = '{value}' where id in ({listed})").collect()
        model.become(others + [(i, p, value) for i, p, _ in model.rows if i in chosen])
    else:
        spark.createDataFrame(arrow(new)).createOrReplaceTempView("incoming")
        if what == "insert":
            spark.sql(f"insert into shoal.{name} select * from incoming").collect()
            model.become(model.rows + new)
        elif unique:
            spark.sql(
                f"merge into shoal.{name} t using incoming s on t.id = s.id "
                "when matched then update set * when not matched then insert *"
            ).collect()
            model.become(others + new)


@pytest.mark.parametrize("layout", ["copy-on-write", "merge-on-read"])
@settings(
    max_examples=max(3, EXAMPLES // 3),
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(operations=st.lists(OPERATIONS, min_size=2, max_size=7))
def test_two_writers(layout: str, operations: list[tuple[str, Any]], spark: Any) -> None:
    name = f"model.t{next(_count)}"
    modes = {f"write.{command}.mode": layout for command in ("delete", "update", "merge")}
    shoal.create_table(name, arrow([]).schema, partition_by="part", properties=modes)
    model = Model()
    # The empty state before the first write is no snapshot, so no rollback leads there.
    shoal.write_table(arrow(fresh([0], "start")), name)
    model.rows = fresh([0], "start")
    for step, (operation, argument) in enumerate(operations):
        apply(model, name, spark, operation, argument, f"v{step}")
        df = shoal.read_table(name)
        found = df.compute()
        assert sorted(zip(found.id, found.part, found.value, strict=True)) == sorted(model.rows), operation
        assert len(df) == len(model.rows)
    seen = spark.sql(f"select id, part, value from shoal.{name}").toArrow().to_pylist()
    assert sorted(tuple(row.values()) for row in seen) == sorted(model.rows)
