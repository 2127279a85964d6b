"""The etl flow as a whole: killed while its workers are at work, and with a query on Spark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import shoal

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("sales.py")
ROWS = "id,amount\n1,5.0\n2,-1.0\n3,7.5\n"


@pytest.fixture
def start(api: Any, project: Path) -> Callable[..., Any]:
    """``start()`` gives the process that runs the flow twice, and kills it at the end if it has not ended."""
    (project / "data").mkdir()
    (project / "data" / "a.csv").write_text(ROWS)
    env = dict(os.environ, PREFECT_API_URL=api.url, DO_NOT_TRACK="1", PREFECT_LOGGING_LEVEL="WARNING")
    env["PREFECT_HOME"] = str(project.parent / "prefect")

    @contextmanager
    def run(*more: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, str(SCRIPT), str(project), *more]
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=30)

    return run


def results(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def rows() -> tuple[list[int], list[int]]:
    tables = ("sales.rows", "sales.rows_quarantine")
    good, bad = (sorted(shoal.read_table(table).id.compute().tolist()) for table in tables)
    return good, bad


def test_killed_while_its_workers_are_at_work_the_next_run_lands_it_once(
    start: Callable[..., Any],
    project: Path,
    eventually: Callable[..., Any],
    marked: Callable[[], dict[int, str]],
) -> None:
    (project / "hold").touch()
    with start() as process:

        def working() -> bool:
            assert process.poll() is None, process.communicate()
            return (project / "reached").exists()

        eventually(working, 120, "a worker has a part")
        process.kill()
        process.wait(10)
    (project / "hold").unlink()
    with start() as process:
        first, second = results(process)
    assert (first["rows"], first["failed_rows"], first["replayed"]) == (2, 1, False)
    assert (second["rows"], second["new"]) == (0, None)
    assert rows() == ([1, 3], [2])
    for name in {cluster["name"] for cluster in clusters()}:
        subprocess.run(
            [sys.executable, "-m", "shoal", "down", name, "--yes"], check=True, capture_output=True
        )
    eventually(lambda: not marked(), 60, "its clusters have ended")


def clusters() -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "shoal", "ls", "-o", "json"], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    listed: list[dict[str, Any]] = found["clusters"] if isinstance(found, dict) else found
    return listed


@pytest.mark.spark
def test_a_query_on_spark_gets_files_and_gives_rows_through_the_same_gate(
    start: Callable[..., Any], project: Path
) -> None:
    (project / "clean.sql").write_text("select id, amount * 2 as amount from input where id < 3;\n")
    with start("clean.sql") as process:
        first, second = results(process)
    assert (first["rows"], first["failed_rows"], second["new"]) == (1, 1, None)
    assert rows() == ([1], [2])
    assert not list(shoal.list_tables("shoal_staging")), "what was handed from engine to engine is gone"
