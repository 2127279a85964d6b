"""Filters give the rows that they say, whatever a file's statistics are: NaN, nulls, structs, zeros, partitions.

The property test beside this one draws many; here is each fault that a person met, by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyiceberg import expressions as ex

import shoal
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.reading.filters import as_expression
from shoal.tables.reading.plan import make_plan

NAN = float("nan")
_new: Any = ex


def values(frame: Any, column: str = "x") -> list[Any]:
    """A column's values in order; NaN as text, so that it equals itself."""
    arrow = pa.array(frame[column].compute())
    return ["nan" if isinstance(v, float) and math.isnan(v) else v for v in arrow.to_pylist()]


def kept(name: str, filters: Any, column: str = "x") -> list[Any]:
    return values(shoal.read_table(name, filters=filters), column)


def append_by_pyiceberg(name: str, data: pa.Table) -> None:
    """Rows in a file whose manifest holds no NaN counts: PyIceberg writes none."""
    shoal.create_table(name, data.schema, exist_ok=True)
    catalogs.load(name).append(data)


WRITERS: dict[str, Callable[[str, pa.Table], Any]] = {
    "shoal": lambda name, data: shoal.write_table(data, name),
    "pyiceberg": append_by_pyiceberg,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_nan_passes_no_filter_that_it_should_not(name: str, writer: str) -> None:
    """Once NaN rows passed every filter that all the other rows of their file passed."""
    WRITERS[writer](name, pa.table({"x": [1.0, NAN, 3.0]}))
    df = shoal.read_table(name)
    assert values(df[df.x < 100]) == [1.0, 3.0]
    assert len(df[df.x < 100]) == 2
    assert values(df[df.x >= 1]) == [1.0, 3.0]
    assert values(df[df.x.isin([1.0, 3.0])]) == [1.0, 3.0]
    assert kept(name, "x < 100") == [1.0, 3.0]
    assert kept(name, "x = 1") == [1.0]
    # As in Spark's SQL, NaN is above every number and unequal to all of them.
    assert kept(name, "x > 1") == ["nan", 3.0]
    assert kept(name, "x > 100") == ["nan"]
    assert kept(name, "not (x <= 3)") == ["nan"]
    assert kept(name, "x != 1") == ["nan", 3.0]
    assert kept(name, "x not in (1.0, 3.0)") == ["nan"]
    assert kept(name, "x is nan") == ["nan"]
    assert kept(name, "not (x is nan)") == [1.0, 3.0]


def test_rows_of_one_value_and_nan(name: str) -> None:
    """Where a file's bounds are one value, Arrow too took its NaN rows for that value."""
    shoal.write_table(pa.table({"x": [5.0, NAN, 5.0]}), name)
    assert kept(name, "x != 5") == ["nan"]
    assert kept(name, "x = 5") == [5.0, 5.0]
    assert kept(name, "x not in (5.0, 6.0)") == ["nan"]


def test_a_difference_that_makes_nan(name: str) -> None:
    frame = pd.DataFrame({"v": [1.0, 2.0]})
    shoal.write_table(frame, f"{name}_in")
    read = shoal.read_table(f"{name}_in")
    shoal.write_table(read.assign(z=(read.v - read.v) / (read.v - 1)), name)
    df = shoal.read_table(name)
    assert values(df[df.z < 100], "z") == [0.0]


def _layouts(name: str, data: pa.Table) -> list[str]:
    """The same rows in one file, in a file each, and after they were put together again."""
    one, many, compacted = f"{name}_one", f"{name}_many", f"{name}_compacted"
    shoal.write_table(data, one)
    for target in (many, compacted):
        for i in range(data.num_rows):
            shoal.write_table(data.slice(i, 1), target)
    shoal.write_table(shoal.read_table(compacted), compacted, mode="overwrite")
    return [one, many, compacted]


THREE_VALUED: list[tuple[str, list[Any]]] = [
    ("a != 1", [3]),
    ("a != 7", [1, 3]),
    ("a <> 7", [1, 3]),
    ("a not in (1, 3)", []),
    ("a not in (7, 8)", [1, 3]),
    ("not (a = 7)", [1, 3]),
    ("not (a = 7 or a = 8)", [1, 3]),
    ("not (a in (7, 8))", [1, 3]),
    ("not (a > 7)", [1, 3]),
    ("not (not (a < 7))", [1, 3]),
    ("a < 3000000000000000000000", [1, 3]),
    ("a != 3000000000000000000000", [1, 3]),
    ("a > -3000000000000000000000 and a < 2", [1]),
    ("not (a is null)", [1, 3]),
    ("not (a is null or a = 1)", [3]),
    ("a = 1 or s != 'q'", [1, 3]),
    ("s != 'q'", [1, 3]),
    ("s not in ('p', 'q')", [1, 3]),
    ("not (s like 'q%')", [1, 3]),
    ("s not like 'q%'", [1, 3]),
]


def test_negation_is_three_valued_however_files_lie(name: str) -> None:
    """`a != 7` kept null rows where statistics said that no row is 7, and lost them where they did not."""
    data = pa.table({"a": [1, None, 3], "s": ["x", None, "y"]})
    wrong = []
    for table in _layouts(name, data):
        for text, expected in THREE_VALUED:
            found = sorted(kept(table, text, "a"))
            if found != expected:
                wrong.append((table, text, expected, found))
    assert not wrong


def test_negation_on_partitions(name: str) -> None:
    data = pa.table({"p": ["x", None, "y"], "n": [1, None, 3], "b": [1, 2, 3]})
    shoal.write_table(data, name, partition_by=["p", "bucket(4, n)"])
    assert sorted(kept(name, "p != 'x'", "b")) == [3]
    assert sorted(kept(name, "p != 'q'", "b")) == [1, 3]
    assert sorted(kept(name, "not (p = 'q')", "b")) == [1, 3]
    assert sorted(kept(name, "n not in (7, 8)", "b")) == [1, 3]
    assert sorted(kept(name, "n < 2 or p = 'y'", "b")) == [1, 3], "a null partition can be compared"
    assert sorted(kept(name, "p < 'y' or b = 2", "b")) == [1, 2], "a null partition can be compared"


def test_every_spelling_means_the_same(name: str) -> None:
    shoal.write_table(pa.table({"x": [1.0, None, NAN, 3.0], "i": [1, None, 2, 3]}), name)
    for text, tuples, expression in [
        ("x != 1", [("x", "!=", 1)], _new.NotEqualTo("x", 1)),
        ("x > 1", [("x", ">", 1)], _new.GreaterThan("x", 1)),
        ("x >= 1", [("x", ">=", 1)], _new.Not(_new.LessThan("x", 1))),
        ("x not in (1.0, 7.0)", [("x", "not in", [1.0, 7.0])], _new.NotIn("x", (1.0, 7.0))),
        ("x < 3", [("x", "<", 3)], _new.LessThan("x", 3)),
        ("i != 7", [("i", "!=", 7)], _new.Not(_new.EqualTo("i", 7))),
        ("i not in (7, 8)", [("i", "not in", [7, 8])], _new.NotIn("i", (7, 8))),
    ]:
        expected = kept(name, text)
        assert None not in expected
        assert kept(name, tuples) == expected, text
        assert kept(name, expression) == expected, text


def test_literals_between_two_values_of_a_column(name: str) -> None:
    """A literal was rounded to the column's type: `i = 0.5` found 0, `m = 1.005` found 1.01."""
    shoal.write_table(
        pa.table(
            {
                "i": pa.array([0, 1, 2], pa.int32()),
                "m": pa.array([Decimal("1.00"), Decimal("1.01"), None], pa.decimal128(9, 2)),
                "f": pa.array([0.1, 16777216.0, math.inf], pa.float32()),
            }
        ),
        name,
    )
    assert kept(name, "i = 0.5", "i") == []
    assert kept(name, "i > 0.5", "i") == [1, 2]
    assert kept(name, "m = 1.005", "i") == []
    assert kept(name, "m > 1.005", "i") == [1]
    assert kept(name, "m != 1.005", "i") == [0, 1]
    assert kept(name, "m = 1.0", "i") == [0]
    assert kept(name, "f = 0.1", "i") == [], "0.1 is not 0.1 in 32 bits, as in Spark"
    assert kept(name, "f > 0.1", "i") == [0, 1, 2]
    assert kept(name, [("f", "<", 1e39)], "i") == [0, 1], "an infinity is not below it"
    assert kept(name, "f = 16777217", "i") == [], "nor is a whole number rounded to 32 bits"
    assert kept(name, "f < 16777217", "i") == [0, 1]
    assert kept(name, "f >= 16777217", "i") == [2]


def test_zeros_and_infinities(name: str) -> None:
    shoal.write_table(pa.table({"x": [-0.0, 0.0, math.inf, -math.inf]}), name)
    assert kept(name, "x = 0") == [-0.0, 0.0]
    assert kept(name, "x in (0.0, 1.0)") == [-0.0, 0.0]
    assert kept(name, "x not in (0.0, 1.0)") == [math.inf, -math.inf]
    assert kept(name, "x < 0") == [-math.inf]
    assert kept(name, [("x", ">=", math.inf)]) == [math.inf]


def test_fields_of_structs(name: str) -> None:
    data = pa.table({"s": [{"a": 1}, {"a": None}, None, {"a": 3}], "id": [1, 2, 3, 4]})
    shoal.write_table(data, name)
    assert kept(name, "s.a = 1", "id") == [1]
    assert kept(name, "s.a != 1", "id") == [4]
    assert kept(name, "s.a is null", "id") == [2, 3]
    assert kept(name, "s.a > 0 and id < 4", "id") == [1]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_required_field_is_null_where_its_struct_is(name: str, writer: str) -> None:
    """`is null` found nothing and `is not null` everything: the field by itself is never null."""
    inner = pa.struct([pa.field("c", pa.int64(), nullable=False)])
    outer = pa.struct([pa.field("a", pa.int64(), nullable=False), pa.field("in", inner, nullable=False)])
    rows = [
        {"x": 0, "st": None},
        {"x": 1, "st": {"a": 1, "in": {"c": 1}}},
        {"x": 2, "st": {"a": 2, "in": {"c": 2}}},
    ]
    schema = pa.schema([pa.field("x", pa.int64()), pa.field("st", outer)])
    WRITERS[writer](name, pa.Table.from_pylist(rows, schema=schema))
    for field in ("st.a", "st.in.c"):
        assert kept(name, f"{field} is null") == [0]
        assert kept(name, _new.IsNull(field)) == [0]
        assert kept(name, f"{field} is not null") == [1, 2]
        assert kept(name, f"not ({field} is null)") == [1, 2]
        assert kept(name, f"{field} = 1") == [1]
        assert kept(name, f"{field} != 1") == [2]
        assert kept(name, f"{field} not in (1, 5)") == [2]
        assert kept(name, f"{field} != 7") == [1, 2]
        assert kept(name, f"{field} is null or {field} = 2") == [0, 2]


def test_fields_of_structs_that_spark_wrote(name: str, sql: Callable[[str], Any]) -> None:
    """Spark's manifests hold bounds of nested fields, which PyIceberg's strict evaluator cannot look up."""
    sql(f"CREATE NAMESPACE IF NOT EXISTS shoal.{name.split('.')[0]}")
    sql(f"CREATE TABLE shoal.{name} (id INT, s STRUCT<a: INT, d: DOUBLE>) USING iceberg")
    sql(
        f"INSERT INTO shoal.{name} VALUES (1, named_struct('a', 1, 'd', 1.0D)), "
        "(2, named_struct('a', 2, 'd', double('NaN'))), (3, NULL)"
    )
    assert sorted(kept(name, "s.a = 1", "id")) == [1]
    assert sorted(kept(name, "s.a >= 1", "id")) == [1, 2]
    assert sorted(kept(name, "s.d < 100", "id")) == [1]
    assert sorted(kept(name, "s.a is null", "id")) == [3]


def test_nulls_and_nan_in_structs_that_spark_wrote(name: str, sql: Callable[[str], Any]) -> None:
    """Spark counts a field's nulls and NaN only where its struct is there: files with such rows were passed over."""
    sql(f"CREATE NAMESPACE IF NOT EXISTS shoal.{name.split('.')[0]}")
    sql(f"CREATE TABLE shoal.{name} (id INT, s STRUCT<a: INT, d: DOUBLE>) USING iceberg")
    sql(f"INSERT INTO shoal.{name} VALUES (1, named_struct('a', 1, 'd', double('NaN'))), (2, NULL)")
    assert kept(name, "s.d is null", "id") == [2]
    assert kept(name, "s.a is null", "id") == [2]
    assert kept(name, "s.d is nan", "id") == [1]
    assert kept(name, "s.d is not nan", "id") == [2]
    assert kept(name, "not (s.d is nan) or s.a = 5", "id") == [2]


def proved(name: str, filters: Any) -> list[bool]:
    table = catalogs.load(name)
    expression = as_expression(filters, table.schema(), name)
    plan, _ = make_plan(
        table.metadata,
        table.io,
        schema_id=table.metadata.current_schema_id,
        snapshot_id=table.metadata.current_snapshot_id,
        since=None,
        row_filter=expression,
        partition_size=2**20,
    )
    return [piece.exact for part in plan.partitions for piece in part]


def test_filters_are_dropped_where_proved(name: str) -> None:
    """Dropping is what lets lengths come from metadata and a scan compare nothing."""
    data = pa.table({"i": [1, 2, 3], "n": [1, None, 3], "f": [1.0, 2.0, 3.0], "g": [1.0, NAN, 3.0]})
    shoal.write_table(data, name)
    for text in ("i < 4", "i > 0", "i >= 1", "i != 7", "i not in (7, 8)", "i is not null", "not (i = 7)"):
        assert proved(name, text) == [True], text
    for text in ("f < 4", "f > 0", "f != 7", "f >= 1 and i <= 3", "g > 0 or i < 4"):
        assert proved(name, text) == [True], f"{text}: there are no NaN, and the statistics say so"
    for text in ("n < 4", "n != 7", "g < 4", "i < 3", "i != 2", "i in (1, 2, 3)"):
        assert proved(name, text) == [False], text
    assert len(shoal.read_table(name, filters="f < 4")) == 3
    append_by_pyiceberg(f"{name}_p", data)
    assert proved(f"{name}_p", "i < 4") == [True]
    assert proved(f"{name}_p", "f < 4") == [False], "nobody says how many NaN there are"


def test_nan_counts_are_written(name: str) -> None:
    nested = [{"d": NAN, "e": 1}, {"d": 1.0, "e": 2}, None, {"d": NAN, "e": 3}]
    data = pa.table(
        {
            "f": pa.array([1.0, NAN, None, NAN], pa.float32()),
            "g": [1.0, 2.0, 3.0, None],
            "i": [1, 2, 3, 4],
            "s": nested,
        }
    )
    shoal.write_table(data, name)
    (file,) = [task.file for task in catalogs.load(name).scan().plan_files()]
    schema = catalogs.load(name).schema()
    counts = {schema.find_column_name(i): n for i, n in (file.nan_value_counts or {}).items()}
    assert counts == {"f": 2, "g": 0, "s.d": 2}


def test_a_property_that_leaves_statistics_out_leaves_out_nan_counts(name: str) -> None:
    data = pa.table({"f": [1.0, NAN], "g": [1.0, NAN]})
    shoal.create_table(name, data, properties={"write.metadata.metrics.column.f": "none"})
    shoal.write_table(data, name)
    (file,) = [task.file for task in catalogs.load(name).scan().plan_files()]
    assert list((file.nan_value_counts or {}).values()) == [1]
    assert kept(name, "f < 100", "f") == [1.0]


def test_text_whose_bound_cannot_be_rounded_up(name: str) -> None:
    """The character after U+D7FF is no character; the write failed in the making of its statistics."""
    shoal.write_table(pa.table({"x": ["\ud7ff" * 17, "a"]}), name)
    assert kept(name, "x > 'b'") == ["\ud7ff" * 17]
    assert kept(name, "x < 'b'") == ["a"]


def test_partitions_whose_values_do_not_say_what_they_should(name: str) -> None:
    """Truncating wraps around near the least integer, and 0.1 comes back from a manifest as 0.1 in 32 bits."""
    least = -(2**63)
    shoal.write_table(pa.table({"x": [1, least, None]}), f"{name}_l", partition_by="truncate(10, x)")
    assert kept(f"{name}_l", "x < 1") == [least]
    shoal.write_table(pa.table({"x": [0.0, -0.0, 0.1, NAN, None]}), f"{name}_d", partition_by="x")
    assert kept(f"{name}_d", "x = 0.1") == [0.1]
    assert kept(f"{name}_d", "x not in (0.1, 0.0)") == ["nan"]
    assert sorted(kept(f"{name}_d", "x < 0.1")) == [0.0, 0.0]
    df = shoal.read_table(f"{name}_d")
    assert values(df[df.x == 0.1]) == [0.1]
