"""Drawn filters, asked of Shoal and held against what Spark and pandas say; in processes of their own.

Why apart: a process finds this by its name, and a table of many filters is as much work as a core has.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import drawing
import pyarrow as pa

import shoal
from shoal.tables.reading.expression import _split
from shoal.tables.reading.filters import as_expression
from shoal.tables.reading.plan import unpack_metadata
from shoal.tables.reading.scan import read_partition

TEXTS, FRAMES = 60, 40
"""Filters of each table: in SQL's logic, and in pandas'."""
THROUGHOUT = 20
"""Every so manieth filter goes the whole way, from the catalog to Dask's graph; the others from plan to rows."""


@dataclass(frozen=True)
class One:
    """A table that was made: its name, as what it was drawn, and the first of its ids."""

    name: str
    drawn: Any
    first: int


def draw_filters(drawn: Any) -> list[Any]:
    """The filters of a table that Spark answers."""
    dice = random.Random(f"{drawn.seed} filters")
    return [drawing.draw_filter(dice, drawn.columns) for _ in range(TEXTS)]


def wrong(one: Any, what: str, expected: object, got: object) -> str:
    return f"{one.name}: {what}\n expected {expected}\n got {got}\nids from {one.first} on, {one.drawn}"


def bits(ids: Iterable[int], first: int) -> int:
    return sum(1 << (i - first) for i in ids)


def read(source: Any, row_filter: Any, columns: Sequence[str]) -> list[Any]:
    """The frames of a read by its plan, as the tasks of a graph would read them, with no graph."""
    plan = source.plan(row_filter)[0]
    context = source.context_for(row_filter)
    frames = [read_partition(part, context, columns) for part in plan.partitions]
    found = sum(map(len, frames))
    assert plan.length in (None, found), f"metadata says {plan.length} rows, {found} were read"
    return frames


def check_texts(one: One, answers: Sequence[int]) -> list[str]:
    """Each filter in the spellings that it has, one of them drawn; ``answers``: the rows that Spark gave."""
    filters, dice = draw_filters(one.drawn), random.Random(f"{one.drawn.seed} spelling")
    faults = []
    source = shoal.read_table(one.name, ["id"]).expr.source
    schema = unpack_metadata(source.context.metadata).schema()
    for number, (tree, expected) in enumerate(zip(filters, answers, strict=True)):
        spellings: list[Any] = [drawing.as_iceberg(tree)]
        if drawing.can_be_text(tree):
            spellings.append(drawing.as_text(tree))
        if (tuples := drawing.as_tuples(tree)) is not None:
            spellings.append(tuples)
        given = dice.choice(spellings)
        try:
            if number % THROUGHOUT == 0:
                frames = [shoal.read_table(one.name, ["id"], given).compute(scheduler="sync")]
            else:
                frames = read(source, as_expression(given, schema, one.name), ["id"])
            got: object = bits((i for frame in frames for i in frame["id"]), one.first)
        except Exception as error:
            got = repr(error)
        if got != expected:
            got = f"{got:b}" if isinstance(got, int) else got
            faults.append(wrong(one, f"filters={given!r} ({drawing.as_sql(tree)})", f"{expected:b}", got))
    return faults


def check_frames(one: One) -> tuple[list[str], Counter[str]]:
    """Expressions on the frame: what reaches the scan, and what is left to pandas, against pandas alone. What came
    wrong, and how many reached the scan."""
    counts: Counter[str] = Counter()
    dice = random.Random(f"{one.drawn.seed} frames")
    df = shoal.read_table(one.name)
    source, columns = df.expr.source, ["id", *one.drawn.columns]
    whole = df[columns].compute(scheduler="sync")
    faults = []
    for number in range(FRAMES):
        tree = drawing.draw_filter(dice, one.drawn.columns, frame=True)
        try:
            mask = drawing.on_frame(tree, whole).fillna(False)
        except (pa.ArrowException, TypeError):
            counts["refused by pandas"] += 1
            continue
        expected = bits(whole[mask]["id"], one.first)
        predicate = drawing.on_frame(tree, df)
        if number % THROUGHOUT == 0:
            frames = [df[predicate].compute(scheduler="sync")]
        else:
            pushed, left = _split(predicate.expr, df.expr)
            counts["pushed" if left is None else "in part" if pushed is not None else "left"] += 1
            if pushed is None:
                continue  # pandas alone
            frames = read(
                source, df.expr.narrowed(pushed).row_filter, columns if left is not None else ["id"]
            )
            if left is not None:
                frames = [f[drawing.on_frame(tree, f).fillna(False)] for f in frames]
        got = bits((i for f in frames for i in f["id"]), one.first)
        if got != expected:
            faults.append(wrong(one, f"frame: {drawing.as_text(tree)}", f"{expected:b}", f"{got:b}"))
    return faults, counts
