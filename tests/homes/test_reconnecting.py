"""A connection that is lost while nobody can say whether the cluster lives, as when an API server restarts."""

from __future__ import annotations

import warnings

import pytest
from distributed import CancelledError, Event, LocalCluster

from shoal.client.dask_ending import TellingClient
from shoal.errors import ClusterEndedError, InfrastructureError


def test_a_client_connects_again_where_nobody_knows_whether_its_cluster_ended() -> None:
    def away() -> ClusterEndedError | None:
        raise InfrastructureError("the API server did not answer")

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        TellingClient(cluster.scheduler_address, why=away) as client,
    ):
        assert client.submit(sum, [1, 2]).result(30) == 3
        waiting = client.submit(Event("never", client=client).wait, 30)
        client.loop.add_callback(client.scheduler_comm.comm.abort)
        client.sync(_until_connected, client)
        with pytest.raises(CancelledError, match="shoal submit"):
            waiting.result(30)
        assert client.submit(sum, [2, 2], pure=False).result(30) == 4


def test_another_version_on_a_worker_keeps_nobody_from_connecting_again_where_warnings_are_errors() -> None:
    """Handles compare versions themselves; Dask's own warning ended the client's attempt, and it never came back."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        warnings.catch_warnings(),
    ):
        for worker in cluster.scheduler.workers.values():
            worker.versions = {"packages": {"dask": "2020.1.0"}}
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with TellingClient(cluster.scheduler_address) as client:
            client.loop.add_callback(client.scheduler_comm.comm.abort)
            client.sync(_until_connected, client)
            assert client.submit(sum, [2, 2]).result(30) == 4
        assert list(warnings.filters) == before


async def _until_connected(client: TellingClient) -> None:
    import asyncio

    lost = client.scheduler_comm
    for _ in range(600):
        if client.status == "running" and client.scheduler_comm not in (None, lost):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"it is still {client.status}")
