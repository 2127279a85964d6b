"""No filter gives a row too many or too few: drawn tables and filters, against Spark's SQL and against pandas.

Files by Shoal, PyIceberg, Spark (and Polars, where it is installed) in one table, with statistics and without.
Spark answers all text filters of a few tables in one query, as sums of bits by row, which no pruning reaches.
SHOAL_FILTER_TABLES draws more, as `make soak-tables` does, and SHOAL_FILTER_SEED others.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

import shoal
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.reading.expression import _split
from shoal.tables.reading.scan import read_partition


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drawing", Path(__file__).with_name("drawing.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["drawing"] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


drawing: Any = _load()
TABLES = int(os.environ.get("SHOAL_FILTER_TABLES", "8"))
SEED = int(os.environ.get("SHOAL_FILTER_SEED", "20260101"))
TEXTS, FRAMES = 60, 40
"""Filters of each table: in SQL's logic, and in pandas'."""
WRITERS = ["shoal", "pyiceberg", "spark"] + (["polars"] if importlib.util.find_spec("polars") else [])
AT_ONCE = 10
"""Tables that one query of Spark's answers for."""


@dataclass(frozen=True)
class Case:
    table: Any
    name: str
    filters: tuple[Any, ...]


def wrong(case: Case, what: str, expected: Any, got: Any) -> str:
    return f"{case.name}: {what}\n expected ids {expected}\n got {got}\n{case.table}"


def make(case: Case, spark: Any) -> None:
    """The table, file by file, each by its writer."""
    table = case.table
    shoal.create_table(
        case.name,
        table.schema,
        partition_by=table.partition_by,
        properties={"write.metadata.metrics.default": table.metrics},
    )
    for writer, data in table.files:
        if writer in ("pyiceberg", "polars") and any(
            "\ud7ff" in str(row.get("s")) for row in data.to_pylist()
        ):
            writer = "shoal"  # PyIceberg cannot write these: it rounds the bound up to half a character
        if writer == "shoal":
            shoal.write_table(data, case.name)
        elif writer == "pyiceberg":
            catalogs.load(case.name).append(data)
        elif writer == "polars":
            import polars

            polars.from_arrow(data).write_iceberg(catalogs.load(case.name), mode="append")
        else:
            kinds = {"id": "bigint", **{c: drawing.KINDS[c].spark for c in table.columns}}
            rows = (
                f"({', '.join(f'CAST({drawing.sql_value(row[c])} AS {k})' for c, k in kinds.items())})"
                for row in data.to_pylist()
            )
            spark.sql(f"INSERT INTO shoal.{case.name} VALUES {', '.join(rows)}").collect()


def bits(ids: Sequence[int]) -> int:
    return sum(1 << i for i in ids)


def ask_spark(cases: Sequence[Case], spark: Any) -> list[list[int]]:
    """For each table, which rows pass each filter, as bits by id."""
    selects = []
    for number, case in enumerate(cases):
        sums = (
            f"sum(CASE WHEN {drawing.as_sql(f)} THEN shiftleft(1L, CAST(id AS int)) ELSE 0L END)"
            for f in case.filters
        )
        selects.append(f"SELECT {number} AS number, {', '.join(sums)} FROM shoal.{case.name}")
    rows = spark.sql(" UNION ALL ".join(selects)).collect()
    by_number = {row[0]: list(row[1:]) for row in rows}
    return [by_number[i] for i in range(len(cases))]


def read_ids(df: Any, row_filter: Any = None) -> tuple[int, list[Any]]:
    """Rows of a read by its plan, as the tasks of a graph would read them, with no graph."""
    read = df.expr
    plan = read.source.plan(read.row_filter)[0]
    context = read.source.context_for(read.row_filter)
    frames = [read_partition(part, context, read.columns) for part in plan.partitions]
    found = bits([i for frame in frames for i in frame["id"]])
    if plan.length is not None and plan.length != found.bit_count():
        raise AssertionError(f"metadata says {plan.length} rows, {found.bit_count()} were read")
    return found, frames


def check_texts(case: Case, answers: Sequence[int], dice: random.Random) -> list[str]:
    """Each filter in the spellings that it has, one of them drawn."""
    faults = []
    for tree, expected in zip(case.filters, answers, strict=True):
        spellings: list[Any] = [drawing.as_iceberg(tree)]
        if drawing.can_be_text(tree):
            spellings += [drawing.as_text(tree)] * 2
        if (tuples := drawing.as_tuples(tree)) is not None:
            spellings.append(tuples)
        given = dice.choice(spellings)
        try:
            got, _ = read_ids(shoal.read_table(case.name, ["id"], given))
        except Exception as error:
            faults.append(wrong(case, f"filters={given!r}", f"{expected:b}", repr(error)))
            continue
        if got != expected:
            faults.append(
                wrong(case, f"filters={given!r} ({drawing.as_sql(tree)})", f"{expected:b}", f"{got:b}")
            )
    return faults


def check_frames(case: Case, dice: random.Random, pushed_count: Counter[str]) -> list[str]:
    """Expressions on the frame: what reaches the scan, and what is left to pandas, against pandas alone."""
    df = shoal.read_table(case.name)
    whole = df.compute(scheduler="sync")
    faults = []
    for number in range(FRAMES):
        tree = drawing.draw_filter(dice, case.table.columns, frame=True)
        try:
            mask = drawing.on_frame(tree, whole).fillna(False)
        except (pa.ArrowException, TypeError):
            pushed_count["refused by pandas"] += 1
            continue
        expected = bits(list(whole[mask]["id"]))
        predicate = drawing.on_frame(tree, df)
        if number == 0:
            got = bits(list(df[predicate].compute(scheduler="sync")["id"]))
        else:
            pushed, left = _split(predicate.expr, df.expr)
            pushed_count["pushed" if left is None else "in part" if pushed is not None else "left"] += 1
            if pushed is None:
                continue  # pandas alone
            narrowed = type(df)(df.expr.narrowed(pushed))
            got, frames = read_ids(narrowed)
            if left is not None and frames:
                got = bits([i for f in frames for i in f[drawing.on_frame(tree, f).fillna(False)]["id"]])
        if got != expected:
            faults.append(wrong(case, f"frame: {drawing.as_text(tree)}", f"{expected:b}", f"{got:b}"))
    return faults


@pytest.mark.timeout(1800 + 10 * TABLES)
def test_drawn_filters_give_the_right_rows(
    lake: CatalogSettings, spark: Any, record_property: Callable[[str, object], None]
) -> None:
    print(f"SHOAL_FILTER_SEED={SEED}")
    cases = []
    for number in range(TABLES):
        table = drawing.draw_table(SEED + number, WRITERS)
        dice = random.Random(f"{SEED + number} filters")
        filters = tuple(drawing.draw_filter(dice, table.columns) for _ in range(TEXTS))
        cases.append(Case(table, f"drawn.t{number}", filters))
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    # Tiny tables and long selects: compiling a query would take longer than running it.
    spark.conf.set("spark.sql.codegen.wholeStage", "false")
    faults: list[str] = []
    pushed: Counter[str] = Counter()
    try:
        with ThreadPoolExecutor(2) as pool:
            made = list(pool.map(lambda case: make(case, spark), cases))
            assert len(made) == TABLES
            groups = [cases[i : i + AT_ONCE] for i in range(0, TABLES, AT_ONCE)]
            answers = pool.map(lambda group: ask_spark(group, spark), groups)
            for case in cases:
                faults += check_frames(case, random.Random(f"{case.table.seed} frames"), pushed)
            for group, found in zip(groups, answers, strict=True):
                for case, expected in zip(group, found, strict=True):
                    faults += check_texts(case, expected, random.Random(f"{case.table.seed} spelling"))
    finally:
        spark.conf.unset("spark.sql.codegen.wholeStage")
        spark.conf.unset("spark.sql.session.timeZone")
    written = Counter(writer for case in cases for writer, _ in case.table.files)
    record_property(
        "drawn", f"{TABLES} tables, {TABLES * (TEXTS + FRAMES)} filters, files by {dict(written)}"
    )
    print(dict(written), dict(pushed))
    assert pushed["pushed"] > TABLES, "expressions on frames reach the scan"
    assert not faults, f"{len(faults)} wrong\n\n" + "\n\n".join(faults[:5])


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
