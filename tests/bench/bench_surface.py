"""The surface: how long commands take, and what a cluster of ours costs against the same one made by hand.

Every contender is a process of its own, so that imports count for all alike.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Bench, Result, versions_of

SHOAL = str(Path(sys.executable).with_name("shoal"))
RUNS = int(os.environ.get("SHOAL_BENCH_RUNS", "5"))
WORKERS = 2
AT_MOST = 1.10

OUR_DASK = f"""
import time, psutil
import shoal
if __name__ == "__main__":
    with shoal.dask("etl", workers={WORKERS}, quiet=True) as cluster:
        assert cluster.client.submit(sum, [1, 2]).result() == 3
        print(time.time() - psutil.Process().create_time(), flush=True)
"""
BARE_DASK = f"""
import time, psutil
from distributed import Client, LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers={WORKERS}, threads_per_worker=1, memory_limit="1GB",
                      dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        print(time.time() - psutil.Process().create_time(), flush=True)
"""
OUR_SPARK = f"""
import time, psutil
import shoal
with shoal.spark("analytics", workers={WORKERS}, quiet=True) as spark:
    assert spark.sql("select 1 + 2 as n").collect()[0].n == 3
    print(time.time() - psutil.Process().create_time(), flush=True)
"""
BARE_SPARK = f"""
import os, time, psutil
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
print(time.time() - psutil.Process().create_time(), flush=True)
session.stop()
"""


def first_result(folder: Path, text: str) -> float:
    """Seconds from the start of a fresh process that runs a script to its first result, as it tells them."""
    file = folder / "script.py"
    file.write_text(text)
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


def compare(bench: Bench, folder: Path, name: str, scripts: dict[str, str], n: int, note: str = "") -> None:
    """Ours, the first of ``scripts``, against the second, in turns."""
    ours, peer = scripts
    values: dict[str, list[float]] = {who: [] for who in scripts}
    for _ in range(n):
        for who, text in scripts.items():
            values[who].append(first_result(folder, text))
    result = Result(name, "s", values, ours, peer, f"at most {AT_MOST:g} x {peer}", None, note)
    result.met = result.ratio is not None and result.ratio <= AT_MOST
    bench.results.append(result)
    print(f"  {name}: {values}, ratio {result.ratio:.2f}", flush=True)
    bench.save()


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
            "From the start of a process to its first result, each in a process of its own, imports included.",
            versions=versions_of("dask", "distributed", "pyspark"),
        )
        commands(bench)
        compare(
            bench,
            folder,
            "Dask: process start to first result",
            {"shoal.dask": OUR_DASK, "LocalCluster": BARE_DASK},
            RUNS,
            "ours has TLS, a ledger, quota and a head that outlives the client",
        )
        compare(
            bench,
            folder,
            "Spark: process start to first query",
            {"shoal.spark": OUR_SPARK, "bare Connect": BARE_SPARK},
            max(2, RUNS - 2),
        )


if __name__ == "__main__":
    main()
