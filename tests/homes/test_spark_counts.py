"""What counts as work and as memory of a Spark cluster: a query that waits for its trigger, Python workers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import shoal
from shoal.model.cluster import Reason, State

Eventually = Callable[..., Any]


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="threads have names that others can read on Linux alone")
def test_a_waiting_stream_is_work_and_python_workers_have_memory(
    project: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A streaming query sends nothing between two triggers; a UDF's memory is not the JVM's."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with shoal.spark("small", workers=1, idle="5 s", project=project, quiet=True) as cluster:
        assert isinstance(cluster, shoal.SparkCluster)
        session = cluster.session
        from pyspark.sql.functions import udf

        def holds(number: int) -> int:
            import time

            held = bytearray(b"x") * 300_000_000
            time.sleep(4)
            return len(held) + number

        before = cluster._home.status(cluster.id)
        assert before is not None
        found = session.range(1).select(udf(holds, "long", useArrow=False)("id").alias("n")).collect()
        assert found[0].n == 300_000_000
        after = cluster._home.status(cluster.id)
        assert after is not None
        assert after.peak_memory - before.peak_memory > 200e6, "its Python workers' memory counts"
        assert after.clients == 1, "and they are no clients"
        assert_a_large_frame_comes_out_as_a_small_one(session)
        source = session.readStream.format("rate").option("rowsPerSecond", 1).load()
        query = source.writeStream.format("noop").trigger(processingTime="1 hour").start()
        time.sleep(10)
        assert cluster.record.state is State.READY, "a query that waits for its trigger is work"
        query.stop()
        eventually(lambda: cluster.record.state.ended, 60, "it rests")
        assert cluster.record.reason is Reason.IDLE


def assert_a_large_frame_comes_out_as_a_small_one(session: Any) -> None:
    """A pandas frame of 104 MB on a cluster with 0.7 GB of heap: it was "Java heap space" after minutes."""
    rows = 2_000_000
    number = np.arange(rows)
    frame = pd.DataFrame(
        {
            "i": number,
            "f": np.where(number % 7, number / 3, np.nan),
            "s": pd.Series(np.array(["", "a", None, "long enough"], dtype=object)[number % 4]),
            "a b": pd.to_datetime(number * 10**9),
            "t": pd.to_datetime(number * 10**9, utc=True),
            "y": number % 2 == 0,
        }
    )
    few = session.createDataFrame(frame.head(1000))
    many = session.createDataFrame(frame)
    assert many.schema == few.schema
    assert many.count() == rows
    assert many.selectExpr("sum(i) as s").collect()[0].s == int(number.sum())
    first = many.where("i < 1000").orderBy("i").toPandas()
    pd.testing.assert_frame_equal(first, few.orderBy("i").toPandas())
    given = session.createDataFrame(frame[["i", "s"]], schema="k long, v string")
    assert given.columns == ["k", "v"]
    assert given.where("v is null").count() == rows / 4
