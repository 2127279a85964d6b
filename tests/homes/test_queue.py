"""The queue of home ``local``: it moves with nobody looking, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from shoal.client.clusters import open_home, open_project, prepare
from shoal.errors import NeverFitsError, QuotaExceededError
from shoal.homes.base import Request
from shoal.homes.local.home import LocalHome
from shoal.model.cluster import Cluster, Reason, State

Eventually = Callable[..., Any]


@pytest.fixture
def narrow(project: Path) -> Path:
    """The project with room for two workers; asked for before ``home``."""
    tier = project / "policies" / "tiers.yaml"
    tier.write_text(tier.read_text().replace("memory: 6 GB", "memory: 2 GB"))
    return project


@pytest.fixture
def home(project: Path) -> LocalHome:
    return open_home(open_project(project))


@pytest.fixture
def ask(project: Path, home: LocalHome) -> Callable[..., Cluster]:
    """Ask for a Dask cluster of one worker, and do not wait."""

    def request(name: str, *, queue: bool = True, workers: int = 1) -> Cluster:
        settled = prepare(
            "small", engine="dask", workers=workers, queue=queue, no_client="5 min", project=project
        )
        return home.request(Request(name, settled.user, settled.workload, settled.plan))

    return request


def state_in(file: Path, cluster_id: str) -> str:
    """The state as the ledger's file says it: reading it this way runs nothing of ours."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as ledger:
        return str(
            ledger.execute("select state from shoal_clusters where id = ?", (cluster_id,)).fetchone()[0]
        )


def end_all(home: LocalHome, eventually: Eventually) -> None:
    for cluster in home.clusters():
        home.stop(cluster.id, Reason.STOPPED_BY_USER, "the test is over")
    eventually(lambda: not home.clusters(), 20, "all clusters ended")


def test_a_queued_request_starts_when_something_is_freed_and_nobody_looks(
    home: LocalHome, ask: Callable[..., Cluster], empty_home: Path, eventually: Eventually
) -> None:
    ledger = empty_home / "ledger.db"
    first, second = ask("first"), ask("second")
    assert (first.state, second.state) == (State.ADMITTED, State.ADMITTED)
    with pytest.raises(QuotaExceededError, match=r"(?s)first.*second|second.*first"):
        ask("impatient", queue=False)
    third, fourth = ask("third"), ask("fourth")
    assert (third.state, third.reason) == (State.QUEUED, Reason.WAITING_FOR_QUOTA)
    assert "position 1" in third.message
    assert "position 2" in fourth.message
    waiter, still_waiting = (psutil.Process(each.head["pid"]) for each in (third, fourth))
    home.stop(first.id, Reason.STOPPED_BY_USER, "done with it")
    eventually(lambda: state_in(ledger, third.id) == "Ready", 30, "the third is Ready")
    assert still_waiting.memory_info().rss < 40e6, "a waiter is light, however long it waits"
    assert state_in(ledger, fourth.id) == "Queued"
    head = psutil.Process(home.get(third.id).head["pid"])
    assert head.ppid() == waiter.pid, "the waiter became the head and its guard"
    end_all(home, eventually)


def test_the_queue_moves_though_the_waiter_ahead_and_the_holder_were_killed(
    home: LocalHome, ask: Callable[..., Cluster], empty_home: Path, eventually: Eventually
) -> None:
    ledger = empty_home / "ledger.db"
    holder, _ = ask("holder"), ask("other")
    ahead, behind = ask("ahead"), ask("behind")
    os.kill(ahead.head["pid"], signal.SIGKILL)
    os.kill(holder.head["pid"], signal.SIGKILL)
    eventually(lambda: state_in(ledger, behind.id) in ("Starting", "Ready"), 40, "the one behind starts")
    assert state_in(ledger, holder.id) == "Failed"
    assert state_in(ledger, ahead.id) == "Failed"
    end_all(home, eventually)


def test_a_waiter_ends_when_its_ledger_was_deleted(
    home: LocalHome,
    ask: Callable[..., Cluster],
    empty_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    monkeypatch.setenv("SHOAL_DELETED_AFTER", "1")
    running, waiting = [ask("first"), ask("second")], ask("third")
    assert waiting.state is State.QUEUED
    for file in empty_home.glob("ledger.db*"):
        file.unlink()
    for cluster in running:
        os.kill(cluster.head["pid"], signal.SIGKILL)
    waiter = psutil.Process(waiting.head["pid"])
    eventually(
        lambda: not waiter.is_running() or waiter.status() == psutil.STATUS_ZOMBIE, 20, "the waiter ended"
    )


def test_a_queued_request_can_be_taken_back_and_what_never_fits_is_refused_at_once(
    home: LocalHome, ask: Callable[..., Cluster], eventually: Eventually
) -> None:
    with pytest.raises(NeverFitsError):
        ask("huge", workers=9)
    ask("one"), ask("two")
    third = ask("three")
    home.stop(third.id, Reason.STOPPED_BY_USER, "no longer needed")
    assert home.get(third.id).state is State.STOPPED
    eventually(lambda: not psutil.pid_exists(third.head["pid"]) or home.remains(third.id) is False, 5)
    end_all(home, eventually)


def test_a_detached_request_that_has_to_wait_is_not_waited_for(
    project: Path, home: LocalHome, ask: Callable[..., Cluster], eventually: Eventually
) -> None:
    ask("one"), ask("two")
    begin = time.monotonic()
    handle = shoal.up("small", engine="dask", workers=1, queue=True, detach=True, project=project, quiet=True)
    assert time.monotonic() - begin < 5
    assert handle.record.state is State.QUEUED
    end_all(home, eventually)


WAITS = """
import sys, shoal
name, project = sys.argv[1:]
if name.startswith("to "):
    shoal.connect(name[3:], project=project)
else:
    shoal.dask("small", name=name, workers=2, no_client="2 s", queue=True, project=project, quiet=True)
"""


def test_a_request_whose_clients_were_all_killed_leaves_the_queue_and_the_next_one_starts(
    narrow: Path, home: LocalHome, ask: Callable[..., Cluster], empty_home: Path, eventually: Eventually
) -> None:
    """It kept its place until somebody looked, and who was behind it waited for nothing."""
    ledger = empty_home / "ledger.db"
    ask("holder")  # leaves room for one worker

    def client(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", WAITS, name, str(narrow)])

    def waiting(cluster_id: str) -> int:
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as file:
            said = file.execute("select clients from shoal_clusters where id = ?", (cluster_id,)).fetchone()
        return len(json.loads(said[0] or "[]"))

    with client("large") as owner:
        large = eventually(lambda: home.find("large", home.user()), 60, "it is in the queue")
        small = ask("small")
        detached = shoal.up(
            "small",
            engine="dask",
            workers=2,
            queue=True,
            detach=True,
            project=narrow,
            quiet=True,
            no_client="2 s",
        )
        with client("to large") as visitor:
            eventually(lambda: waiting(large.id) == 2, 60, "a second process waits for it")
            os.kill(owner.pid, signal.SIGKILL)
            owner.wait()
            time.sleep(4)  # twice the time after which it would end
            assert state_in(ledger, large.id) == "Queued", "somebody waits for it still"
            os.kill(visitor.pid, signal.SIGKILL)
    eventually(lambda: state_in(ledger, small.id) in ("Starting", "Ready"), 60, "the next one starts")
    assert state_in(ledger, detached.id) == "Queued", "nobody has to wait for that one"
    gone = home.get(large.id)
    assert (gone.state, gone.reason) == (State.STOPPED, Reason.CLIENT_GONE)
    assert gone.message == "no client was waiting for it for 2 s"
    end_all(home, eventually)


def test_a_handle_waits_in_the_queue_for_its_turn(project: Path, eventually: Eventually) -> None:
    with (
        shoal.dask("small", workers=1, name="a", project=project, quiet=True) as first,
        shoal.dask("small", workers=1, name="b", project=project, quiet=True),
    ):
        first._home.stop(first.id, Reason.STOPPED_BY_USER, "makes room while the next one waits")
        with shoal.dask("small", workers=1, name="c", queue=True, project=project, quiet=True) as third:
            assert third.client.submit(sum, [1, 2]).result() == 3
