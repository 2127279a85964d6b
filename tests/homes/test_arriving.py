"""Workers that a home starts: they come by themselves, with the cluster's certificate, and leave when told.

A real head of the guest home, whose stand says so, and real worker programs on this machine as a pod runs them: with
nothing to write to but their scratch folder.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client, Security

from shoal.engines.dask import arriving
from shoal.engines.dask.host import DaskHost
from shoal.engines.dask.worker import limit
from shoal.engines.port import Sample, Site
from shoal.machine.certificate import make_certificate
from shoal.machine.modules import UserModuleWarning
from shoal.model.cluster import Reason
from shoal.model.stand import Stand
from shoal.model.status import HeadStatus
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts
from shoal.units import Bytes, Seconds

from . import index
from .pods import Pods

Eventually = Callable[..., Any]


def report_of(cluster: Any) -> dict[str, Any]:
    return dict(json.loads((Path(os.environ["GUEST_STORE"]) / "heads" / cluster.id / "report").read_text()))


def test_a_life_with_workers_that_come_by_themselves(
    stand: Path, pods: Pods, eventually: Eventually, tmp_path: Path
) -> None:
    cluster = pods.up(stand, "w-0", "w-1")
    client, first, second = cluster.client, pods.running["w-0"], pods.running["w-1"]

    def status() -> HeadStatus:
        return cluster._home.status(cluster.id) or HeadStatus()

    def names() -> set[str]:
        return {each["name"] for each in client.scheduler_info()["workers"].values()}

    assert client.submit(sum, [1, 2]).result(60) == 3
    assert names() == {"w-0", "w-1"}
    eventually(lambda: status().memory > 50e6 and status().peak_memory > 25e6, 10, "workers tell of it")
    assert status().cpu_seconds > 0.02
    assert status().worker_pids == ()
    eventually(lambda: status().clients == 1, 10, "this process")

    # A task's own client is not a person's.
    def borrowed() -> Any:
        from distributed import get_client

        return get_client().submit(sum, [3, 4]).result()

    assert client.submit(borrowed).result(60) == 7
    assert len(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.clients))) > 1
    time.sleep(2)
    assert status().clients == 1

    # Its process is killed: the nanny beside it starts another one, at once.
    pids = client.run(os.getpid)
    pid = next(iter(pids.values()))
    psutil.Process(pid).kill()
    eventually(lambda: status().restarts == 1 and status().workers == 2, 20, "it was restarted")
    assert "was restarted: its process had ended" in status().note
    assert (first.poll(), second.poll()) == (None, None)

    # Over its memory it is ended, and started again, by that nanny too.
    def grow() -> None:
        def fill() -> None:
            kept = []
            while True:
                kept.append(b"x" * 10**7)
                time.sleep(0.01)

        threading.Thread(target=fill, daemon=True).start()

    grow.__module__ = "__main__"  # by value: the workers do not have this module
    client.run(grow, workers=[next(iter(client.run(os.getpid)))])
    eventually(lambda: status().restarts == 2 and status().workers == 2, 20, "it was restarted")
    assert re.search(r"worker w-\d was restarted: it used [45]\d\d MB of its 500 MB", status().note)
    assert status().peak_memory > 400e6
    assert (first.poll(), second.poll()) == (None, None)

    # Asked for by its client, it is no loss.
    client.restart()
    eventually(lambda: status().note.endswith("was restarted by its client"), 20, "it is told as that")
    assert status().restarts == 2

    # Another one comes.
    cluster._home.scale(cluster.id, 3)
    eventually(lambda: cluster.record.plan.workers == 3, 20, "it was granted")
    third = pods.start("w-2")
    eventually(lambda: names() == {"w-0", "w-1", "w-2"}, 30, "it came")

    # One is retired: its result goes to another one, it alone is named, and it alone ends.
    held = client.map(lambda n: n * n, range(9), pure=False)
    assert sum(client.gather(held)) == 204
    cluster._home.scale(cluster.id, 2)
    eventually(lambda: len(report_of(cluster).get("retired", [])) == 1, 30, "one is told")
    (retired,) = report_of(cluster)["retired"]
    programs = {"w-0": first, "w-1": second, "w-2": third}
    assert programs.pop(retired).wait(20) == 0
    assert "its scheduler ended it" in pods.said(retired)
    assert [each.poll() for each in programs.values()] == [None, None]
    assert names() == set(programs)
    assert sum(client.gather(held)) == 204, "nothing was lost"
    assert status().restarts == 2, "to be retired is no loss"

    # A pod is told to end, as by a node that is drained: its results move, and its head says that it left.
    (drained, process), (other, _) = programs.items()
    process.terminate()
    asked = time.monotonic()
    assert process.wait(15) == 0
    assert time.monotonic() - asked < 10
    assert sum(client.gather(held)) == 204
    eventually(lambda: status().note == f"worker {drained} left; its home starts another one", 20)
    assert report_of(cluster)["retired"] == [retired]
    pods.start("w-3")
    eventually(lambda: names() == {other, "w-3"}, 30, "the home's replacement")

    # Nothing of a worker can be read by others.
    for path in (pods.folder / other).rglob("*"):
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path

    cluster.close()
    # As they are on the head's machine here, it ends whatever carries its mark: their codes tell nothing.
    for name in (other, "w-3"):
        pods.running[name].wait(20)
    assert cluster.record.reason is Reason.STOPPED_BY_USER


def test_packages_are_on_every_machine_the_same_and_what_is_installed_stays(
    stand: Path, pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    index.publish(tmp_path / "index", "ebb", "1")
    index.publish(tmp_path / "index", "tide", "1", "ebb", "dask", "pandas")
    with index.served(tmp_path / "index", password="hidden") as url:
        told = {"PIP_INDEX_URL": url, "SHOAL_PACKAGES": "1"}
        monkeypatch.setenv("PIP_INDEX_URL", url)
        cluster = pods.up(stand, "w-0", packages=["tide>=1"], **told)
        client = cluster.client
        # A newer one on the way is for the next cluster: this one's workers are all alike.
        index.publish(tmp_path / "index", "tide", "2", "ebb")
        cluster._home.scale(cluster.id, 2)
        pods.start("w-1", **told)
        client.wait_for_workers(2, timeout=60)

    assert "hidden" not in "".join(pods.log(name) for name in ("w-0", "w-1")) + cluster.logs()

    def seen() -> tuple[str, ...]:
        import ebb
        import pandas
        import tide

        return tide.VERSION, ebb.VERSION, pandas.__file__

    def task() -> tuple[str, ...]:
        return seen()

    for each in (seen, task):
        each.__module__ = "__main__"  # by value: the workers do not have this module
    expected = ("1", "1", importlib.import_module("pandas").__file__)
    assert set(client.run(seen).values()) == {expected}, "what is there and fits is not installed again"
    assert client.run_on_scheduler(seen) == expected, "which reads what tasks are made of"
    assert client.submit(task).result(60) == expected


def test_what_lies_on_the_clients_machine_alone_is_told_once_and_what_is_installed_never(
    stand: Path, pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """The file is gone before the cluster looks: as on another machine, which never had it."""
    file = tmp_path / "lonely.py"
    file.write_text("def double(n):\n    return n * 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "lonely", None)  # so that it is forgotten afterwards
    del sys.modules["lonely"]
    lonely = importlib.import_module("lonely")
    file.unlink()
    handle = pods.up(stand, "w-0")
    with pytest.warns(UserModuleWarning) as told:
        client = handle.client
    (said,) = [str(each.message) for each in told if "cannot be had" in str(each.message)]
    assert "lonely" in said
    assert not [name for name in ("pandas", "json", "shoal", "psutil") if name in said]
    with pytest.raises(RuntimeError, match="deserialization") as failed:
        client.submit(lonely.double, 2).result(60)
    assert isinstance(failed.value.__cause__, ModuleNotFoundError)
    assert client.submit(sum, [1, 2]).result(60) == 3


def test_a_head_that_is_gone_ends_its_workers_with_a_line(
    stand: Path, pods: Pods, eventually: Eventually, marked: Callable[[], dict[int, str]]
) -> None:
    # Under another mark than the head's: as on another machine, its home finds nothing of it here.
    cluster = pods.up(stand, "w-0", SHOAL_CLUSTER="elsewhere")
    worker = pods.running["w-0"]
    assert len(cluster.client.run(os.getpid, nanny=True)) == 1, "also its nanny is there"
    every = map(psutil.Process, marked())
    (head,) = [each for each in every if each.cmdline()[-1:] == ["guest"] and "shoal.head" in each.cmdline()]
    head.kill()
    assert worker.wait(30) == 1
    assert f"it lost its scheduler at tls://127.0.0.1:{pods.port}" in pods.log("w-0")
    eventually(lambda: cluster.record.state.ended, 60, "its home noticed")


def test_who_does_not_have_the_certificate_is_refused(stand: Path, pods: Pods, tmp_path: Path) -> None:
    other = make_certificate("other.shoal.internal")
    cluster = pods.up(stand, "w-0")
    folder = pods.keys(tmp_path / "other", *other)
    assert pods.start("stranger", SHOAL_CERTIFICATE=str(folder)).wait(30) == 1
    assert "do not have the same certificate" in pods.log("stranger")
    # Who trusts the cluster, and shows another certificate, is refused by the scheduler.
    shown = {"tls_ca_file": pods.certificate[0], "tls_client_cert": other[0], "tls_client_key": other[1]}
    with pytest.raises(OSError, match=r"(?i)tls|ssl|closed|connect"):
        Client(f"tls://127.0.0.1:{pods.port}", security=Security(require_encryption=True, **shown), timeout=3)
    assert {each["name"] for each in cluster.client.scheduler_info()["workers"].values()} == {"w-0"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SHOAL_START_LIMIT": "1"}, "no scheduler at tls://127.0.0.1:"),
        ({"SHOAL_WORKER_NAME": ""}, "SHOAL_WORKER_NAME is not set"),
        ({"SHOAL_WORKER_MEMORY": "1 GB"}, "SHOAL_WORKER_MEMORY is '1 GB', which is not a number"),
        ({"SHOAL_WORKER_CORES": "inf"}, "SHOAL_WORKER_CORES is 'inf', which is not a number"),
        ({"SHOAL_SCHEDULER": "tcp://127.0.0.1:8786"}, "SHOAL_SCHEDULER is 'tcp://127.0.0.1:8786'"),
        ({"SHOAL_SCHEDULER": "tls://127.0.0.1"}, "SHOAL_SCHEDULER is 'tls://127.0.0.1'"),
        ({"SHOAL_CERTIFICATE": "/nowhere"}, "the cluster's certificate cannot be read"),
        ({"SHOAL_SCRATCH": "/proc/scratch"}, "cannot write in /proc/scratch"),
    ],
)
def test_a_worker_that_cannot_start_says_why(pods: Pods, change: dict[str, str], said: str) -> None:
    assert pods.start("w-0", **change).wait(30) == 1
    assert said in pods.said("w-0")
    assert "Traceback" not in pods.log("w-0")


def test_a_worker_that_waits_for_its_scheduler_ends_when_told(pods: Pods, eventually: Eventually) -> None:
    worker = pods.start("w-0")
    eventually(lambda: "looks for the scheduler" in pods.log("w-0"), 30)
    worker.terminate()
    assert worker.wait(10) == 0
    # Also while it still loads what it needs.
    early = pods.start("w-1")
    eventually(lambda: (pods.folder / "w-1" / "tmp").exists(), 30)
    early.terminate()
    assert early.wait(10) == 0
    assert pods.log("w-1") == ""


def test_more_than_wanted_are_retired_only_once_it_is_sure_that_nobody_wanted_them(
    pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """A home may start workers for a wish of which its head has not heard yet."""
    monkeypatch.setattr(arriving, "_SETTLE", 4.0)
    size = Size(1, Bytes(500_000_000))
    times = Timeouts(idle=Seconds(60), no_client=Seconds(60), max=Seconds(60))
    plan = Plan("small", Engine.DASK, "guest", size, (Group("default", 1, 1, 3, size, size),), times)
    stand = Stand(port=pods.port, certificate=pods.certificate, own_workers=False)
    with dask.config.set({"distributed.worker.preload": []}):  # which it sets for its process
        host = DaskHost(Site(pods.cluster, plan, tmp_path, "token", stand=stand))
        programs = {name: pods.start(name) for name in ("w-0", "w-1")}

        def say(reason: Reason, _message: str) -> None:
            if reason is Reason.WORKERS_STARTING:
                time.sleep(4)  # both come before they are waited for

        try:
            host.start(say, time.monotonic() + 30)

            def look() -> Sample:
                return host.observe() or Sample()

            eventually(lambda: look().workers == 2, 30, "both came")
            began = time.monotonic()
            eventually(lambda: look().retired, 30, "one is told")
            assert time.monotonic() - began > 2
            (name,) = look().retired
            assert programs.pop(name).wait(20) == 0
            assert (look().workers, look().note) == (1, "")
            # Under its name another one comes: that is none that may be ended.
            host.scale(2)
            pods.start(name)
            eventually(lambda: look().workers == 2, 30)
            assert look().retired == ()
        finally:
            host.stop()


def test_what_its_environment_breaks_is_told_with_its_traceback(stand: Path, pods: Pods) -> None:
    pods.up(stand, "w-0")
    assert pods.start("w-1", DASK_DISTRIBUTED__NANNY__PRELOAD="no_such_module").wait(30) == 1
    assert "worker w-1 failed" in pods.log("w-1")
    assert "ModuleNotFoundError: No module named 'no_such_module'" in pods.log("w-1")
    assert pods.start("w-2", SHOAL_POD_IP="203.0.113.1").wait(30) == 1, "an address of another machine"
    assert "worker w-2 does not start: " in pods.said("w-2")
    assert "Cannot assign requested address" in pods.said("w-2")


@pytest.mark.parametrize(
    ("what", "there", "limits"),
    [
        ("a machine with much more", 64_000_000_000, 1_000_000_000),
        ("a pod of just as much: the nanny is in it, too", 1_000_000_000, 936_000_000),
        ("a pod with room for the nanny", 1_064_000_000, 1_000_000_000),
        ("far too little: half of it, whatever comes", 100_000_000, 500_000_000),
    ],
)
def test_a_worker_leaves_room_for_its_nanny(what: str, there: int, limits: int) -> None:
    assert limit(1_000_000_000, there) == limits, what
