"""Filters on the types that Spark or pandas has no name for: drawn, against the values themselves by SQL's logic.

Times of day, UUIDs, bytes of one length, lists and maps, in files by Shoal and PyIceberg, with all statistics, some and
none. ``test_filter_property.py`` has the other types. SHOAL_FILTER_SEED draws others.
"""

from __future__ import annotations

import datetime as dt
import importlib
import operator
import os
import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import shoal
from shoal.tables.catalogs.opening import load
from shoal.tables.reading.filters import as_expression

SEED = int(os.environ.get("SHOAL_FILTER_SEED", "20260101"))
TABLES, FILTERS = 16, 40
# What is compared differs in the first byte, in which signed and unsigned order differ, or in the last.
UUIDS = tuple(uuid.UUID(int=n) for n in (0, 1, 2**127 - 1, 2**127, 2**128 - 1, 0x80 << 56))
VALUES: dict[str, tuple[pa.DataType, tuple[Any, ...], tuple[Any, ...]]] = {
    "c": (
        pa.time64("us"),
        (dt.time(0), dt.time(0, 0, 0, 1), dt.time(9, 30), dt.time(23, 59, 59, 999999)),
        (dt.time(12), dt.time(9, 30, 0, 1)),
    ),
    "u": (pa.uuid(), UUIDS, (uuid.UUID(int=2), uuid.UUID(int=3 << 126))),
    "x": (
        pa.binary(4),
        (b"\x00" * 4, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff" * 4, b"abcd"),
        (b"abce", b"\x00\x00\x00\x01"),
    ),
    "li": (pa.list_(pa.int64()), ([], [1], [None], [1, 2, None]), ()),
    "ma": (pa.map_(pa.large_string(), pa.int64()), ([], [("a", 1)], [("a", None), ("b", 2)]), ()),
}
PARTITIONS = ("x", "bucket(2, x)")  # times of day and UUIDs cannot be partitioned by
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, found: value in found,
    "not in": lambda value, found: value not in found,
}


@pytest.fixture
def checking(monkeypatch: pytest.MonkeyPatch) -> Any:
    """How filters are spelled and asked, as ``test_filter_property.py`` does."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("checking")


def draw(drawing: Any, dice: random.Random, depth: int = 2) -> Any:
    if depth and dice.random() < 0.4:
        op = dice.choice(("and", "or", "not"))
        return drawing.Tree(op, tuple(draw(drawing, dice, depth - 1) for _ in range(1 if op == "not" else 2)))
    column = dice.choice(list(VALUES))
    _, values, others = VALUES[column]
    if column in ("li", "ma") or dice.random() < 0.15:
        return drawing.Atom(column, dice.choice(("null", "not null")))
    op = dice.choice(list(COMPARE))
    if op in ("in", "not in"):
        return drawing.Atom(column, op, tuple(dice.sample((*values, *others), dice.choice((1, 2, 3)))))
    return drawing.Atom(column, op, dice.choice((*values, *others)))


def passes(tree: Any, row: dict[str, Any]) -> bool | None:
    """SQL's answer: None where it is unknown."""
    if hasattr(tree, "parts"):
        told = [passes(part, row) for part in tree.parts]
        if tree.op == "not":
            return None if told[0] is None else not told[0]
        decided = tree.op == "or"
        return decided if decided in told else None if None in told else not decided
    value = row[tree.column]
    if tree.op in ("null", "not null"):
        return (value is None) == (tree.op == "null")
    return None if value is None else bool(COMPARE[tree.op](value, tree.value))


def spelled(drawing: Any, tree: Any, how: str) -> Any:
    """As text, as tuples or as PyIceberg's expression; None where that cannot say it."""
    if how == "text":
        return drawing.as_text(tree) if drawing.can_be_text(tree) else None
    return drawing.as_tuples(tree) if how == "tuples" else drawing.as_iceberg(tree)


def test_drawn_filters_on_every_other_type_give_the_right_rows(
    checking: Any, name: str, record_property: Callable[[str, object], None]
) -> None:
    drawing = checking.drawing
    faults, asked = [], 0
    schema = pa.schema([("id", pa.int64()), *((column, kind) for column, (kind, *_) in VALUES.items())])
    for number in range(TABLES):
        dice = random.Random(SEED + number)
        table, rows = f"{name}{number}", []
        by = dice.choice(((), (), (dice.choice(PARTITIONS),)))
        properties = {
            "write.metadata.metrics.default": dice.choice(drawing.METRICS),
            "write.parquet.row-group-limit": str(dice.choice((2, 1000))),
        }
        shoal.create_table(table, schema, partition_by=list(by), properties=properties)
        for _ in range(dice.choice((1, 2, 3))):
            few = {
                column: [
                    *dice.sample(values, dice.choice((1, 1, 2))),
                    *([None] if dice.random() < 0.4 else []),
                ]
                for column, (_, values, _) in VALUES.items()
            }
            file = [
                {"id": len(rows) + at, **{column: dice.choice(pool) for column, pool in few.items()}}
                for at in range(dice.choice((1, 2, 5)))
            ]
            rows += file
            data = pa.table(
                [
                    pa.array([None if row[f.name] is None else row[f.name].bytes for row in file], pa.uuid())
                    if f.type == pa.uuid()
                    else pa.array([row[f.name] for row in file], f.type)
                    for f in schema
                ],
                schema,
            )
            if dice.random() < 0.4 and not by:  # PyIceberg makes no partitions of bytes
                load(table).append(data)
            else:
                shoal.write_table(data, table)
        source = shoal.read_table(table, ["id"]).expr.source
        iceberg = load(table).schema()
        for each in range(FILTERS):
            tree = draw(drawing, dice)
            given = spelled(drawing, tree, dice.choice(("text", "tuples", "iceberg")))
            if given is None:
                given = drawing.as_iceberg(tree)
            expected = [row["id"] for row in rows if passes(tree, row)]
            try:
                if each % checking.THROUGHOUT == 0:
                    frames = [shoal.read_table(table, ["id"], given).compute(scheduler="sync")]
                else:
                    frames = checking.read(source, as_expression(given, iceberg, table), ["id"])
                got: Any = sorted(found for frame in frames for found in frame["id"])
            except Exception as error:
                got = repr(error)
            asked += 1
            if got != expected:
                faults.append(f"{given!r}\n expected {expected}\n got {got}\n {by} {properties}\n {rows}")
    record_property("measured", f"{asked} filters on {TABLES} tables, seed {SEED}; {len(faults)} wrong")
    assert not faults, f"SHOAL_FILTER_SEED={SEED}: {len(faults)} wrong\n\n" + "\n\n".join(faults[:4])
