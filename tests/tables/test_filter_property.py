"""No filter gives a row too many or too few: drawn tables and filters, against Spark's SQL and against pandas.

Files by Shoal, PyIceberg, Spark and Polars in one table, in row groups of two and of all, with all statistics, some
and none. Spark answers all text filters of a table in one query over all of its rows, which no pruning reaches.
SHOAL_FILTER_TABLES draws more, as `make soak-tables` does, and SHOAL_FILTER_SEED others.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

import shoal
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.reading.expression import _split
from shoal.tables.reading.filters import as_expression
from shoal.tables.reading.plan import unpack_metadata
from shoal.tables.reading.scan import read_partition


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


drawing: Any = _load("drawing")
making: Any = _load("making")
TABLES = int(os.environ.get("SHOAL_FILTER_TABLES", "200"))
SEED = int(os.environ.get("SHOAL_FILTER_SEED", "20260101"))
TEXTS, FRAMES = 60, 40
"""Filters of each table: in SQL's logic, and in pandas'."""
WRITERS = ["shoal", "pyiceberg", "spark"] + (["polars"] if importlib.util.find_spec("polars") else [])
AT_ONCE = 200
"""Tables that are made and asked for together."""
THROUGHOUT = 20
"""Every so manieth filter goes the whole way, from the catalog to Dask's graph; the others from plan to rows."""


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


def check_texts(one: Any, filters: Sequence[Any], answers: Sequence[int], dice: random.Random) -> list[str]:
    """Each filter in the spellings that it has, one of them drawn."""
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


def check_frames(one: Any, dice: random.Random, counts: Counter[str]) -> list[str]:
    """Expressions on the frame: what reaches the scan, and what is left to pandas, against pandas alone."""
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
    return faults


def check(numbers: range, spark: Any, counts: Counter[str]) -> list[str]:
    """Draw these tables, make them, and ask for rows in every way; what came wrong, in sentences."""
    namespace = f"drawn{numbers.start}"
    tables = [drawing.draw_table(SEED + number, WRITERS) for number in numbers]
    filters = [
        [drawing.draw_filter(dice, table.columns) for _ in range(TEXTS)]
        for table in tables
        for dice in [random.Random(f"{table.seed} filters")]
    ]
    counts.update(f"files by {writer}" for table in tables for writer, _ in table.files)
    begin = time.monotonic()
    made = making.make_all(tables, drawing.KINDS, spark, namespace)
    texts = [[drawing.as_sql(tree) for tree in trees] for trees in filters]
    counts["seconds making"] += (then := time.monotonic()) - begin
    faults = []
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(making.ask_spark, made, texts, namespace, spark)
        for one in made:
            faults += check_frames(one, random.Random(f"{one.drawn.seed} frames"), counts)
        counts["seconds of frames"] += (until := time.monotonic()) - then
        answers = asked.result()
    counts["seconds waiting for spark"] += (then := time.monotonic()) - until
    for one, trees, expected in zip(made, filters, answers, strict=True):
        faults += check_texts(one, trees, expected, random.Random(f"{one.drawn.seed} spelling"))
    counts["seconds of texts"] += time.monotonic() - then
    return faults


@pytest.mark.spark
@pytest.mark.timeout(1800 + 10 * TABLES)
def test_drawn_filters_give_the_right_rows(
    lake: CatalogSettings, spark: Any, record_property: Callable[[str, object], None]
) -> None:
    counts: Counter[str] = Counter()
    faults: list[str] = []
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    # A few rows and long selects: compiling a query would take longer than running it.
    spark.conf.set("spark.sql.codegen.wholeStage", "false")
    try:
        for begin in range(0, TABLES, AT_ONCE):
            faults += check(range(begin, min(begin + AT_ONCE, TABLES)), spark, counts)
    finally:
        spark.conf.unset("spark.sql.codegen.wholeStage")
        spark.conf.unset("spark.sql.session.timeZone")
    rounded = {key: round(count) for key, count in counts.items()}
    record_property("drawn", f"seed {SEED}, {TABLES} tables, {TABLES * (TEXTS + FRAMES)} filters, {rounded}")
    assert counts["pushed"] > TABLES, "expressions on frames reach the scan"
    assert not faults, f"SHOAL_FILTER_SEED={SEED}: {len(faults)} wrong\n\n" + "\n\n".join(faults[:5])


def test_the_drawing_draws_what_it_says() -> None:
    """All columns, partitions, statistics and writers come up, and single-valued files with NaN."""
    tables = [drawing.draw_table(SEED + i, WRITERS) for i in range(400)]
    assert {c for t in tables for c in t.columns} == set(drawing.KINDS)
    assert {w for t in tables for w, _ in t.files} == set(WRITERS)
    assert {p for t in tables for p in t.partition_by} == {
        p for k in drawing.KINDS.values() for p in k.partitions
    }
    nans = [d.column("d") for t in tables for _, d in t.files if "d" in d.column_names]
    distinct = [{str(v) for v in c.to_pylist()} for c in nans]
    assert any("nan" in values and len(values) == 2 for values in distinct)
    assert any("None" in values and "nan" in values for values in distinct)
    assert all(pa.types.is_float64(c.type) for c in nans)
