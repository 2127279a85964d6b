"""No filter gives a row too many or too few: drawn tables and filters, against Spark's SQL and against pandas.

Files by Shoal, PyIceberg, Spark and Polars in one table, in row groups of two and of all, with all statistics, some
and none. Spark answers all text filters of a table in one query over all of its rows, which no pruning reaches.
SHOAL_FILTER_TABLES draws more, as `make soak-filters` does, and SHOAL_FILTER_SEED others.
"""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

from shoal.tables.catalogs.opening import CatalogSettings


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
checking: Any = _load("checking")
TABLES = int(os.environ.get("SHOAL_FILTER_TABLES", "200"))
FIRST = 40  # of them; the others follow unless the machine is too slow for all of them within ...
SECONDS = 180.0 if "SHOAL_FILTER_TABLES" not in os.environ else math.inf
SEED = int(os.environ.get("SHOAL_FILTER_SEED", "20260101"))
WRITERS = ["shoal", "pyiceberg", "spark"] + (["polars"] if importlib.util.find_spec("polars") else [])
AT_ONCE = 200
"""Tables that are made and asked for together."""


def check(numbers: range, spark: Any, counts: Counter[str], pool: ProcessPoolExecutor) -> list[str]:
    """Draw these tables, make them, and ask for rows in every way; what came wrong, in sentences."""
    namespace = f"drawn{numbers.start}"
    tables = [drawing.draw_table(SEED + number, WRITERS) for number in numbers]
    counts.update(f"files by {writer}" for table in tables for writer, _ in table.files)
    begin = time.monotonic()
    made = making.make_all(tables, drawing.KINDS, spark, namespace)
    counts["seconds making"] += (then := time.monotonic()) - begin
    ones = [checking.One(one.name, one.drawn, one.first) for one in made]
    frames = [pool.submit(checking.check_frames, one) for one in ones]
    filters = [[drawing.as_sql(tree) for tree in checking.draw_filters(table)] for table in tables]
    answers = making.ask_spark(made, filters, namespace, spark)
    counts["seconds of spark"] += (until := time.monotonic()) - then
    texts = [pool.submit(checking.check_texts, one, found) for one, found in zip(ones, answers, strict=True)]
    faults = []
    for result in frames:
        found, reached = result.result()
        faults += found
        counts.update(reached)
    faults += [fault for result in texts for fault in result.result()]
    counts["seconds after spark"] += time.monotonic() - until
    return faults


@pytest.mark.spark
@pytest.mark.timeout(1800 + 10 * TABLES)
def test_drawn_filters_give_the_right_rows(
    lake: CatalogSettings,
    spark: Any,
    record_property: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts: Counter[str] = Counter()
    faults: list[str] = []
    monkeypatch.syspath_prepend(Path(__file__).parent)  # the processes find `checking` there
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    # A few rows and long selects: compiling a query would take longer than running it.
    spark.conf.set("spark.sql.codegen.wholeStage", "false")
    try:
        # Not forks of a process that has threads and speaks to Spark.
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            done, start = 0, time.monotonic()
            for until in sorted({min(FIRST, TABLES), *range(AT_ONCE, TABLES, AT_ONCE), TABLES}):
                if done and (time.monotonic() - start) * until / done > SECONDS:
                    break
                faults += check(range(done, until), spark, counts, pool)
                done = until
    finally:
        spark.conf.unset("spark.sql.codegen.wholeStage")
        spark.conf.unset("spark.sql.session.timeZone")
    rounded = {key: round(count) for key, count in counts.items()}
    filters = done * (checking.TEXTS + checking.FRAMES)
    record_property("n", filters)
    record_property("measured", f"{filters} filters on {done} tables, seed {SEED}; {len(faults)} wrong")
    record_property(
        "drawn",
        f"seed {SEED}, {done} tables, {filters} filters, {rounded}",
    )
    assert counts["pushed"] > done, "expressions on frames reach the scan"
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
