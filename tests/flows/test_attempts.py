"""A flow that crashes, and its next attempt: clusters are found again, replaced, or end by themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.client.clusters import _opened
from shoal.errors import ClusterEndedError, UsageError
from shoal.homes.local.ledger import Ledger
from shoal.model.cluster import Reason, State
from shoal.prefect import dask_cluster
from shoal.prefect.runs import cluster_name

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("attempts.py")


@pytest.fixture
def attempt(api: Any, project: Path) -> Callable[..., Any]:
    """Start an attempt; gives the process and what it said once it had its cluster."""

    @contextmanager
    def start(
        flow_run: str, workers: int, what: str, *more: str
    ) -> Iterator[tuple[subprocess.Popen[str], Any]]:
        env = dict(os.environ, PREFECT_API_URL=api.url, DO_NOT_TRACK="1", PREFECT_LOGGING_LEVEL="WARNING")
        env["PREFECT_HOME"] = str(project.parent / "prefect")
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), flow_run, str(project), str(workers), what, *more],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("{"), line + process.stderr.read()
            yield process, json.loads(line)
        finally:
            process.kill()
            process.wait(10)
            process.stdout.close()
            process.stderr.close()

    return start


def test_a_retry_takes_over_what_a_crash_left_or_replaces_it(
    attempt: Callable[..., Any], api: Any, eventually: Callable[..., Any]
) -> None:
    with attempt("new", 1, "hold") as (process, first):
        assert first["number"] == 42
        assert first["name"] == cluster_name(first["flow_run"], "small")
        assert first["tags"]["prefect.flow-run-id"] == first["flow_run"]
        assert first["tags"]["prefect.flow"] == "attempts"
        assert "role 'small' open already" in first["twice"]
        assert "role=" in first["twice"]
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    # The same again: the cluster is taken over, and serves.
    with attempt(first["flow_run"], 1, "hold") as (process, second):
        assert (second["cluster"], second["number"]) == (first["cluster"], 42)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    # Asked for differently: it is replaced, never held twice, and the report counts both.
    with attempt(first["flow_run"], 2, "finish") as (process, third):
        assert third["cluster"] != first["cluster"]
        assert third["name"] == first["name"]
        assert json.loads(process.stdout.readline()) == {"phases": 2}
        errors = process.stderr.read()
        assert process.wait(60) == 0, errors
        assert "the report could not be published as artifact no key for Prefect" in errors
    with Ledger().read() as tx:
        old, new = tx.get(first["cluster"]), tx.get(third["cluster"])
    assert (old.state, old.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)
    assert "replaced by attempt" in old.message
    assert new.state is State.STOPPED
    assert old.ended_at is not None
    assert old.ended_at <= new.created
    assert set(api.artifacts(first["flow_run"])) == {"shoal-small", "attempts"}


def test_a_retry_after_an_error_gets_a_cluster_of_its_own_under_the_same_name(
    attempt: Callable[..., Any],
) -> None:
    with attempt("new", 1, "retry") as (process, first):
        second = json.loads(process.stdout.readline())
        errors = process.stderr.read()
        assert process.wait(60) == 0, errors
    assert (second["name"], second["number"]) == (first["name"], 42)
    assert second["cluster"] != first["cluster"]
    assert [said["tags"]["prefect.attempt"] for said in (first, second)] == ["1", "2"]
    with Ledger().read() as tx:
        assert {tx.get(said["cluster"]).state for said in (first, second)} == {State.STOPPED}


def test_outside_of_a_flow_it_is_a_cluster_like_any_other(project: Path) -> None:
    with dask_cluster("small", workers=1, project=project, quiet=True) as cluster:
        assert cluster.client.submit(lambda: 42).result(30) == 42
        assert cluster.record.tags == {}
    assert cluster.record.state is State.STOPPED


def test_a_cluster_that_ended_before_it_was_connected_to_is_told_as_that(
    project: Path, eventually: Callable[..., Any]
) -> None:
    """By this the next try tells a leftover that ended under its hands from a fault."""
    handle = shoal.up("small", engine="dask", workers=1, project=project, quiet=True)
    handle._home.stop(handle.id, Reason.STOPPED_BY_USER, "ended by somebody else")
    eventually(lambda: handle.record.state.ended, 30, "it ended")
    with pytest.raises(ClusterEndedError, match=r"StoppedByUser"):
        _opened(handle)


def test_detach_contradicts_a_block(project: Path) -> None:
    with pytest.raises(UsageError, match=r"shoal\.up"), dask_cluster("small", project=project, detach=True):
        pass
    with Ledger().read() as tx:
        assert tx.all() == []


def test_after_kill_9_of_the_flow_its_cluster_ends_by_itself(
    attempt: Callable[..., Any], marked: Callable[[], dict[int, str]], eventually: Callable[..., Any]
) -> None:
    with attempt("new", 1, "hold", "no_client=8 s") as (process, said):
        cluster = said["cluster"]
        assert cluster in marked().values()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        # Nobody calls: only processes are looked at until they are gone.
        eventually(lambda: cluster not in marked().values(), 60, "its processes are gone")
    with Ledger().read() as tx:
        record = tx.get(cluster)
    assert (record.state, record.reason) == (State.STOPPED, Reason.CLIENT_GONE)


def test_sigterm_of_the_flow_closes_its_cluster(attempt: Callable[..., Any]) -> None:
    with attempt("new", 1, "hold") as (process, said):
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    with Ledger().read() as tx:
        record = tx.get(said["cluster"])
    assert (record.state, record.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)
