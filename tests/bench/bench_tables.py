"""Tables: reading, writing and upserting, against PyIceberg alone, Dask's read_parquet, Spark and Daft.

``SHOAL_BENCH_ROWS`` scales it (default 20,000,000 rows x 6 columns).
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
from harness import Bench, versions_of
from table_peers import Daft, start_daft, start_spark

ROWS = int(os.environ.get("SHOAL_BENCH_ROWS", 20_000_000))
PARTS = 16
COLUMNS = ["id", "at", "carrier", "distance", "delay", "price"]


def make_part(number: int, rows: int, first: int = 0) -> pd.DataFrame:
    """One partition: a key, a time, a category of text, an integer with nulls, two floats."""
    random = np.random.default_rng(number)
    ids = np.arange(first + number * rows, first + (number + 1) * rows)
    carriers = pa.array([f"carrier-{i:02d}" for i in range(40)]).take(pa.array(random.integers(0, 40, rows)))
    table = pa.table(
        {
            "id": ids,
            "at": pa.array(ids * 1_000_000, pa.timestamp("us")),
            "carrier": carriers.cast(pa.large_string()),
            "distance": pa.array(random.integers(50, 5000, rows), mask=random.random(rows) < 0.05),
            "delay": random.normal(5, 30, rows),
            "price": random.random(rows) * 1000,
        }
    )
    return table.to_pandas(
        types_mapper=lambda t: pd.StringDtype("pyarrow") if t == pa.large_string() else pd.ArrowDtype(t)
    )


def frame(rows: int, parts: int = PARTS, first: int = 0) -> dd.DataFrame:
    return dd.from_map(make_part, range(parts), args=(rows // parts, first), meta=make_part(0, 1).head(0))


def count(df: Any) -> int:
    """Rows, by making every partition's pandas frame."""
    return int(df.map_partitions(len).sum().compute())


def reads(bench: Bench, spark: Any, daft: Daft | None) -> None:
    import shoal
    from shoal.tables.catalogs import opening as catalogs

    table = catalogs.load("bench.t")
    files = f"{table.location().removeprefix('file://')}/data"
    everything = ROWS // PARTS * PARTS
    low, high = pd.Timestamp(0), pd.Timestamp(ROWS // 40, unit="s")

    def right(run: Callable[[], Any], expected: int) -> Callable[[], Any]:
        def checked() -> None:
            assert run() == expected

        return checked

    def pandas_of(columns: list[str], where: str = "true") -> Callable[[], int]:
        def lengths(batches: Any) -> Any:
            for batch in batches:
                yield pd.DataFrame({"n": [len(batch)]})

        def run() -> int:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = spark.sql(f"select {', '.join(columns)} from shoal.bench.t where {where}")
                return int(found.mapInPandas(lengths, "n long").groupBy().sum("n").collect()[0][0])

        return run

    def all_of(columns: list[str]) -> dict[str, Callable[[], Any]]:
        runs: dict[str, Callable[[], Any]] = {
            "shoal": lambda: count(shoal.read_table("bench.t")[columns]),
            "dask read_parquet": lambda: count(dd.read_parquet(files, filesystem="arrow")[columns]),
            "pyiceberg": lambda: len(load().scan(selected_fields=tuple(columns)).to_pandas()),
            "spark": pandas_of(columns),
            **daft_of(columns),
        }
        return {who: right(run, everything) for who, run in runs.items()}

    def daft_of(columns: list[str] | None, at: list[str] | None = None) -> dict[str, Callable[[], Any]]:
        return {"daft": lambda: daft.rows(columns, at)} if daft is not None else {}

    def load() -> Any:
        # Everybody starts from the table's or the folder's name: what is planned is part of reading.
        return catalogs.load("bench.t")

    every = f"{everything:,} rows x 6 columns into pandas"
    bench.compare(every, all_of(COLUMNS), n=5, against="dask read_parquet", at_most=1.0)
    two = all_of(["id", "delay"])
    bench.compare("two of six columns", two, n=7, against="dask read_parquet", at_most=1.0)

    def ours() -> int:
        df = shoal.read_table("bench.t")
        return count(df[(df["at"] >= low) & (df["at"] < high)])

    def peers() -> int:
        parquet = dd.read_parquet(files, filesystem="arrow")
        return count(parquet[(parquet["at"] >= low) & (parquet["at"] < high)])

    between = [low.isoformat(), high.isoformat()]
    text = f"at >= '{low.isoformat()}' and at < '{high.isoformat()}'"
    bench.compare(
        "a filter that keeps a fortieth",
        {
            "shoal": right(ours, ROWS // 40),
            "dask read_parquet": right(peers, ROWS // 40),
            "pyiceberg": right(lambda: len(load().scan(row_filter=text).to_pandas()), ROWS // 40),
            "spark": right(
                pandas_of(COLUMNS, f"`at` >= timestamp_ntz'{low}' and `at` < timestamp_ntz'{high}'"),
                ROWS // 40,
            ),
            **{who: right(run, ROWS // 40) for who, run in daft_of(COLUMNS, between).items()},
        },
        against="dask read_parquet",
        at_most=1.0,
    )
    bench.compare(
        "len()",
        {
            "shoal": right(lambda: len(shoal.read_table("bench.t")), everything),
            "dask read_parquet": right(lambda: len(dd.read_parquet(files, filesystem="arrow")), everything),
            "pyiceberg": right(lambda: load().scan().count(), everything),
            "spark": right(
                lambda: spark.sql("select count(*) from shoal.bench.t").collect()[0][0], everything
            ),
            **{who: right(run, everything) for who, run in daft_of(None).items()},
        },
        n=5,
        against="dask read_parquet",
        at_most=1.0,
    )


def writes(bench: Bench, client: Any) -> None:
    import shoal
    from shoal.tables.catalogs import opening as catalogs

    rows = min(ROWS, 20_000_000)
    data = frame(rows).persist()
    dask.compute(data.map_partitions(len))
    # One by one: a single frame of them all would be made on one worker first, and be too much for it.
    parts = [f.result() for f in client.compute(data.to_delayed(optimize_graph=False))]
    whole = pa.concat_tables([pa.Table.from_pandas(part, preserve_index=False) for part in parts])
    del parts
    shoal.create_table("bench.w1", data)
    shoal.create_table("bench.w2", data)
    alone = catalogs.load("bench.w2")
    whole = whole.cast(alone.schema().as_arrow())
    result = bench.compare(
        f"write {rows:,} rows",
        {
            "shoal": lambda: shoal.write_table(data, "bench.w1"),
            "pyiceberg": lambda: catalogs.load("bench.w2").append(whole),
        },
        n=3,
        against="pyiceberg",
        at_most=0.45,
    )
    sizes = [
        sum(f.file.file_size_in_bytes for f in catalogs.load(name).scan().plan_files()) / 3 / 2**20
        for name in ("bench.w1", "bench.w2")
    ]
    result.note = (
        f"data in the workers' memory, and in the client's; both zstd: {sizes[0]:.0f} MiB against "
        f"{sizes[1]:.0f} MiB, ours with key and time as differences and noise as it is"
    )
    drop("bench.w1", "bench.w2")


def drop(*names: str) -> None:
    from shoal.tables.catalogs import opening as catalogs
    from shoal.tables.writing.sweep import sweep

    for name in names:
        table = catalogs.load(name)
        catalogs.catalog().drop_table(name)
        sweep(table.io, table.location(), ())


def upserts(bench: Bench) -> None:
    import shoal
    from shoal.tables.catalogs import opening as catalogs

    base, change = min(1_000_000, ROWS // 20), min(50_000, ROWS // 400)
    old = frame(base, 4)
    new = pa.Table.from_pandas(make_part(1, change, base - change * 3 // 2 - change), preserve_index=False)
    for name in ("bench.u1", "bench.u2"):
        shoal.write_table(old, name)
    new = new.cast(catalogs.load("bench.u2").schema().as_arrow())
    frame_of_new = dd.from_pandas(new.to_pandas(types_mapper=pd.ArrowDtype), npartitions=2)
    bench.compare(
        f"upsert {change:,} rows into {base:,}",
        {
            "shoal": lambda: shoal.write_table(frame_of_new, "bench.u1", mode="upsert", keys="id"),
            "pyiceberg": lambda: catalogs.load("bench.u2").upsert(new, join_cols=["id"]),
        },
        n=1,
        against="pyiceberg",
        at_most=1.0,
    )
    drop("bench.u1", "bench.u2")
    many, much = min(10_000_000, ROWS // 2), min(1_000_000, ROWS // 20)
    shoal.write_table(frame(many, 16), "bench.u3")
    scattered = dd.from_map(
        _every_nth, range(4), args=(much // 4, many // much), meta=make_part(0, 1).head(0)
    )
    start = time.perf_counter()
    result = shoal.write_table(scattered, "bench.u3", mode="upsert", keys="id")
    assert (result.rows, result.replaced_rows) == (much, much)
    seconds = time.perf_counter() - start
    bench.limit(f"upsert {much:,} rows, in every file, into {many:,}", "s", seconds, at_most=30)
    drop("bench.u3")


def _every_nth(number: int, rows: int, step: int) -> pd.DataFrame:
    part = make_part(number, rows)
    part["id"] = pd.array((np.arange(rows) + number * rows) * step, dtype=pd.ArrowDtype(pa.int64()))
    return part


def many_files(bench: Bench, settings: Any) -> None:
    """Plan and commit of 20,000 files: real manifests, of files that are copies of one in name only."""
    import copy

    import shoal
    from shoal.tables.catalogs import opening as catalogs
    from shoal.tables.writing.commit import CommitRequest, commit

    shoal.write_table(make_part(0, 1000), "bench.m")
    table = catalogs.load("bench.m")
    (one,) = [t.file for t in table.scan().plan_files()]
    files = []
    for i in range(20_000):
        clone = copy.copy(one)
        clone._data = list(one._data)
        clone._data[1] = f"{one.file_path}.{i}"
        files.append(clone)
    request = CommitRequest("bench.m", table.metadata, files, uuid.uuid4().hex, False, uuid.uuid4().hex)
    for what, run in (
        ("commit", lambda: commit(request, settings)),
        ("plan", lambda: shoal.read_table("bench.m").npartitions),
    ):
        start, cpu = time.perf_counter(), time.process_time()
        run()
        note = f"{time.process_time() - cpu:.2f} s of CPU"
        bench.limit(f"{what} 20,000 files", "s", time.perf_counter() - start, at_most=2, note=note)
    catalogs.catalog().drop_table("bench.m")


def large_file(bench: Bench) -> None:
    """A file four times a worker's memory, read whole by one worker."""
    from distributed import Client, LocalCluster

    import shoal
    from shoal.tables.catalogs import opening as catalogs

    limit = 768 * 2**20
    width = 60.0
    rows = int(4 * limit / width)
    parts = 24
    shoal.create_table("bench.big", make_part(0, 1), properties={"write.target-file-size-bytes": str(2**40)})
    from shoal.tables.reading.plan import pack_metadata
    from shoal.tables.writing.files import WriteContext, write_stream

    table = catalogs.load("bench.big")
    schema, size = table.schema().as_arrow(), rows // parts
    context = WriteContext(pack_metadata(table.metadata, 0), "bench.big", f"{table.location()}/data/one")
    stream = (
        pa.Table.from_pandas(make_part(i, size), preserve_index=False).cast(schema) for i in range(parts)
    )
    (written,) = write_stream(stream, context)
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(written.data_file)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit=limit, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        pid = next(iter(client.run(os.getpid).values()))
        peak, stop = [0], threading.Event()

        def watch() -> None:
            while not stop.wait(0.05):
                peak[0] = max(peak[0], psutil.Process(pid).memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        found = count(shoal.read_table("bench.big", partition_size="48 MiB"))
        stop.set()
        watcher.join()
        assert found == rows // parts * parts
        assert next(iter(client.run(os.getpid).values())) == pid, "the worker was killed"
        spilled = next(iter(client.run(lambda dask_worker: dask_worker.data.spilled_total.disk).values()))
    size = written.data_file.file_size_in_bytes / 2**20
    note = f"{found:,} rows in one file of {size:.0f} MiB"
    bench.limit(
        "peak of a worker, of a file 4 x its memory", "of its limit", peak[0] / limit, at_most=0.7, note=note
    )
    bench.limit("spilled by it", "bytes", float(spilled), at_most=0)
    drop("bench.big")


def main() -> None:
    only = sys.argv[1:] or ["reads", "writes", "upserts", "many_files", "large_file"]
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        os.environ["SHOAL_CATALOG_URI"] = f"sqlite:///{Path(folder) / 'catalog.db'}"
        os.environ["SHOAL_CATALOG_WAREHOUSE"] = f"{folder}/warehouse"
        from distributed import Client, LocalCluster

        import shoal
        from shoal.tables.catalogs.opening import catalog, settings

        catalog()
        bench = Bench(
            "tables",
            "Iceberg tables on Dask",
            "Two Dask workers of one thread each (separate processes), Spark `local[2]`, all on the same "
            "local disk. Reading means a pandas frame per partition, counted where it is; Daft uses all cores "
            "of one process, and PyIceberg its own threads.",
            versions=versions_of("dask", "pyarrow", "pyiceberg", "pyspark", "pandas"),
        )
        with (
            LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit="5GiB"
            ) as cluster,
            Client(cluster) as client,
        ):
            print(f"{ROWS:,} rows", flush=True)
            if "reads" in only:
                shoal.write_table(frame(ROWS), "bench.t", sort_by="at")
                spark, daft = start_spark(settings(), ROWS // PARTS), start_daft(bench)
                reads(bench, spark, daft)
                spark.stop()
                if daft is not None:
                    daft.stop()
                drop("bench.t")
            if "writes" in only:
                writes(bench, client)
            if "upserts" in only:
                upserts(bench)
            if "many_files" in only:
                many_files(bench, settings())
        if "large_file" in only:
            large_file(bench)
        print(bench.save(keep=bool(sys.argv[1:])))


if __name__ == "__main__":
    main()
