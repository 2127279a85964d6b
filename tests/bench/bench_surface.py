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

PACKAGE = Path(__file__).parents[2] / "platform" / "shoal"
RUNS = int(os.environ.get("SHOAL_BENCH_RUNS", "5"))
WORKERS = 2
AT_MOST = 1.10

# The second start is what a person has in a notebook: everything is imported already.
OUR_DASK = f"""
import time, psutil
import shoal
def start():
    begin = time.time()
    with shoal.dask("etl", workers={WORKERS}, quiet=True) as cluster:
        assert cluster.client.submit(sum, [1, 2]).result() == 3
        return begin, time.time()
if __name__ == "__main__":
    _, first = start()
    begin, second = start()
    print(first - psutil.Process().create_time(), second - begin, flush=True)
"""
BARE_DASK = f"""
import time, psutil
from distributed import Client, LocalCluster
def start():
    begin = time.time()
    with LocalCluster(n_workers={WORKERS}, threads_per_worker=1, memory_limit="1GB",
                      dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        return begin, time.time()
if __name__ == "__main__":
    _, first = start()
    begin, second = start()
    print(first - psutil.Process().create_time(), second - begin, flush=True)
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
from shoal.engines.spark.jars import jar_conf
from shoal.machine.java import find_java
from shoal.tables.catalogs.opening import settings
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


def told(folder: Path, text: str) -> list[float]:
    """The seconds that a script tells of itself, run in a process of its own."""
    file = folder / "script.py"
    file.write_text(text)
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [float(value) for value in done.stdout.splitlines()[-1].split()]


def compare(bench: Bench, folder: Path, names: list[str], scripts: dict[str, str], n: int, note: str) -> None:
    """Ours, the first of ``scripts``, against the second, in turns; one row for each value that they tell."""
    ours, peer = scripts
    runs: dict[str, list[list[float]]] = {who: [] for who in scripts}
    for _ in range(n):
        for who, text in scripts.items():
            runs[who].append(told(folder, text))
    for at, name in enumerate(names):
        values = {who: [run[at] for run in told_by] for who, told_by in runs.items()}
        result = Result(name, "s", values, ours, peer, f"at most {AT_MOST:g} x {peer}", None, note)
        result.met = result.ratio is not None and result.ratio <= AT_MOST
        bench.results.append(result)
        print(f"  {name}: {values}, ratio {result.ratio:.2f}", flush=True)
    bench.save()


def commands(bench: Bench, folder: Path) -> None:
    """What a command takes in all, next to Python that does nothing and to another tool that tells its version."""
    shoal, prefect = (str(Path(sys.executable).with_name(name)) for name in ("shoal", "prefect"))
    peers = {"python -c pass": [sys.executable, "-c", "pass"], "prefect --version": [prefect, "--version"]}
    values: dict[str, dict[str, list[float]]] = {}
    for _ in range(RUNS):
        for name in ("plan", "ls"):
            for who, command in {"shoal": [shoal, name], **peers}.items():
                start = time.perf_counter()
                subprocess.run(command, capture_output=True, check=True, cwd=folder)
                values.setdefault(name, {}).setdefault(who, []).append(time.perf_counter() - start)
    for name, found in values.items():
        result = Result(f"`shoal {name}`", "s", found, "shoal", None, "at most 1 s", None)
        result.met = min(found["shoal"]) <= 1.0
        bench.results.append(result)
        print(f"  {result.name}: {found}", flush=True)
    bench.save()


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ |= {
            "SHOAL_DATA": str(folder / "data"),
            "SHOAL_CATALOG_URI": f"sqlite:///{folder / 'catalog.db'}",
        }
        # What is installed is compiled once, at its first import; so is a package that is worked on.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.chdir(folder)
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(PACKAGE)], check=True)
        bench = Bench(
            "surface",
            "Commands and starts",
            "From the start of a process to its first result, each in a process of its own, imports included; and "
            "from the second call in that process, when all is imported, to its first result.",
            versions=versions_of("dask", "distributed", "pyspark"),
        )
        commands(bench, folder)
        compare(
            bench,
            folder,
            ["Dask: process start to first result", "Dask: second start in a process to its first result"],
            {"shoal.dask": OUR_DASK, "LocalCluster": BARE_DASK},
            RUNS,
            "ours has TLS, a ledger, quota and a head that outlives the client",
        )
        compare(
            bench,
            folder,
            ["Spark: process start to first query"],
            {"shoal.spark": OUR_SPARK, "bare Connect": BARE_SPARK},
            max(3, RUNS - 2),
            "ours has a token, a ledger, quota and a head that outlives the client",
        )


if __name__ == "__main__":
    main()
