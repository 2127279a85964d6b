"""Both engines over a team's catalog, named in ``shoal.yaml``: PostgreSQL and REST, with files on S3."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import cloudpickle
import dask.dataframe as dd
import pandas as pd
import pytest

import shoal
from shoal.machine import paths
from shoal.tables.catalogs.opening import settings

FLIGHTS = pd.DataFrame({"carrier": ["UA", "AA", "UA", "DL"] * 50, "delay": [12.0, 3.0, 20.0, -2.0] * 50})
_PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def documented(url: str, endpoint: str) -> str:
    """The block of docs/tables.md with the addresses of the test's own servers."""
    found = re.search(r"^```yaml\n(catalog:\n.*?)^```", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    block = re.sub(r"uri: .*", f'uri: "{url}"', found[1])
    return block.replace("https://s3.example.com", endpoint)


@pytest.mark.spark
@pytest.mark.slow
def test_dask_writes_spark_changes_dask_reads_and_no_secret_is_left(
    project: Path, postgresql: Any, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.bucket("lake")
    url = postgresql.database("shared").replace(postgresql.password, "${CATALOG_PASSWORD}")
    block = textwrap.indent(documented(url, s3.properties["s3.endpoint"]), "    ")
    written = (project / "shoal.yaml").read_text()
    (project / "shoal.yaml").write_text(written.replace("    home: local\n", f"    home: local\n{block}", 1))
    for variable, value in {
        "CATALOG_PASSWORD": postgresql.password,
        "LAKE_KEY": s3.key,
        "LAKE_SECRET": s3.secret,
    }.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("SHOAL_CATALOG_URI")  # else it would be the catalog
    monkeypatch.chdir(project)

    with shoal.dask("small", workers=2, project=project, quiet=True) as cluster:
        shoal.write_table(dd.from_pandas(FLIGHTS, npartitions=4), "demo.flights")
        mean = shoal.read_table("demo.flights").groupby("carrier").delay.mean()
        assert mean.compute().to_dict() == {"AA": 3.0, "DL": -2.0, "UA": 16.0}
        graph = cloudpickle.dumps(mean.optimize().__dask_graph__())
        logs = cluster.logs(10_000)
        shown = f"{cluster!r} {cluster._repr_html_()} {settings()!r}"
        ids = [cluster.id]
    with shoal.spark("small", workers=1, project=project, quiet=True) as spark:
        spark.sql("insert into shoal.demo.flights values ('XX', 1.0)")
        assert spark.table("demo.flights").count() == 201
        logs += spark.logs(10_000)
        ids.append(spark.id)
    assert len(shoal.read_table("demo.flights")) == 201
    assert s3.objects("lake"), "the files are in the bucket"
    for secret in (postgresql.password, s3.secret):
        assert secret.encode() not in graph
        assert secret not in logs
        assert secret not in shown
        for folder in map(paths.run_folder, ids):
            for file in folder.rglob("*"):
                assert not file.is_file() or secret.encode() not in file.read_bytes(), file


@pytest.mark.spark
@pytest.mark.slow
def test_both_engines_over_a_rest_catalog_that_alone_knows_the_keys(
    project: Path, rest_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As documented: workers, which hold no keys, and Spark are given them by the catalog."""
    found = re.search(
        r"^### A REST catalog\n.*?^```yaml\n(catalog:\n.*?)^```", _PAGE.read_text(), re.M | re.S
    )
    assert found is not None
    block = re.sub(r"uri: .*", f"uri: {rest_server.uri}", found[1], count=1)
    block = block.replace("https://s3.example.com", rest_server.storage["s3.endpoint"]).replace(
        "  warehouse: lake\n", ""
    )
    written = (project / "shoal.yaml").read_text()
    indented = textwrap.indent(block, "    ")
    (project / "shoal.yaml").write_text(
        written.replace("    home: local\n", f"    home: local\n{indented}", 1)
    )
    client, _, secret = rest_server.owner.partition(":")
    monkeypatch.setenv("CATALOG_CLIENT", client)
    monkeypatch.setenv("CATALOG_SECRET", secret)
    monkeypatch.delenv("SHOAL_CATALOG_URI")
    monkeypatch.chdir(project)
    with shoal.dask("small", workers=2, project=project, quiet=True) as cluster:
        shoal.write_table(dd.from_pandas(FLIGHTS, npartitions=4), "demo.flights")
        mean = shoal.read_table("demo.flights").groupby("carrier").delay.mean()
        assert mean.compute().to_dict() == {"AA": 3.0, "DL": -2.0, "UA": 16.0}
        graph = cloudpickle.dumps(mean.optimize().__dask_graph__())
        logs, ids = cluster.logs(10_000), [cluster.id]
    with shoal.spark("small", workers=1, project=project, quiet=True) as spark:
        spark.sql("insert into shoal.demo.flights values ('XX', 1.0)")
        assert spark.table("demo.flights").count() == 201
        logs += spark.logs(10_000)
        ids.append(spark.id)
    assert len(shoal.read_table("demo.flights")) == 201
    for hidden in (secret, rest_server.storage["s3.secret-access-key"]):
        assert hidden.encode() not in graph
        assert hidden not in logs
        for folder in map(paths.run_folder, ids):
            for file in folder.rglob("*"):
                assert not file.is_file() or hidden.encode() not in file.read_bytes(), file
