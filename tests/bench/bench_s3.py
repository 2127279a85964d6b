"""Tables over S3: reading from a real server on loopback, against a bare PyArrow read of the same files and PyIceberg.

``SHOAL_BENCH_ROWS`` scales it (default 20,000,000; a quarter of it is read here).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow.parquet as pq
from bench_tables import COLUMNS, ROWS, count, frame
from harness import Bench, versions_of
from pyarrow.fs import S3FileSystem

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("servers", "kubernetes")]
from cluster import binaries  # noqa: E402 - from the tests' folders
from s3_proxy import S3Proxy  # noqa: E402
from s3_server import S3Server  # noqa: E402

PARTS = 8
TABLE = "bench.s3"


def of_arrow(kind: Any) -> Any:
    return pd.StringDtype("pyarrow") if "string" in str(kind) else pd.ArrowDtype(kind)


def bare(path: str, given: dict[str, str], columns: list[str]) -> pd.DataFrame:
    """A file by nothing but PyArrow, as a pandas frame of the types that Shoal gives."""
    system = S3FileSystem(
        access_key=given["s3.access-key-id"],
        secret_key=given["s3.secret-access-key"],
        endpoint_override=given["s3.endpoint"],
        region="us-east-1",
    )
    # Closed by hand, as nothing else would before the next garbage collection.
    with system.open_input_file(path) as stream:
        table = pq.ParquetFile(stream, pre_buffer=True).read(columns)
    return table.to_pandas(types_mapper=of_arrow)


def reads(bench: Bench, given: dict[str, str]) -> None:
    import shoal
    from shoal.tables.catalogs.opening import load

    files = [t.file.file_path.removeprefix("s3://") for t in load(TABLE).scan().plan_files()]
    everything = len(shoal.read_table(TABLE))

    def right(run: Callable[[], int]) -> Callable[[], None]:
        def checked() -> None:
            assert run() == everything

        return checked

    def by_pyarrow(columns: list[str]) -> dd.DataFrame:
        meta = shoal.read_table(TABLE)[columns]._meta
        return dd.from_map(bare, files, given=given, columns=columns, meta=meta, enforce_metadata=False)

    for what, columns in (("all six columns", COLUMNS), ("two of six columns", ["id", "delay"])):
        runs = {
            "shoal": lambda columns=columns: count(shoal.read_table(TABLE)[columns]),
            "pyarrow": lambda columns=columns: count(by_pyarrow(columns)),
            "pyiceberg": lambda columns=columns: len(
                load(TABLE).scan(selected_fields=tuple(columns)).to_pandas()
            ),
        }
        bench.compare(
            f"{everything:,} rows over S3, {what}",
            {who: right(run) for who, run in runs.items()},
            n=5,
            against="pyarrow",
            at_most=1.2,
        )


def requests(bench: Bench, server: S3Server, settings: Any) -> None:
    """What is asked of the server, counted in between: of data files alone, as a bare read knows their names."""
    from dataclasses import replace

    import shoal
    from shoal.tables.catalogs.opening import load

    proxy = S3Proxy(server)
    proxy.start()
    there = replace(settings, properties=proxy.properties)
    files = [t.file.file_path.removeprefix("s3://") for t in load(TABLE).scan().plan_files()]
    for what, columns in (("all six columns", COLUMNS), ("two of six columns", ["id", "delay"])):
        proxy.forget()
        shoal.read_table(TABLE, columns, catalog=there).compute(scheduler="threads")
        ours = proxy.of(ending=".parquet")
        proxy.forget()
        for file in files:
            bare(file, proxy.properties, columns)
        theirs = proxy.of(ending=".parquet")
        sizes = [sum(a.sent for a in asked) / 2**20 for asked in (ours, theirs)]
        note = f"{len(ours)} against {len(theirs)}, {sizes[0]:.1f} MiB against {sizes[1]:.1f} MiB"
        bench.limit(
            f"requests of {what}, of bare PyArrow's", "x", len(ours) / len(theirs), at_most=1.0, note=note
        )
        bench.limit(f"bytes of {what}, of bare PyArrow's", "x", sizes[0] / sizes[1], at_most=1.02)
    proxy.stop()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (Path(folder) / "s3").mkdir()
        server = S3Server(Path(folder) / "s3", port, binaries.ensure(["versitygw"])["versitygw"])
        server.bucket("lake")
        server.start()
        os.environ["SHOAL_CATALOG_URI"] = f"sqlite:///{Path(folder) / 'catalog.db'}"
        os.environ["SHOAL_CATALOG_WAREHOUSE"] = "s3://lake/warehouse"
        os.environ["SHOAL_CATALOG_PROPERTIES"] = json.dumps(server.properties)
        try:
            measure(server)
        finally:
            server.stop()


def measure(server: S3Server) -> None:
    from distributed import Client, LocalCluster

    import shoal
    from shoal.tables.catalogs.opening import settings

    bench = Bench(
        "tables_s3",
        "Iceberg tables over S3",
        "A real S3 server (versitygw) on the same machine and cores. Two Dask workers of one thread each; `pyarrow` is "
        "a bare read of the same files by the same workers, which knows of no table, no snapshot and no filter; "
        "PyIceberg uses its own threads in one process. Reading means a pandas frame per partition.",
        versions=versions_of("dask", "pyarrow", "pyiceberg", "pandas"),
    )
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit="5GiB"
        ) as cluster,
        Client(cluster),
    ):
        shoal.write_table(frame(ROWS // 4, PARTS), TABLE, sort_by="at")
        reads(bench, server.properties)
    requests(bench, server, settings())
    print(bench.save())


if __name__ == "__main__":
    main()
