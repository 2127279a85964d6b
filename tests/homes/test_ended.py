"""What a user sees when the cluster ends under them: the reason, at once, and never a mere "cancelled"."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import pytest

import shoal
from shoal.errors import ClusterEndedError, SessionLostError, UsageError
from shoal.machine import paths
from shoal.model.cluster import Reason, State

Eventually = Callable[..., Any]


def started(project: Path, **options: Any) -> shoal.DaskCluster:
    return shoal.dask("small", workers=1, project=project, quiet=True, **options)


def test_a_client_made_by_hand_shuts_down_without_waiting_for_a_reason(
    shared_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``type(cluster.client)(address, security=…)`` knows of no home that could tell one."""
    from distributed import Security

    from shoal.client import dask_ending
    from shoal.client.dask_client import Client

    with started(shared_project) as cluster:
        endpoint = cluster._home.endpoint(cluster.id)
        security = Security(require_encryption=True, **endpoint.security)
        by_hand = Client(endpoint.address, security=security, set_as_default=False)
        monkeypatch.setattr(dask_ending, "KNOWN", 3600)
        by_hand.shutdown()
        assert by_hand.status == "closed"
        monkeypatch.undo()


def test_a_client_that_shuts_its_cluster_down_has_ended_it(
    shared_project: Path, eventually: Eventually
) -> None:
    """`client.shutdown()` is how Dask's users end a cluster: it must not stay Ready and charged."""
    with started(shared_project) as cluster:
        with shoal.connect(cluster.name, project=shared_project) as other:
            assert isinstance(other, shoal.DaskCluster)
            waiting = other.client.submit(time.sleep, 600, pure=False)
            cluster.client.shutdown()
            with pytest.raises(ClusterEndedError, match="StoppedByUser, shut down by its client"):
                waiting.result(60)
            for call in (
                lambda: cluster.client.submit(sum, [1, 2]),
                lambda: cluster.client.run(os.getpid),
            ):
                with pytest.raises(ClusterEndedError, match="StoppedByUser, shut down by its client"):
                    call()
        eventually(lambda: cluster.record.state.ended, 30, "it ended")
    record = cluster.record
    assert (record.state, record.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)
    assert "client.shutdown()" in record.message
    assert cluster._home.held("alice").admitted == {}


@pytest.mark.parametrize("reason", [Reason.DEADLINE_REACHED, Reason.HEAD_CRASHED, Reason.STOPPED_BY_USER])
def test_whoever_waits_for_a_result_reads_why_the_cluster_ended(shared_project: Path, reason: Reason) -> None:
    options = {"max_duration": "8 s"} if reason is Reason.DEADLINE_REACHED else {}
    with started(shared_project, **options) as cluster:
        waiting = cluster.client.submit(time.sleep, 600, pure=False)
        if reason is Reason.HEAD_CRASHED:
            os.kill(cluster.record.head["pid"], signal.SIGKILL)
        if reason is Reason.STOPPED_BY_USER:
            cluster._home.stop(cluster.id, reason, "ended by `shoal down`")
        with pytest.raises(ClusterEndedError, match=reason.value) as caught:
            waiting.result(120)
        assert caught.value.values["reason"] == reason.value
        for call in (
            lambda: cluster.client.submit(sum, [1, 2]),
            lambda: cluster.client.gather(waiting),
            lambda: cluster.client.run(os.getpid),
        ):
            with pytest.raises(ClusterEndedError, match=reason.value):
                call()


class Sleeper:
    """An actor."""

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.mark.parametrize("killed", [True, False])
def test_whatever_waits_for_a_cluster_that_ends_reads_why(shared_project: Path, killed: bool) -> None:
    """Only futures said it; queues, actors, `client.run` said CommClosedError, which a flow takes for its own."""
    from distributed import Event, Queue, Variable

    with started(shared_project) as cluster:
        client = cluster.client
        actor: Any = client.submit(Sleeper, actor=True).result(60)
        calls: dict[str, Callable[[], Any]] = {
            "run": lambda: client.run(time.sleep, 60),
            "queue": lambda: Queue("q", client=client).get(),
            "variable": lambda: Variable("v", client=client).get(),
            "event": lambda: Event("e", client=client).wait(),
            "workers": lambda: client.wait_for_workers(3),
            "actor": lambda: actor.sleep(60).result(),
            "future": lambda: client.submit(time.sleep, 61).result(),
        }

        def failure(call: Callable[[], Any]) -> BaseException | None:
            try:
                call()
            except BaseException as error:
                return error
            return None

        with ThreadPoolExecutor(len(calls)) as pool:
            waiting = {name: pool.submit(failure, call) for name, call in calls.items()}
            time.sleep(2)  # all of them are asking
            if killed:
                os.kill(cluster.record.head["pid"], signal.SIGKILL)
            else:
                cluster._home.stop(cluster.id, Reason.STOPPED_BY_USER, "ended by `shoal down`")
            found = {name: each.result(60) for name, each in waiting.items()}
        found |= {f"{name} again": failure(call) for name, call in calls.items()}
        found["info"] = failure(client.scheduler_info)
        reason = Reason.HEAD_CRASHED if killed else Reason.STOPPED_BY_USER
        assert {name: type(error) for name, error in found.items() if not _tells(error, reason)} == {}


def _tells(error: BaseException | None, reason: Reason) -> bool:
    return isinstance(error, ClusterEndedError) and error.values["reason"] == reason.value


def test_a_lost_worker_is_no_end_of_its_cluster(shared_project: Path) -> None:
    """A call that loses its worker fails as Dask has it, soon, and the cluster goes on."""
    with started(shared_project) as cluster:
        (pid,) = cluster.client.run(os.getpid).values()
        begin = time.monotonic()
        with pytest.raises(OSError, match="closed"):
            cluster.client.run(os.kill, pid, signal.SIGKILL)
        assert time.monotonic() - begin < 20
        assert cluster.client.submit(sum, [1, 2]).result(60) == 3


def test_a_cluster_that_was_idle_says_so_to_the_next_cell(
    shared_project: Path, eventually: Eventually
) -> None:
    """Back from lunch: the cell that computes next reads Idle, by the client and by the block."""
    from distributed import Client

    def lunch() -> None:
        # The user's own client tries that long to come back, before it says that its scheduler is gone.
        soon = dask.config.set({"distributed.comm.timeouts.connect": "5s"})
        with soon, started(shared_project, idle="2 s") as cluster:
            # A client of the user's own knows nothing of reasons: the block tells it.
            plain = Client(cluster.client.scheduler.address, security=cluster.client.security)
            eventually(lambda: cluster.record.state.ended, 60, "it ended by itself")
            with pytest.raises(ClusterEndedError, match="Idle, nothing was computed for 2 s"):
                cluster.client.submit(sum, [1, 2]).result(60)
            with plain:
                plain.submit(sum, [1, 2]).result(60)

    with pytest.raises(ClusterEndedError, match="Idle") as caught:
        lunch()
    assert caught.value.__cause__ is not None
    assert not isinstance(caught.value.__cause__, ClusterEndedError)


def test_a_handle_that_is_dropped_after_its_cluster_was_told_to_end_claims_nothing(
    shared_project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A client that slept past its no-client time reads that, and not that its dropped handle ended the work."""
    cluster = started(shared_project)
    home, cluster_id = cluster._home, cluster.id
    with home.ledger.write() as tx:  # type: ignore[attr-defined]
        tx.move(cluster_id, State.STOPPING, Reason.CLIENT_GONE, "no client for 2 s")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del cluster
        gc.collect()
    assert "no client for 2 s" in home.get(cluster_id).message
    said = capfd.readouterr().err
    assert "dropped without close()" not in said
    home.stop(cluster_id, Reason.STOPPED_BY_USER, "end of the test")


def test_an_error_of_the_users_own_stays_that(shared_project: Path) -> None:
    def fail() -> None:
        with started(shared_project) as cluster:
            cluster._home.stop(cluster.id, Reason.STOPPED_BY_USER, "meanwhile")
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()


def test_a_result_that_is_asked_for_after_the_end_of_the_block_says_so(shared_project: Path) -> None:
    with started(shared_project) as cluster:
        future, client = cluster.client.submit(sum, [1, 2]), cluster.client
    for call in (future.result, lambda: client.submit(sum, [1, 2]), client.scheduler_info):
        with pytest.raises(UsageError, match="this client is closed"):
            call()


@pytest.mark.spark
@pytest.mark.slow
def test_spark_says_that_its_session_is_lost_or_why_its_cluster_ended(
    shared_project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An hour of rest ended a session, and with it views and caches, of a cluster that was Ready and charged.

    Sessions are made short here; else they live as long as their cluster.
    """
    template = shared_project / "clusters" / "brief.yaml"
    short = "{spark.connect.session.manager.defaultSessionTimeout: 5s"
    short += ", spark.connect.session.manager.maintenanceInterval: 1s}"
    small = (shared_project / "clusters" / "small.yaml").read_text()
    template.write_text(small.replace("image: shoal-spark", f"image: shoal-spark, conf: {short}"))
    with shoal.spark("brief", workers=1, project=shared_project, quiet=True) as cluster:
        conf = (paths.run_folder(cluster.id) / "spark.conf").read_text()
        assert "defaultSessionTimeout 5s" in conf
        old = cluster.session
        time.sleep(12)  # a rest, by the server's own clock
        with pytest.raises(SessionLostError, match="has closed this Spark session") as lost:
            old.sql("select 1").collect()
        assert "temporary views" in lost.value.hint.lower()
        assert "A new session is open" not in capfd.readouterr().err
        assert cluster.session is not old
        assert "A new session is open: temporary views, cached frames" in capfd.readouterr().err
        again = cluster.session
        again.client.release_session()
        time.sleep(1.5)
        assert cluster.session is not again, "also where no call failed before"
        for stop in ("of the session that is open", "once more"):
            cluster.session.stop()  # as most scripts end
            assert cluster.sql("select 40 + 2 as n").collect()[0].n == 42, stop
        os.kill(cluster.record.head["pid"], signal.SIGKILL)

        def until_it_fails() -> None:
            while True:  # the JVM follows its head within a moment
                with contextlib.suppress(SessionLostError):  # they are short here
                    cluster.sql("select 3").collect()

        with pytest.raises(ClusterEndedError, match="HeadCrashed"):
            until_it_fails()
