"""A head before its decision, and the workers that are forked from it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from shoal.client.clusters import open_project, prepare
from shoal.errors import QuotaExceededError, ShoalError
from shoal.homes.base import Request
from shoal.homes.choose import open_home
from shoal.homes.local.ahead import ahead
from shoal.model.cluster import Reason

Marked = Callable[[], dict[int, str]]
Eventually = Callable[..., Any]


def of(marked: Marked, cluster_id: str) -> set[int]:
    return {pid for pid, cluster in marked().items() if cluster == cluster_id}


def test_it_is_there_while_somebody_decides_and_nobody_else_ends_it(project: Path, marked: Marked) -> None:
    home = open_home(open_project(project))
    with ahead("dask", project) as cluster_id:
        (pid,) = of(marked, cluster_id)
        assert home.reap() == [], "unknown to the ledger, but somebody decides on it"
        assert psutil.pid_exists(pid)
    assert not of(marked, cluster_id), "nobody needed it"
    assert not (Path(os.environ["SHOAL_DATA"]) / "run" / cluster_id).exists()


def test_it_is_what_the_cluster_runs_in(project: Path, marked: Marked) -> None:
    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        head = psutil.Process(cluster.record.head["pid"])
        assert head.cmdline()[-1] == "ahead"
        guard = head.parent()
        assert guard is not None
        assert guard.ppid() == os.getpid(), "whoever was there ahead is its guard"
        assert guard.memory_info().rss < 20e6, "a guard is light"


@pytest.mark.parametrize("broken", ["shoal.yaml", "clusters/small.yaml"])
def test_a_broken_project_is_told_and_leaves_nothing(project: Path, marked: Marked, broken: str) -> None:
    (project / broken).write_text("targets: [")
    with pytest.raises(ShoalError, match=broken):
        shoal.dask("small", project=project, quiet=True)
    assert not marked()


def test_what_is_refused_or_waits_has_none(project: Path, marked: Marked) -> None:
    held = [shoal.up("small", engine="dask", workers=1, project=project, quiet=True) for _ in range(2)]
    before = set(marked())
    with pytest.raises(QuotaExceededError):
        shoal.dask("small", workers=1, project=project, quiet=True)
    assert set(marked()) == before
    waits = shoal.up("small", engine="dask", project=project, quiet=True, detach=True, queue=True)
    (waiter,) = of(marked, waits.id)
    assert "ahead" not in psutil.Process(waiter).cmdline(), "a waiter is light"
    waits._home.stop(waits.id, Reason.STOPPED_BY_USER, "the test is over")
    for handle in held:
        handle.close()


def test_nothing_of_where_the_client_stood_can_be_imported_by_a_head(project: Path) -> None:
    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        paths = cluster.client.run_on_scheduler(lambda: __import__("sys").path)
        assert not {"", os.getcwd(), str(project)} & set(paths)


def test_forked_workers_share_no_randomness(project: Path) -> None:
    def luck() -> tuple[float, float, float, str]:
        import random
        import uuid

        import numpy as np

        # Python's own, NumPy's old and new generators, and what ids are made of.
        return (
            random.random(),
            float(np.random.rand()),
            float(np.random.default_rng().random()),
            uuid.uuid4().hex,
        )

    with shoal.dask("small", workers=3, project=project, quiet=True) as cluster:
        server = psutil.Process(cluster.record.head["pid"]).children()
        workers = set(cluster.client.run(os.getpid).values())
        assert workers <= {child.pid for each in server for child in each.children()}, "they are forks"
        drawn = cluster.client.run(luck).values()
        for kind in zip(*drawn, strict=True):
            assert len(set(kind)) == 3


def test_the_server_of_forks_may_die_and_workers_come_back(
    project: Path, marked: Marked, eventually: Eventually
) -> None:
    with shoal.dask("small", workers=2, project=project, quiet=True) as cluster:
        before = set(cluster.client.run(os.getpid).values())
        server = psutil.Process(next(iter(before))).parent()
        assert server is not None
        assert server.pid != cluster.record.head["pid"]
        server.send_signal(signal.SIGKILL)
        eventually(lambda: not any(map(psutil.pid_exists, before)), 5, "workers go with it")
        assert cluster.client.submit(sum, [1, 2]).result(timeout=60) == 3
        eventually(lambda: len(cluster.client.run(os.getpid)) == 2, 60, "both are back")
        assert not before & set(cluster.client.run(os.getpid).values())


def test_one_that_died_before_the_decision_is_replaced(project: Path, marked: Marked) -> None:
    home = open_home(open_project(project))
    request = prepare("small", engine="dask", workers=1, project=project)
    with ahead("dask", project) as cluster_id:
        (pid,) = of(marked, cluster_id)
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)], timeout=0.2)
        asked = Request("c", request.user, request.workload, request.plan, id=cluster_id)
        cluster = home.request(asked)
    assert cluster.id == cluster_id
    assert cluster.head["pid"] != pid
    with shoal.connect("c", project=project) as handle:
        assert isinstance(handle, shoal.DaskCluster)
        assert handle.client.submit(sum, [1, 2]).result() == 3
    home.stop(cluster_id, Reason.STOPPED_BY_USER, "the test is over")
