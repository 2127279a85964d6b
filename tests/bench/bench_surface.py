"""The surface: how long commands take, and what a cluster of ours costs against the same one made by hand.

Every contender is a process of its own, so that imports count for all alike.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness import Bench, versions_of

SHOAL = str(Path(sys.executable).with_name("shoal"))
RUNS = int(os.environ.get("SHOAL_BENCH_RUNS", "5"))
WORKERS = 2

OUR_DASK = f"""
import shoal
if __name__ == "__main__":
    with shoal.dask("etl", workers={WORKERS}, quiet=True) as cluster:
        assert cluster.client.submit(sum, [1, 2]).result() == 3
"""
BARE_DASK = f"""
from distributed import Client, LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers={WORKERS}, threads_per_worker=1, memory_limit="1GB",
                      dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        assert client.submit(sum, [1, 2]).result() == 3
"""
OUR_SPARK = f"""
import shoal
with shoal.spark("analytics", workers={WORKERS}, quiet=True) as spark:
    assert spark.sql("select 1 + 2 as n").collect()[0].n == 3
"""
BARE_SPARK = f"""
import os
from pyspark.sql import SparkSession
from shoal.head.jars import jar_conf
from shoal.java import find_java
from shoal.tables.catalog import settings
from shoal.tables.spark_conf import spark_conf, spark_packages
os.environ["JAVA_HOME"] = str(find_java().home)
builder = SparkSession.builder.remote("local[{WORKERS}]")
conf = {{**jar_conf(spark_packages(settings())), **spark_conf(settings()), "spark.ui.enabled": "false",
         "spark.driver.memory": "2g"}}
for key, value in conf.items():
    builder = builder.config(key, value)
session = builder.getOrCreate()
assert session.sql("select 1 + 2 as n").collect()[0].n == 3
session.stop()
"""


def script(folder: Path, name: str, text: str) -> Callable[[], None]:
    """A run of a script in a fresh process."""
    file = folder / f"{name}.py"
    file.write_text(text)

    def run() -> None:
        done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return run


def commands(bench: Bench) -> None:
    for command in (["plan"], ["ls"]):
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            subprocess.run([SHOAL, *command], capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        name = f"`shoal {' '.join(command)}`"
        bench.limit(name, "s", min(times), at_most=1.0, note=f"best of {RUNS}, worst {max(times):.2f} s")


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ |= {
            "SHOAL_DATA": str(folder / "data"),
            "SHOAL_CATALOG_URI": f"sqlite:///{folder / 'catalog.db'}",
        }
        os.chdir(folder)
        bench = Bench(
            "surface",
            "Commands and starts",
            "From nothing to a first result and back to nothing, each in a process of its own.",
            versions=versions_of("dask", "distributed", "pyspark"),
        )
        commands(bench)
        bench.compare(
            "Dask: start, first result, end",
            {
                "shoal.dask": script(folder, "ours", OUR_DASK),
                "LocalCluster": script(folder, "bare", BARE_DASK),
            },
            n=RUNS,
            against="LocalCluster",
            at_most=1.10,
            note="ours has TLS, a ledger, quota and a head that outlives the client",
        )
        bench.compare(
            "Spark: start, first query, end",
            {
                "shoal.spark": script(folder, "ours_spark", OUR_SPARK),
                "bare Connect": script(folder, "bare_spark", BARE_SPARK),
            },
            n=max(2, RUNS - 2),
            against="bare Connect",
            at_most=1.10,
        )


if __name__ == "__main__":
    main()
