"""Several clusters in one process: what a block computes, its own cluster computes."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest

import shoal
from shoal.errors import ClusterEndedError
from shoal.model.cluster import Reason


def where(*_: Any) -> str:
    return os.environ.get("SHOAL_CLUSTER", "here")


def computed() -> str:
    """Where Dask computes what no client is named for."""
    found: str = dask.delayed(where)(pure=False).compute()
    return found


def in_a_thread(cluster: shoal.DaskCluster) -> list[str]:
    """Where a plain thread computes by itself, and where by the client of this cluster."""
    found: list[str] = []

    def compute() -> None:
        found.append(computed())
        with cluster.client.as_current():
            found.append(computed())

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join(60)
    return found


def started(project: Path, name: str, **options: Any) -> shoal.DaskCluster:
    return shoal.dask("small", workers=1, name=name, project=project, quiet=True, **options)


def test_each_thread_computes_in_its_own_cluster(shared_project: Path) -> None:
    """The work of one block ran in the newest cluster, and was lost when that one's block ended."""
    both, over = threading.Barrier(2), threading.Event()

    def first() -> tuple[str, str, str]:
        with started(shared_project, "thread-1") as cluster:
            both.wait(60)
            beside = computed()
            both.wait(60)
            assert over.wait(60)
            return cluster.id, beside, computed()

    def second() -> tuple[str, str]:
        try:
            with started(shared_project, "thread-2") as cluster:
                both.wait(60)
                beside = computed()
                both.wait(60)
                return cluster.id, beside
        finally:
            over.set()

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(first), pool.submit(second)
        assert set(one.result(120)) == {one.result()[0]}
        assert set(other.result(120)) == {other.result()[0]}
    assert computed() == "here"


def test_each_task_of_a_loop_computes_in_its_own_cluster(shared_project: Path) -> None:
    """As the page on notebooks shows it: calls that block go to a thread, with the task's context."""
    ready: list[str] = []

    async def one(name: str) -> tuple[str, str]:
        async with started(shared_project, name) as cluster:
            ready.append(name)
            while len(ready) < 2:
                await asyncio.sleep(0.02)
            return cluster.id, await asyncio.to_thread(computed)

    async def main() -> list[tuple[str, str]]:
        return list(await asyncio.gather(one("task-1"), one("task-2")))

    for cluster_id, found in asyncio.run(main()):
        assert found == cluster_id
    assert computed() == "here"


def test_blocks_in_blocks_and_exits_in_any_order(shared_project: Path) -> None:
    with started(shared_project, "outer") as outer:
        with started(shared_project, "inner") as inner:
            assert computed() == inner.id
            assert in_a_thread(outer) == [inner.id, outer.id], "threads have no block, unless they say whose"
            with shoal.connect("outer", project=shared_project):
                assert computed() == outer.id, "also before anything asked for its client"
            assert computed() == inner.id
            outer.close()  # before the inner one's block ends
            assert computed() == inner.id
        assert computed() == "here", "neither is open"
        plain = shoal.dask("small", workers=1, project=shared_project, quiet=True)
        assert computed() == plain.id, "without a block it is the default of the process"
        plain.close()
    assert computed() == "here"
    assert dask.config.get("scheduler", None) is None


def test_a_scheduler_of_the_users_own_is_back_after_clusters_that_overlap(shared_project: Path) -> None:
    with dask.config.set(scheduler="synchronous"):
        first, second = started(shared_project, "overlap-1"), started(shared_project, "overlap-2")
        assert computed() == second.id
        first.close()
        assert computed() == second.id
        second.close()
        assert dask.config.get("scheduler") == "synchronous"
        assert computed() == "here"


def test_a_block_beside_a_plain_client_of_dasks(shared_project: Path) -> None:
    with started(shared_project, "beside") as cluster:
        client = cluster.client
        plain = distributed.Client(client.scheduler.address, security=client.security)
        assert distributed.default_client() is client, "the block's, though the other one is newer"
        with plain:
            assert distributed.default_client() is plain
        assert distributed.default_client() is client
    with pytest.raises(ValueError, match="No clients found"):
        distributed.default_client()


def test_work_for_a_cluster_that_ended_is_never_done_by_another_process(
    shared_project: Path, eventually: Any
) -> None:
    """`df.compute()` ran in the notebook's own process, in silence, once the cluster had ended under its block."""
    other = started(shared_project, "stays")
    cluster = started(shared_project, "ends")
    try:
        cluster._home.stop(cluster.id, Reason.STOPPED_BY_USER, "ended by `shoal down`")
        eventually(lambda: cluster.client.status == "ended", 30, "the client knows it")
        outside = contextvars.Context()
        for _ in range(2):
            with pytest.raises(ClusterEndedError, match="ended by `shoal down`"):
                outside.run(computed)
            with pytest.raises(ClusterEndedError, match="ended by `shoal down`"):
                dask.persist(dask.delayed(where)())
        with cluster, pytest.raises(ClusterEndedError, match="ended by `shoal down`"):
            computed()
        assert computed() == other.id, "closed: the other one is the default again"
    finally:
        cluster.close()
        other.close()
    assert computed() == "here"


def test_a_call_that_is_tried_again_after_the_end_is_refused_each_time(
    shared_project: Path, eventually: Any
) -> None:
    """The second try found the future of the first, which nobody would ever answer."""
    with started(shared_project, "retried") as cluster:
        client, kept = cluster.client, []
        client.submit(abs, -1).result()
        cluster._home.stop(cluster.id, Reason.STOPPED_BY_USER, "ended by `shoal down`")
        eventually(lambda: cluster.record.state.ended, 30, "it ended")
        for _ in range(4):
            begin = time.monotonic()
            with pytest.raises(ClusterEndedError, match="ended by `shoal down`") as caught:
                client.submit(abs, -2).result(20)
            assert time.monotonic() - begin < 10
            kept.append(caught.value)  # and with it its frames, which hold the futures
        assert len({id(error) for error in kept}) == len(kept)
        assert not client.futures
