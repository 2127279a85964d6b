"""The real parts that the tests of tables share: one catalog, one Dask cluster, one Spark, per test run."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.spark_conf import spark_conf
from shoal.tables.writing import turns

IN_CI = os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CatalogSettings]:
    """The catalog in force for the whole run: an SQLite file, as on a laptop."""
    folder = tmp_path_factory.mktemp("lake")
    settings = CatalogSettings(uri=f"sqlite:///{folder / 'catalog.db'}", warehouse=str(folder / "warehouse"))
    before = {k: os.environ.pop(k, None) for k in ("SHOAL_CATALOG_URI", "SHOAL_CATALOG_WAREHOUSE")}
    settled = catalogs.settings(settings)
    # By environment, so that worker processes and Spark's children find it as they would in real use.
    os.environ["SHOAL_CATALOG_URI"], os.environ["SHOAL_CATALOG_WAREHOUSE"] = settled.uri, settled.warehouse
    catalogs.catalog()
    yield settled
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


_count = itertools.count()


@pytest.fixture
def name(lake: CatalogSettings, request: pytest.FixtureRequest) -> str:
    """The name of a table that no other test uses."""
    return f"t{next(_count)}.{request.node.originalname.removeprefix('test_')[:40]}"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes in between is on another machine: in this process, it would wait for the turn that this test holds."""
    monkeypatch.setattr(turns, "_LONGEST", 0.01)


@pytest.fixture(scope="session")
def client(lake: CatalogSettings) -> Iterator[Any]:
    """A Dask client of two worker processes."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit="2GiB"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def dask_cluster(client: Any) -> Iterator[Any]:
    """The same client as the default one, for the length of a test."""
    with client.as_current():
        yield client


@pytest.fixture(scope="session")
def spark(lake: CatalogSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Spark Connect session, Spark 4.1.3 with the real Iceberg jar, on the same catalog."""
    reason = _no_java()
    if reason and not IN_CI:
        pytest.skip(reason)
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.remote("local[2]")
    builder = builder.config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "2")
    builder = builder.config("spark.driver.memory", "2g")
    # As in clusters of Shoal: workers that run Python are this Python, with what is installed in it.
    builder = builder.config("spark.sql.execution.pyspark.python", sys.executable)
    builder = builder.config("spark.connect.grpc.binding.address", "127.0.0.1")
    builder = builder.config("spark.local.dir", str(tmp_path_factory.mktemp("spark")))
    for key, value in spark_conf(lake, packages=True).items():
        builder = builder.config(key, value)
    with warnings.catch_warnings():
        # The server has these; PySpark sets them once more on the session, where they are fixed.
        warnings.filterwarnings("ignore", message="Failed to set spark", category=UserWarning)
        # PySpark's own switch for a free port; without it every local server of the machine wants 15002.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPARK_TESTING", "1")
            session = builder.getOrCreate()
    yield session
    session.stop()


def _no_java() -> str | None:
    java = shutil.which("java")
    if java is None:
        return "Spark needs Java 17, and there is no java on PATH"
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    return None if '"17' in text or '"21' in text else f"Spark needs Java 17, this is {text.splitlines()[0]}"


@pytest.fixture
def sql(spark: Any) -> Callable[[str], Any]:
    """Run one Spark SQL statement; the answer as a pandas frame."""

    def run(statement: str) -> Any:
        with warnings.catch_warnings():
            # PySpark's conversion asks pandas for things it has deprecated.
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            return spark.sql(statement).toPandas()

    return run


@pytest.fixture
def data_files(lake: CatalogSettings) -> Callable[[str], set[Path]]:
    """The data files that are on disk under a table's folder, whether it refers to them or not."""

    def find(name: str) -> set[Path]:
        location = catalogs.load(name, lake).location().removeprefix("file://").removeprefix("file:")
        return set(Path(location, "data").rglob("*.parquet"))

    return find
