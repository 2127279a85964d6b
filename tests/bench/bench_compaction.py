"""Compaction: thousands of small files put together, against Spark's ``rewrite_data_files`` on the same cores.

``SHOAL_BENCH_ROWS`` scales it (default 20,000,000 rows in 2,000 files).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from bench_tables import ROWS, frame
from harness import Bench, versions_of
from table_peers import start_spark

FILES = min(2000, ROWS // 10_000)
TARGET = 64 * 2**20
"""Bytes of a file: so that there are several, and each has a core for it."""
OURS, THEIRS = "bench.ours", "bench.theirs"


def measure(bench: Bench, spark: Any) -> None:
    import shoal
    from shoal.tables.catalogs import opening as catalogs

    size = {"write.target-file-size-bytes": str(TARGET)}
    start = {}
    for name in (OURS, THEIRS):
        shoal.create_table(name, frame(ROWS, FILES), properties=size)
        start[name] = shoal.write_table(frame(ROWS, FILES), name).snapshot_id

    def files(name: str) -> list[int]:
        return [t.file.file_size_in_bytes for t in catalogs.load(name).scan().plan_files()]

    def sums(name: str) -> Any:
        what = "count(*), sum(id), sum(distance), count(distance), sum(hash(carrier, `at`, delay, price))"
        return spark.sql(f"select {what} from shoal.{name}").collect()[0]

    def again() -> None:
        for name, snapshot in start.items():
            shoal.rollback(name, snapshot)

    before, size_before = sums(OURS), sum(files(OURS))
    assert before == sums(THEIRS)
    assert len(files(OURS)) == FILES
    result = bench.compare(
        f"{FILES:,} files of {ROWS // FILES:,} rows put together",
        {
            "shoal": lambda: shoal.compact(OURS),
            "spark rewrite_data_files": lambda: spark.sql(
                f"CALL shoal.system.rewrite_data_files(table => '{THEIRS}')"
            ).collect(),
        },
        n=3,
        against="spark rewrite_data_files",
        at_most=1.0,
        before=again,
    )
    shoal.compact(OURS)  # rolled back before Spark's last turn
    assert sums(OURS) == sums(THEIRS) == before, "the rows are what they were, as Spark reads them"
    left, theirs = files(OURS), files(THEIRS)
    result.note = (
        f"{size_before / 2**20:.0f} MiB; {len(left)} files of {sum(left) / 2**20:.0f} MiB are left, "
        f"of Spark's {len(theirs)} of {sum(theirs) / 2**20:.0f} MiB"
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        os.environ["SHOAL_CATALOG_URI"] = f"sqlite:///{Path(folder) / 'catalog.db'}"
        os.environ["SHOAL_CATALOG_WAREHOUSE"] = f"{folder}/warehouse"
        from distributed import Client, LocalCluster

        from shoal.tables.catalogs.opening import catalog, settings

        catalog()
        bench = Bench(
            "tables_upkeep",
            "Upkeep of Iceberg tables",
            "Two Dask workers of one thread each (separate processes) against Spark `local[2]`, on the same local "
            f"disk; files are to have {TARGET // 2**20} MiB, and before each turn both tables are rolled back.",
            versions=versions_of("dask", "pyarrow", "pyiceberg", "pyspark"),
        )
        with (
            LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit="5GiB"
            ) as cluster,
            Client(cluster),
        ):
            print(f"{ROWS:,} rows", flush=True)
            spark = start_spark(settings(), ROWS // FILES)
            measure(bench, spark)
            spark.stop()
        print(bench.save())


if __name__ == "__main__":
    main()
