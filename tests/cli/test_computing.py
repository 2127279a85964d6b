"""While it computes, a terminal shows one bar for both engines; a pipe shows none, and neither does who said so."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from shoal.display.computing import said

DASK = """
import time
import shoal

def slow(number):
    time.sleep(0.4)
    return number

with shoal.dask("small", workers=1, progress={progress}) as cluster:
    print(sum(cluster.client.gather(cluster.client.map(slow, range(12)))))
"""
SPARK = """
import shoal

def slow(rows):
    import time
    for row in rows:
        time.sleep(0.4)
        yield row

with shoal.spark("small", workers=1) as spark:
    from pyspark.sql.functions import udf
    wait = udf(lambda n: __import__("time").sleep(0.4) or n, "long")
    print(spark.session.range(0, 12, 1, 12).select(wait("id").alias("n")).count())
    print(sum(row.n for row in spark.session.range(0, 12, 1, 12).select(wait("id").alias("n")).collect()))
"""


def on_a_terminal(place: Any, script: str, *, pipe: bool = True, **changes: str) -> tuple[str, str]:
    """What a script writes to standard output, if that is a ``pipe``, and what a terminal gets of all else."""
    file = place.write("computes.py", script)
    out, seen = place.at_terminal([sys.executable, str(file)], 120, pipe=pipe, **changes)
    assert place.left_with == 0, seen
    return out, seen


BAR = re.compile(r"small-\w+ \[[#.]{20}\] \d+ of \d+ tasks, \d+ s")


def test_dask_shows_its_tasks_by_what_they_do(shoal: Any) -> None:
    _, err = on_a_terminal(shoal, DASK.format(progress=True), pipe=False)
    assert BAR.search(err), err
    assert "\r\x1b[2K66\r\n" in err, "what is printed stands on a line of its own"
    assert re.search(r"slow \d+/12", err), err
    assert "Error" not in err


@pytest.mark.parametrize(("progress", "environment"), [(False, {}), (True, {"SHOAL_PROGRESS": "0"})])
def test_nothing_is_shown_to_who_said_so(shoal: Any, progress: bool, environment: dict[str, str]) -> None:
    out, err = on_a_terminal(shoal, DASK.format(progress=progress), **environment)
    assert out == "66\n"
    assert not BAR.search(err), err


def test_nothing_is_shown_in_a_pipe(shoal: Any) -> None:
    file = shoal.write("computes.py", DASK.format(progress=True))
    done = subprocess.run(
        [sys.executable, str(file)],
        cwd=shoal.folder, env=shoal.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "66\n"
    assert "\x1b" not in done.stderr
    assert not BAR.search(done.stderr)


@pytest.mark.spark
@pytest.mark.slow
def test_spark_shows_its_stages(shoal: Any) -> None:
    out, err = on_a_terminal(shoal, SPARK)
    assert out.splitlines()[-1] == "66"
    assert BAR.search(err), err
    assert re.search(r"stage \d+ \d+/12", err), err


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_line_fits_the_terminal(width: int) -> None:
    parts = [(f"part-{number}", number, 100) for number in range(30)]
    line = said("nightly", parts, 75, width)
    assert len(line) <= width
    assert line.startswith("nightly [")


def test_the_line_names_what_has_most_left() -> None:
    line = said("etl", [("read", 4, 4), ("sum", 1, 2), ("join", 0, 9)], 5, 200)
    assert line == "etl [######..............] 5 of 15 tasks, 5 s; join 0/9, sum 1/2"
    assert said("etl", [], 0, 80).startswith("etl [....................] 0 of 0 tasks")
