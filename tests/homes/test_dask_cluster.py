"""A Dask cluster of home ``local``, used as a person would, and killed in every way that matters."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from shoal.client.clusters import open_home, open_project
from shoal.errors import ClusterEndedError, NeverFitsError
from shoal.homes.local import endpoints
from shoal.machine import paths
from shoal.model.cluster import Reason, State

from . import index

Marked = Callable[[], dict[int, str]]
Eventually = Callable[..., Any]


def of(marked: Marked, cluster_id: str) -> set[int]:
    return {pid for pid, cluster in marked().items() if cluster == cluster_id}


def test_a_cluster_computes_on_its_workers_and_is_gone_after_the_block(project: Path, marked: Marked) -> None:
    with shoal.dask("small", workers=2, project=project, quiet=True) as cluster:
        pids = cluster.client.run(os.getpid)
        marks = cluster.client.run(lambda: os.environ["SHOAL_CLUSTER"])
        assert len(set(pids.values())) == 2
        assert os.getpid() not in pids.values()
        assert set(marks.values()) == {cluster.id}
        assert set(pids.values()) < of(marked, cluster.id)
        assert cluster.client.submit(sum, range(10)).result() == 45
        assert cluster.record.state is State.READY
    record = cluster.record
    assert (record.state, record.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)
    assert not of(marked, cluster.id)
    assert cluster.report().peak_worker_memory > 30e6
    assert {"Starting", "Ready"} <= set(cluster.report().phases)
    assert endpoints.read(paths.run_folder(cluster.id)) is None, "secrets end with the cluster"


def test_the_status_endpoint_wants_the_token_and_tells_what_the_head_sees(project: Path) -> None:
    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        url = cluster.record.head["status_url"]
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(url)
        refusal.value.close()
        assert refusal.value.code == 401
        token = endpoints.read_token(paths.run_folder(cluster.id))
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        deadline = time.monotonic() + 5
        status: dict[str, Any] = {}
        while time.monotonic() < deadline and status.get("clients") != 1:
            with urllib.request.urlopen(request) as answer:
                status = json.load(answer)
            time.sleep(0.1)
        assert status["clients"] == 1
        assert status["workers"] == 1
        assert status["ends_in"]["reason"] in {"Idle", "DeadlineReached"}
        for secret_file in paths.run_folder(cluster.id).glob("*.json"):
            assert secret_file.stat().st_mode & 0o077 == 0, secret_file
        assert token is not None
        assert token not in repr(cluster.record)


def test_who_does_not_hold_its_key_cannot_speak_to_the_scheduler(project: Path) -> None:
    import ssl

    from distributed import Client

    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        endpoint = endpoints.read(paths.run_folder(cluster.id))
        assert endpoint is not None
        assert endpoint.address.startswith("tls://")
        assert "PRIVATE KEY" not in repr(endpoint)
        host, port = endpoint.address.removeprefix("tls://").split(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain) as stranger,
            pytest.raises(ssl.SSLError),  # TLS 1.3 tells a missing certificate at the first read
        ):
            stranger.recv(1)
        with pytest.raises(OSError, match=r"Timed out|reset by peer"):
            Client(f"tcp://{host}:{port}", timeout="2s", set_as_default=False)


def test_killing_the_head_with_9_leaves_no_process_after_5_s_and_frees_the_quota(
    project: Path, marked: Marked, eventually: Eventually
) -> None:
    handle = shoal.up("small", engine="dask", workers=2, project=project, quiet=True, detach=True)
    assert len(of(marked, handle.id)) >= 3
    os.kill(handle.record.head["pid"], signal.SIGKILL)
    killed = time.monotonic()
    eventually(lambda: not of(marked, handle.id), 5, "all processes of the cluster gone with nobody calling")
    assert time.monotonic() - killed < 5
    record = handle.record
    assert (record.state, record.reason) == (State.FAILED, Reason.HEAD_CRASHED)
    assert str(record.head["pid"]) in record.message
    with pytest.raises(ClusterEndedError, match="HeadCrashed"):
        handle.wait()


def test_a_worker_busy_in_native_code_dies_with_its_head_too(
    project: Path, marked: Marked, eventually: Eventually
) -> None:
    handle = shoal.up("small", engine="dask", workers=1, project=project, quiet=True, detach=True)
    with shoal.connect(handle.name, project=project) as second:
        assert isinstance(second, shoal.DaskCluster)
        # re matching of this pattern holds the interpreter's lock for minutes: no thread of the worker runs
        (worker,) = second.client.run(os.getpid).values()
        calm = psutil.Process(worker).cpu_times().user
        stuck = second.client.submit(__import__("re").match, "(a+)+$", "a" * 40 + "b", pure=False)
        eventually(lambda: psutil.Process(worker).cpu_times().user > calm + 1, 60, "it matches")
        os.kill(handle.record.head["pid"], signal.SIGKILL)
        eventually(lambda: not of(marked, handle.id), 5, "the stuck worker gone")
        stuck.release()
    handle.close()


def child_leaver() -> Callable[[], int]:
    def leave_a_child() -> int:  # nested: the workers do not have this module
        import subprocess

        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        child.returncode = 0  # nobody waits for it: that is the point
        return child.pid

    return leave_a_child


def test_what_user_code_started_on_a_worker_ends_with_the_cluster(project: Path, marked: Marked) -> None:
    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        child = cluster.client.submit(child_leaver(), pure=False).result()
        assert child in of(marked, cluster.id)
    assert not of(marked, cluster.id)


def test_what_a_killed_head_left_behind_is_found_and_ended_by_the_next_look(
    project: Path, marked: Marked, eventually: Eventually
) -> None:
    handle = shoal.up("small", engine="dask", workers=1, project=project, quiet=True, detach=True)
    with shoal.connect(handle.name, project=project) as second:
        assert isinstance(second, shoal.DaskCluster)
        child = second.client.submit(child_leaver(), pure=False).result()
        os.kill(handle.record.head["pid"], signal.SIGKILL)
        eventually(lambda: of(marked, handle.id) <= {child}, 5, "only the child is left")
    home = open_home(open_project(project))
    assert home.clusters() == []
    eventually(lambda: not of(marked, handle.id), 5, "the look ended it")


def test_killing_the_client_with_9_ends_the_cluster_after_its_no_client_time(
    project: Path, marked: Marked, eventually: Eventually
) -> None:
    script = textwrap.dedent(
        f"""
        import shoal, time
        options = dict(no_client="2 s", name="orphan", project={str(project)!r}, quiet=True)
        with shoal.dask("small", workers=1, **options) as c:
            print(c.id, flush=True)
            time.sleep(600)
        """
    )
    client = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    cluster_id = client.stdout.readline().strip()
    assert of(marked, cluster_id), "it runs"
    time.sleep(3)
    assert of(marked, cluster_id), "it lives longer than its no-client time while its client is connected"
    client.kill()
    client.wait()
    client.stdout.close()
    eventually(lambda: not of(marked, cluster_id), 2 + 8, "the cluster gone after its no-client time")
    record = open_home(open_project(project)).get(cluster_id)
    assert (record.state, record.reason) == (State.STOPPED, Reason.CLIENT_GONE)


def test_a_task_over_its_workers_memory_restarts_that_worker_and_the_cluster_lives(project: Path) -> None:
    from distributed.scheduler import KilledWorker

    def hog() -> int:
        import time

        held = [bytearray(50_000_000) for _ in range(20)]  # 1 GB where a worker has 500 MB
        time.sleep(60)
        return len(held)

    def one_failure_is_enough(dask_scheduler: Any) -> None:
        dask_scheduler.allowed_failures = 0

    with shoal.dask("small", workers=2, project=project, quiet=True) as cluster:
        cluster.client.run_on_scheduler(one_failure_is_enough)
        with pytest.raises(KilledWorker):
            cluster.client.submit(hog, pure=False).result(timeout=60)
        assert cluster.client.submit(sum, [1, 2]).result(timeout=60) == 3
        deadline = time.monotonic() + 10
        while cluster.record.reason is not Reason.WORKER_RESTARTED and time.monotonic() < deadline:
            time.sleep(0.1)
        record = cluster.record
        assert (record.state, record.reason) == (State.READY, Reason.WORKER_RESTARTED)
        assert "500 MB" in record.message
    assert cluster.report().restarts >= 1
    assert "restarted" in cluster.report().line()


def test_a_restart_that_its_client_asks_for_is_no_death_of_workers(
    project: Path, eventually: Eventually
) -> None:
    """`client.restart()` was told as "its process had ended", and counted against the run."""
    with shoal.dask("small", workers=2, project=project, quiet=True) as cluster:
        before = set(cluster.client.run(os.getpid).values())
        cluster.client.restart()
        assert not before & set(cluster.client.run(os.getpid).values())
        eventually(
            lambda: cluster.record.message.endswith("was restarted by its client"), 20, "it is told as that"
        )
        assert cluster.report().restarts == 0
        pid = next(iter(cluster.client.run(os.getpid).values()))
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: f"(pid {pid}) had ended" in cluster.record.message, 30, "a death is told as one")
        eventually(lambda: cluster.report().restarts == 1, 30, "and counted, with the next report")


def test_another_process_connects_by_name_and_leaves_the_cluster_alive(project: Path) -> None:
    with shoal.dask("small", workers=1, name="shared", project=project, quiet=True) as cluster:
        script = (
            f"import shoal\nwith shoal.connect('shared', project={str(project)!r}) as c:\n"
            "    print(c.id, c.client.submit(sum, [1, 2]).result())"
        )
        answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert answer.stdout.split() == [cluster.id, "3"]
        assert cluster.client.submit(sum, [1, 2]).result() == 3
        again = shoal.up("small", engine="dask", name="shared", project=project, quiet=True, detach=True)
        assert again.id == cluster.id, "asking again under the same name gives the same cluster"
        again.close()
        with pytest.raises(shoal.ShoalError, match=r"(?s)no live cluster named 'sharde'.*shared"):
            shoal.connect("sharde", project=project)


def test_a_dropped_handle_warns_and_its_cluster_ends(
    project: Path, marked: Marked, eventually: Eventually
) -> None:
    cluster = shoal.up("small", engine="dask", workers=1, project=project, quiet=True)
    cluster_id = cluster.id
    handles = [cluster]
    del cluster
    with pytest.warns(ResourceWarning, match="dropped without close"):
        handles.clear()
    gc.collect()
    eventually(lambda: not of(marked, cluster_id), 10, "its cluster ended")


def test_an_idle_cluster_ends_and_says_so(project: Path, eventually: Eventually) -> None:
    handle = shoal.up("small", engine="dask", workers=1, project=project, quiet=True, detach=True, idle="1 s")
    eventually(lambda: handle.record.state.ended, 10, "ended by idle time")
    assert handle.record.reason is Reason.IDLE
    assert "1 s" in handle.record.message


def test_its_owner_may_let_it_live_longer_inside_the_tier_and_no_longer(
    project: Path, eventually: Eventually
) -> None:
    handle = shoal.up(
        "small", engine="dask", workers=1, max_duration="6 s", project=project, quiet=True, detach=True
    )
    with pytest.raises(NeverFitsError, match="4 h"):
        handle.extend("5 h")
    with pytest.raises(shoal.ShoalError, match="soon"):
        handle.extend("soon")
    assert handle.extend("+6 s") is handle
    assert handle.plan.timeouts.max == 12, "and the handle knows it"
    admitted = handle.record.admitted_at or 0.0
    eventually(lambda: handle.record.state.ended, 30, "ended at its maximum lifetime")
    assert handle.record.reason is Reason.DEADLINE_REACHED
    assert (handle.record.ended_at or 0.0) - admitted > 10
    assert "12 s" in handle.record.message


def test_the_fourth_worker_and_the_third_cluster_are_refused_and_leave_nothing(
    project: Path, marked: Marked
) -> None:
    with pytest.raises(shoal.ShoalError, match=r"(?s)4.*3"):
        shoal.dask("small", workers=4, project=project, quiet=True)
    first = shoal.up("small", engine="dask", workers=1, name="one", project=project, quiet=True)
    second = shoal.up("small", engine="dask", workers=1, name="two", project=project, quiet=True)
    held = len(marked())
    with pytest.raises(shoal.ShoalError) as refusal:
        shoal.up("small", engine="dask", workers=1, name="three", project=project, quiet=True)
    for word in ("one", "two", "shoal down"):
        assert word in str(refusal.value)
    assert len(marked()) == held, "a refused request starts no process"
    first.close()
    second.close()


def test_packages_are_there_before_work_starts(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, need in (("tide", "dask"), ("stale", "dask<2000")):
        index.publish(tmp_path, name, "1", need)
    with index.served(tmp_path) as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        with shoal.dask("small", workers=1, packages=["tide"], project=project, quiet=True) as cluster:
            assert cluster.client.submit(lambda: __import__("tide").VERSION).result() == "1"
        with pytest.raises(ClusterEndedError, match="PackagesFailed") as refusal:
            shoal.dask("small", workers=1, packages=["stale"], project=project, quiet=True)
    assert "installing stale failed" in str(refusal.value)
    assert "conflicting dependencies" in str(refusal.value), "the cluster's own Dask stays; in pip's words"
