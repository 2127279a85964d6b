"""Clusters in programs with an event loop: nothing blocks it, and what is awaited works."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.client.clusters import open_home, open_project
from shoal.client.opening import Opening
from shoal.errors import ClusterEndedError, UsageError
from shoal.model.cluster import State


class Ticks:
    """How long the loop was ever away, in seconds."""

    longest = 0.0

    @contextlib.asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        async def tick() -> None:
            last = time.monotonic()
            while True:
                await asyncio.sleep(0.01)
                self.longest = max(self.longest, time.monotonic() - last - 0.01)
                last = time.monotonic()

        task = asyncio.create_task(tick())
        try:
            yield
        finally:
            task.cancel()


def test_async_with_starts_computes_and_closes_beside_the_loop(shared_project: Path) -> None:
    """A web service opens a cluster for a request: the other requests go on meanwhile."""
    ticks = Ticks()

    async def main() -> tuple[float, shoal.DaskCluster]:
        async with ticks.counted():
            begin = time.monotonic()
            async with shoal.dask("small", workers=1, project=shared_project, quiet=True) as cluster:
                took = time.monotonic() - begin
                assert isinstance(cluster, shoal.DaskCluster)
                assert cluster.client.asynchronous
                assert await cluster.client.submit(sum, [1, 2]) == 3
                assert await cluster.client.gather(cluster.client.map(abs, [-1, -2])) == [1, 2]
            return took, cluster

    took, cluster = asyncio.run(main())
    assert cluster.record.state is State.STOPPED
    assert ticks.longest < took / 2, f"the loop stood still for {ticks.longest:.2f} of {took:.2f} s"


def test_every_other_way_into_a_cluster_works_in_a_loop_too(shared_project: Path) -> None:
    """A helper, an exit stack, a notebook's plain `with`, a second task that connects by name."""
    options: dict[str, Any] = {"workers": 1, "project": shared_project, "quiet": True}

    def helper(**more: Any) -> shoal.DaskCluster:
        return shoal.dask("small", name="helped", **options, **more)

    async def main() -> None:
        with shoal.dask("small", name="helped", **options) as plain:  # as in a notebook's cell
            assert not plain.client.asynchronous
            assert plain.client.submit(sum, [1, 2]).result() == 3
            async with helper() as first:
                assert not first.owns
                assert await first.client.submit(sum, [1, 2]) == 3
            async with contextlib.AsyncExitStack() as stack:
                second = await stack.enter_async_context(helper(asynchronous=True))
                assert await second.client.submit(sum, [1, 2], pure=False) == 3
            async with shoal.connect("helped", project=shared_project) as third:
                assert isinstance(third, shoal.DaskCluster)
                assert await third.client.submit(sum, [1, 2], pure=False) == 3
            assert plain.client.submit(sum, [2, 2]).result() == 4
            with pytest.raises(UsageError, match="no option 'n_workers'"):
                async with shoal.dask("small", n_workers=1):
                    pass
        assert plain.record.state is State.STOPPED

    asyncio.run(main())


def test_a_task_that_is_cancelled_while_its_cluster_starts_leaves_nothing(
    shared_project: Path, marked: Callable[[], dict[int, str]], eventually: Callable[..., Any]
) -> None:
    async def use() -> None:
        async with shoal.dask("small", workers=1, name="early", project=shared_project, quiet=True):
            raise AssertionError("it was cancelled before")

    async def main() -> None:
        home = open_home(open_project(shared_project))
        task = asyncio.create_task(use())
        while home.find("early", home.user()) is None:
            assert not task.done()
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert home.clusters() == []

    asyncio.run(main())
    eventually(lambda: not marked(), 20, "no process is left")


def test_an_awaited_result_says_why_its_cluster_ended(shared_project: Path) -> None:
    async def main() -> None:
        async with shoal.dask("small", workers=1, project=shared_project, quiet=True) as cluster:
            waiting = cluster.client.submit(time.sleep, 600, pure=False)
            os.kill(cluster.record.head["pid"], signal.SIGKILL)
            await waiting

    with pytest.raises(ClusterEndedError, match="HeadCrashed"):
        asyncio.run(asyncio.wait_for(main(), 120))


def test_only_an_async_with_makes_a_call_wait_for_its_block(shared_project: Path) -> None:
    """A mere call in a coroutine starts at once, as ever; Dask's default client has to be there after it."""

    async def main() -> tuple[type, type]:
        deferred = shoal.dask("small", project=shared_project, asynchronous=True)
        with shoal.dask("small", workers=1, project=shared_project, quiet=True) as now:
            return type(deferred), type(now)

    assert asyncio.run(main()) == (Opening, shoal.DaskCluster)
    with pytest.raises(TypeError, match="async with"), shoal.dask("small", asynchronous=True):
        pass


@pytest.mark.filterwarnings("error")
def test_a_cluster_without_a_block_closes_in_its_loop(shared_project: Path) -> None:
    """`close()` there printed that a coroutine was never awaited; the connection stayed."""
    ticks = Ticks()

    async def main() -> None:
        for name in ("awaited", "blocking"):
            cluster = await shoal.dask(
                "small", workers=1, name=name, project=shared_project, quiet=True, asynchronous=True
            )
            assert await cluster.client.submit(sum, [1, 2]) == 3
            client = cluster.client
            if name == "awaited":
                async with ticks.counted():
                    await cluster.aclose()
            else:
                cluster.close()
                await asyncio.sleep(0.5)
            assert client.status == "closed"
            assert cluster.record.state is State.STOPPED

    asyncio.run(main())
    gc.collect()
    assert ticks.longest < 1


@pytest.mark.spark
@pytest.mark.slow
def test_spark_starts_and_closes_beside_the_loop(shared_project: Path) -> None:
    ticks = Ticks()

    async def main() -> tuple[float, shoal.SparkCluster]:
        async with ticks.counted():
            begin = time.monotonic()
            async with shoal.spark("small", workers=1, project=shared_project, quiet=True) as spark:
                took = time.monotonic() - begin
                rows = await asyncio.to_thread(lambda: spark.sql("select 40 + 2 as n").collect())
                assert rows[0].n == 42
            return took, spark

    took, spark = asyncio.run(main())
    assert spark.record.state is State.STOPPED
    assert ticks.longest < took / 2
