"""The peers that `bench_tables.py` starts: Daft, in the environment that it needs, and Spark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from harness import Bench

DAFT = Path(__file__).parents[2] / ".venv-bench/bin/python"


class Daft:
    """Daft, in the process that it needs."""

    def __init__(self, table: str) -> None:
        from shoal.tables.catalogs import opening as catalogs

        settled = catalogs.settings()
        told = json.dumps([settled.name, catalogs.pyiceberg_properties(settled), table])
        self._process = subprocess.Popen(
            [str(DAFT), str(Path(__file__).parent / "daft_peer.py"), told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "DAFT_PROGRESS_BAR": "0",
                "DO_NOT_TRACK": "true",
                "DAFT_ANALYTICS_ENABLED": "0",
            },
        )
        self.version = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, f"Daft ended with {self._process.wait()}"
        return line

    def rows(self, columns: list[str] | None, at: list[str] | None) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([columns, at]) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def start_daft(bench: Bench) -> Daft | None:
    if not DAFT.exists():
        bench.skip(f"daft: there is no {DAFT.name} (make bench sets it up from requirements-bench.lock)")
        return None
    daft = Daft("bench.t")
    bench.versions["daft"] = daft.version
    return daft


def start_spark(settings: Any, rows: int) -> Any:
    """A local Spark of two cores that gives out frames of `rows`."""
    from pyspark.sql import SparkSession

    from shoal.tables.spark_conf import spark_conf

    builder = SparkSession.builder.remote("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.memory", "4g")
    builder = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", str(rows))
    builder = builder.config("spark.connect.grpc.binding.address", "127.0.0.1")
    # SPARK_TESTING is PySpark's own switch for a free port.
    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_TESTING": "1"}
    for key, value in spark_conf(settings, packages=True).items():
        builder = builder.config(key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return builder.getOrCreate()
