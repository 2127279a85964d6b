"""Dask and Spark, one after the other and mixed, on the same SQLite catalog."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import shoal
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import TableNotFoundError

pytestmark = pytest.mark.spark

Sql = Callable[[str], Any]


def frame(rows: int = 1000) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": np.arange(rows, dtype="int64"),
            "carrier": [["AA", "UA", "DL"][i % 3] for i in range(rows)],
            "delay": np.where(np.arange(rows) % 10 == 0, np.nan, np.arange(rows) * 0.5),
            "at": pd.date_range("2026-01-01", periods=rows, freq="h"),
        }
    )


def test_spark_reads_what_dask_wrote_and_back(name: str, dask_cluster: Any, sql: Sql) -> None:
    df = frame()
    result = shoal.write_table(dd.from_pandas(df, npartitions=4), name, partition_by="carrier")
    assert result.rows == 1000
    assert len(result.pids) == 2, "both workers wrote"
    assert result.snapshot_id in set(shoal.snapshots(name).snapshot_id)

    seen = sql(f"select count(*) n, sum(id) s, count(delay) d, max(`at`) t from shoal.{name}").iloc[0]
    assert (seen.n, seen.s, seen.d) == (1000, df.id.sum(), df.delay.count())
    assert pd.Timestamp(seen.t) == df["at"].max()

    sql(
        f"insert into shoal.{name} select id + 1000, 'WN', delay, `at` from shoal.{name} where carrier = 'AA'"
    )
    sql(f"update shoal.{name} set delay = 0 where id = 3")
    sql(f"delete from shoal.{name} where carrier = 'DL'")
    back = shoal.read_table(name)
    ours = back.compute()
    theirs = sql(f"select * from shoal.{name}")
    assert len(back) == len(ours) == len(theirs)
    assert sorted(ours.id.tolist()) == sorted(theirs.id.tolist())
    assert float(ours.delay.sum()) == pytest.approx(float(theirs.delay.sum()))
    assert set(ours.carrier) == {"AA", "UA", "WN"}

    shoal.write_table(df.head(10), name)
    assert sql(f"select count(*) n from shoal.{name}").n[0] == len(theirs) + 10


def test_many_small_commits_interleave(name: str, lake: Any, sql: Sql) -> None:
    """The trap of SQLite: a Spark that keeps a read transaction open locks out, or sees old snapshots."""
    for step in range(6):
        shoal.write_table(frame(5), name)
        assert sql(f"select count(*) n from shoal.{name}").n[0] == step * 10 + 5
        sql(f"insert into shoal.{name} select * from shoal.{name} limit 5")
        assert len(shoal.read_table(name)) == step * 10 + 10


def test_a_table_made_by_spark(name: str, lake: Any, sql: Sql) -> None:
    namespace = name.split(".")[0]
    sql(f"create namespace if not exists shoal.{namespace}")
    columns = "id int, name string, price decimal(10,2)"
    sql(f"create table shoal.{name} ({columns}) using iceberg partitioned by (bucket(4, id))")
    df = pd.DataFrame(
        {"id": [1, 2, 3], "name": ["a", None, "c"], "price": [Decimal(1), Decimal(2), Decimal(3)]}
    )
    shoal.write_table(df, name)
    assert sql(f"select name from shoal.{name} where id = 3").name[0] == "c"
    assert sql(f"select sum(price) p from shoal.{name}").p[0] == 6


def test_a_frame_crosses_both_ways_and_leaves_nothing(
    lake: CatalogSettings, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Path(lake.warehouse.removeprefix("file://"))
    with shoal.staged(dd.from_pandas(frame(20), npartitions=2)) as name:
        summed = spark.sql(f"select carrier, sum(id) s from shoal.{name} group by carrier")
        with shoal.staged(summed) as back:
            found = shoal.read_table(back).compute()
    assert dict(zip(found.carrier, found.s, strict=True)) == frame(20).groupby("carrier").id.sum().to_dict()
    assert list((warehouse / "shoal_staging").rglob("*.*")) == []
    # A process that was killed inside its block left one behind; a day later it is dropped.
    monkeypatch.setattr("shoal.tables.writing.staging.KEPT_SECONDS", -2)
    stale = "shoal_staging.t_1_" + "0" * 32
    shoal.write_table(frame(2), stale)
    with shoal.staged(frame(2)):
        pass
    with pytest.raises(TableNotFoundError):
        shoal.read_table(stale)
