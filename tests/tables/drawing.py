"""Small tables and filters drawn from a seed, with the values that tell engines apart.

A table is a list of files, each by a writer of its own and of few values per column, so that bounds, counts of
nulls and NaN, and partitions decide about some filters and not about others. A filter is a tree that is rendered
as text, as PyIceberg's expression, as Spark's SQL and as an expression on a frame.
"""

from __future__ import annotations

import datetime as dt
import math
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
from pyiceberg import expressions as ex

NAN, INF = float("nan"), float("inf")
UTC = dt.UTC
_new: Any = ex


@dataclass(frozen=True)
class Kind:
    """A column: its type in Arrow and in Spark, the values that are in it, and those that it is compared with."""

    arrow: pa.DataType
    spark: str
    values: tuple[Any, ...]
    others: tuple[Any, ...] = ()
    """Compared with, but never in it."""
    partitions: tuple[str, ...] = ()


def _f32(value: float) -> float:
    return float(pa.scalar(value, pa.float32()).as_py())


KINDS: dict[str, Kind] = {
    "i": Kind(
        pa.int32(),
        "int",
        (-(2**31), -3, -1, 0, 1, 2, 7, 2**31 - 1),
        (3, 3_000_000_000, Decimal("0.5")),
        ("i", "bucket(4, i)", "truncate(3, i)"),
    ),
    "l": Kind(
        pa.int64(),
        "bigint",
        (-(2**63), -5, 0, 1, 2, 2**53 + 1, 2**63 - 1),
        (3, Decimal("1.5")),
        ("l", "bucket(3, l)", "truncate(10, l)"),
    ),
    "f": Kind(
        pa.float32(),
        "float",
        (NAN, -0.0, 0.0, _f32(0.1), 1.5, -1.5, INF, -INF, 16777216.0, _f32(3.4e38)),
        (0.1, 1, 16777217, 2.5),
        ("f",),
    ),
    "d": Kind(
        pa.float64(),
        "double",
        (NAN, -0.0, 0.0, 0.1, 1.5, -1.5, INF, -INF, 5e-324, 1e300),
        (1, 0.3, -7),
        ("d",),
    ),
    "m": Kind(
        pa.decimal128(9, 2),
        "decimal(9,2)",
        (Decimal("-1.00"), Decimal("0.00"), Decimal("1.01"), Decimal("9999999.99")),
        (Decimal("1.005"), Decimal("1.0"), 2),
        ("m", "bucket(2, m)", "truncate(50, m)"),
    ),
    "s": Kind(
        pa.large_string(),
        "string",
        ("", "a", "ab", "b", "a" * 16, "a" * 16 + "b", "z" * 20, "\ud7ff" * 17, "\U0010ffff" * 17, "é"),
        ("aa", "a" * 17, "zz"),
        ("s", "bucket(4, s)", "truncate(2, s)"),
    ),
    "b": Kind(pa.bool_(), "boolean", (True, False), (), ("b",)),
    "t": Kind(
        pa.date32(),
        "date",
        tuple(dt.date(*d) for d in ((1900, 3, 1), (1969, 12, 31), (1970, 1, 1), (2026, 1, 1), (2026, 1, 2))),
        (dt.date(2025, 12, 31),),
        ("t", "day(t)", "month(t)", "year(t)", "bucket(2, t)"),
    ),
    "n": Kind(
        pa.timestamp("us"),
        "timestamp_ntz",
        tuple(
            dt.datetime(*d)
            for d in (
                (1969, 12, 31, 23, 59, 59, 999999),
                (1970, 1, 1),
                (2026, 1, 1),
                (2026, 1, 1, 12, 0, 0, 1),
            )
        ),
        (dt.datetime(2026, 1, 1, 6),),
        ("n", "day(n)", "hour(n)", "month(n)"),
    ),
    "z": Kind(
        pa.timestamp("us", tz="UTC"),
        "timestamp",
        tuple(
            dt.datetime(*d, tzinfo=UTC)
            for d in ((1969, 12, 31, 23, 59, 59, 999999), (1970, 1, 1), (2026, 1, 1))
        ),
        (dt.datetime(2026, 1, 1, 6, tzinfo=UTC),),
        ("z", "day(z)", "year(z)"),
    ),
    "y": Kind(
        pa.large_binary(),
        "binary",
        (b"", b"\x00", b"\x7f", b"\x80", b"ab", b"a" * 16, b"a" * 16 + b"\x00", b"\xff" * 16, b"\xff" * 17),
        (b"a", b"a" * 17, b"\xff", b"\x00\x00"),
        ("y", "bucket(2, y)"),
    ),
    "st": Kind(
        pa.struct([("a", pa.int32()), ("d", pa.float64())]),
        "struct<a:int,d:double>",
        ({"a": 1, "d": 1.5}, {"a": 2, "d": NAN}, {"a": None, "d": None}, {"a": 7, "d": -0.0}),
    ),
}
FIELDS: dict[str, Kind] = {"st.a": KINDS["i"], "st.d": KINDS["d"]}
COMPARED = [*(k for k in KINDS if k != "st"), *FIELDS]
"""What filters compare: columns, and fields of the struct."""
METRICS = ("truncate(16)", "truncate(2)", "full", "counts", "none")


@dataclass(frozen=True)
class Drawn:
    """A table as drawn: its files' rows, and who writes each."""

    seed: int
    columns: tuple[str, ...]
    files: tuple[tuple[str, pa.Table], ...]
    partition_by: tuple[str, ...]
    metrics: str
    group: int
    """Rows of a row group at most, in files of the writers that look at this property."""

    def __str__(self) -> str:
        shown = "\n".join(f"  {writer}: {data.to_pylist()}" for writer, data in self.files)
        return f"seed {self.seed}, partitions {list(self.partition_by)}, metrics {self.metrics}\n{shown}"

    @property
    def properties(self) -> dict[str, str]:
        return {
            "write.metadata.metrics.default": self.metrics,
            "write.parquet.row-group-limit": str(self.group),
        }


def draw_table(seed: int, writers: Sequence[str]) -> Drawn:
    """One to three files of up to eight rows, each column of few values and perhaps of nulls."""
    dice = random.Random(seed)
    columns = tuple(dice.sample(list(KINDS), 4))
    able = [c for c in columns if KINDS[c].partitions]
    partition_by = tuple(
        dice.choice(KINDS[c].partitions) for c in dice.sample(able, min(len(able), dice.choice((0, 0, 1, 2))))
    )
    files = []
    for _ in range(dice.choice((1, 2, 3))):
        count = dice.choice((1, 2, 3, 5, 8))
        data = {}
        for c in columns:
            few = dice.sample(KINDS[c].values, min(len(KINDS[c].values), dice.choice((1, 1, 2, 3))))
            pool = [*few, *([None] if dice.random() < 0.4 else [])]
            data[c] = pa.array([dice.choice(pool) for _ in range(count)], KINDS[c].arrow, from_pandas=False)
        files.append((dice.choice(writers), pa.table(data)))
    return Drawn(seed, columns, tuple(files), partition_by, dice.choice(METRICS), dice.choice((2, 1000)))


# ---- filters


@dataclass(frozen=True)
class Atom:
    """A comparison of a column: ``op`` is ``=``, ``!=``, ``<``, ..., ``in``, ``not in``, ``null``, ``not null``,
    ``nan``, ``not nan``, ``like``, ``not like``."""

    column: str
    op: str
    value: Any = None


@dataclass(frozen=True)
class Tree:
    """``and``, ``or`` or ``not`` of one or two."""

    op: str
    parts: tuple[Any, ...]


def draw_filter(dice: random.Random, columns: Sequence[str], *, frame: bool = False, depth: int = 3) -> Any:
    """``frame``: for an expression on a frame, which has no fields of structs, no ``like`` and no ``is nan``; bytes are
    objects there, which nothing but nulls is asked of.
    """
    if depth and dice.random() < 0.5:
        op = dice.choice(("and", "or", "not"))
        parts = tuple(
            draw_filter(dice, columns, frame=frame, depth=depth - 1) for _ in range(1 if op == "not" else 2)
        )
        return Tree(op, parts)
    names = [c for c in COMPARED if c.split(".")[0] in columns and not (frame and ("." in c or c == "y"))]
    if not names or dice.random() < 0.1:
        whole = [
            c for c in (*columns, *FIELDS) if c.split(".")[0] in columns and not (frame and c[:2] == "st")
        ]
        whole = whole or ["id"]
        return Atom(dice.choice(whole), dice.choice(("null", "not null")))
    column = dice.choice(names)
    kind = KINDS.get(column) or FIELDS[column]
    ops = ["=", "!=", "<", "<=", ">", ">=", "in", "not in"]
    ops += ["nan", "not nan"] if column in ("f", "d", "st.d") and not frame else []
    ops += ["like", "not like"] if column == "s" and not frame else []
    op = dice.choice(ops)
    values = [v for v in (*kind.values, *kind.others) if v == v]
    if frame:
        values = [v for v in values if column not in ("i", "l") or not isinstance(v, Decimal)]
    if op in ("in", "not in"):
        kinds = [v for v in values if type(v) is type(kind.values[-1])]
        return Atom(column, op, tuple(dice.sample(kinds, min(len(kinds), dice.choice((1, 2, 3))))))
    if op in ("like", "not like"):
        return Atom(column, op, dice.choice(("", "a", "a" * 16, "\ud7ff")))
    return Atom(column, op, dice.choice(values) if op not in ("nan", "not nan") else None)


def can_be_text(tree: Any) -> bool:
    """Whether all values can be written in a text filter."""
    if isinstance(tree, Tree):
        return all(can_be_text(p) for p in tree.parts)
    values = tree.value if isinstance(tree.value, tuple) else (tree.value,)
    return all(
        (not isinstance(v, float) or (math.isfinite(v) and (v == 0 or 1e-5 < abs(v) < 1e9)))
        and not isinstance(v, bytes)  # for which text has no spelling
        for v in values
    )


def _text_value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() | dt.time() | uuid.UUID():
            return f"'{value}'"
        case dt.datetime():
            return f"'{value.isoformat(timespec='microseconds')}'"
        case dt.date():
            return f"'{value.isoformat()}'"
        case float():
            return f"{Decimal(repr(value)):f}"
    return str(value)


def as_text(tree: Any) -> str:
    """The filter as Shoal's text."""
    if isinstance(tree, Tree):
        inner = [f"({as_text(p)})" for p in tree.parts]
        return f"not {inner[0]}" if tree.op == "not" else f" {tree.op} ".join(inner)
    match tree.op:
        case "in" | "not in":
            return f"{tree.column} {tree.op} ({', '.join(_text_value(v) for v in tree.value)})"
        case "null" | "not null" | "nan" | "not nan":
            return f"{tree.column} is {tree.op}"
        case "like" | "not like":
            return f"{tree.column} {tree.op} '{tree.value}%'"
    return f"{tree.column} {tree.op} {_text_value(tree.value)}"


_CLASSES = {
    "=": "EqualTo",
    "!=": "NotEqualTo",
    "<": "LessThan",
    "<=": "LessThanOrEqual",
    ">": "GreaterThan",
    ">=": "GreaterThanOrEqual",
    "in": "In",
    "not in": "NotIn",
    "null": "IsNull",
    "not null": "NotNull",
    "nan": "IsNaN",
    "not nan": "NotNaN",
    "like": "StartsWith",
    "not like": "NotStartsWith",
}


def as_iceberg(tree: Any) -> Any:
    """The filter as PyIceberg's expression."""
    if isinstance(tree, Tree):
        parts = [as_iceberg(p) for p in tree.parts]
        return {"and": ex.And, "or": ex.Or, "not": ex.Not}[tree.op](*parts)
    made = getattr(_new, _CLASSES[tree.op])
    return made(tree.column) if tree.value is None else made(tree.column, tree.value)


def sql_value(value: Any, kind: str = "") -> str:
    """A value in Spark's SQL."""
    match value:
        case None:
            return f"CAST(NULL AS {kind})" if kind else "NULL"
        case bool():
            return str(value).lower()
        case str():
            return f"'{value}'"
        case bytes():
            return f"X'{value.hex()}'"
        case dt.datetime():
            zone = "" if value.tzinfo is None else " UTC"
            name = "TIMESTAMP_NTZ" if value.tzinfo is None else "TIMESTAMP"
            return f"{name}'{value.replace(tzinfo=None).isoformat(' ', 'microseconds')}{zone}'"
        case dt.date():
            return f"DATE'{value.isoformat()}'"
        case float() if not math.isfinite(value):
            return f"double('{value}')"
        case float():
            return f"{value!r}D"
        case dict():
            inner = (
                f"'{k}', CAST({sql_value(v)} AS {'int' if k == 'a' else 'double'})" for k, v in value.items()
            )
            return f"named_struct({', '.join(inner)})"
    if value == -(2**63):
        return "CAST('-9223372036854775808' AS bigint)"
    return str(value)


def as_sql(tree: Any) -> str:
    """The filter in Spark's SQL."""
    if isinstance(tree, Tree):
        inner = [f"({as_sql(p)})" for p in tree.parts]
        return f"NOT {inner[0]}" if tree.op == "not" else f" {tree.op} ".join(inner)
    match tree.op:
        case "in" | "not in":
            return f"{tree.column} {tree.op} ({', '.join(sql_value(v) for v in tree.value)})"
        case "null" | "not null":
            return f"{tree.column} IS {tree.op}"
        case "nan" | "not nan":
            return f"{tree.op.removesuffix('nan')}isnan({tree.column})"
        case "like" | "not like":
            return f"{tree.op.removesuffix('like')}startswith({tree.column}, '{tree.value}')"
    return f"{tree.column} {tree.op} {sql_value(tree.value)}"


def as_tuples(tree: Any) -> Any:
    """The filter as tuples, or ``None`` where it cannot be: one comparison, or some joined by "and"."""
    if isinstance(tree, Tree):
        parts = [as_tuples(p) for p in tree.parts] if tree.op == "and" else [None]
        return None if None in parts else [atom for part in parts for atom in part]
    match tree.op:
        case "null":
            return [(tree.column, "is", None)]
        case "not null":
            return [(tree.column, "is not", None)]
        case "nan" | "not nan" | "like" | "not like":
            return None
    return [(tree.column, tree.op, list(tree.value) if isinstance(tree.value, tuple) else tree.value)]


def _pandas_value(value: Any) -> Any:
    return pd.Timestamp(value) if isinstance(value, dt.datetime) else value


def on_frame(tree: Any, df: Any) -> Any:
    """The filter as an expression on a frame, pandas' or Dask's."""
    if isinstance(tree, Tree):
        parts = [on_frame(p, df) for p in tree.parts]
        if tree.op == "not":
            return ~parts[0]
        return parts[0] & parts[1] if tree.op == "and" else parts[0] | parts[1]
    column = df[tree.column]
    match tree.op:
        case "null":
            return column.isnull()
        case "not null":
            return column.notnull()
        case "in" | "not in":
            found = column.isin([_pandas_value(v) for v in tree.value])
            return found if tree.op == "in" else ~found
    value = _pandas_value(tree.value)
    return {
        "=": lambda: column == value,
        "!=": lambda: column != value,
        "<": lambda: column < value,
        "<=": lambda: column <= value,
        ">": lambda: column > value,
        ">=": lambda: column >= value,
    }[tree.op]()
