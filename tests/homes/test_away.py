"""The ledger is away: its server is restarted, or another process holds its lock. Clusters live on, and what ends
meanwhile is told as it was."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import shoal
from shoal.client.clusters import open_home, open_project
from shoal.errors import InfrastructureError
from shoal.homes.local import desk
from shoal.homes.local.desk import LocalDesk
from shoal.homes.local.ledger import Ledger
from shoal.homes.local.periods import LOCAL
from shoal.homes.local.server_store import Server
from shoal.machine.processes import identity, is_alive
from shoal.model.cluster import Reason, State

Eventually = Callable[..., Any]
LONG = 34.0  # s

HOLDS = """
import sys
from shoal.homes.local.ledger import Ledger
with Ledger(sys.argv[1]).write():
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held(url: str) -> Iterator[None]:
    """A process that runs and keeps the lock: nobody may take it away."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        yield
    finally:
        holder.communicate("let go\n", timeout=60)


@pytest.fixture
def shared(project: Path, tmp_path: Path, small_project: Callable[[Path], Path], postgresql: Any) -> Path:
    """A project whose ledger is on the server, beside ``project``, whose ledger is a file."""
    folder = small_project(tmp_path / "shared")
    file = folder / "shoal.yaml"
    file.write_text(file.read_text().replace("home: local", f"home: local\n    store: {postgresql.url}"))
    return folder


@pytest.mark.slow
def test_clusters_live_on_while_their_ledger_is_away(
    project: Path, shared: Path, postgresql: Any, eventually: Eventually
) -> None:
    with (
        shoal.dask("small", workers=1, name="file", project=project, quiet=True) as on_file,
        shoal.dask("small", workers=1, name="server", project=shared, quiet=True) as on_server,
    ):
        with held(open_home(open_project(project)).ledger.url):
            postgresql.stop("immediate")
            try:
                end = time.monotonic() + LONG
                while time.monotonic() < end:
                    time.sleep(1)
                    for cluster in (on_file, on_server):
                        assert cluster.client.submit(sum, [1, 2], pure=False).result(60) == 3
            finally:
                postgresql.start()
        for cluster in (on_file, on_server):
            since = time.time()
            eventually(lambda c=cluster, s=since: (c.record.renewed_at or 0) > s, 60, "it renews again")  # type: ignore[misc]
            assert (cluster.record.state, cluster.record.reason) == (State.READY, Reason.SERVING)
    for cluster in (on_file, on_server):
        assert (cluster.record.state, cluster.record.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)


def test_what_ends_while_the_ledger_is_away_is_told_as_it_was(
    shared: Path, postgresql: Any, marked: Callable[[], dict[int, str]], eventually: Eventually
) -> None:
    """One by its own limit, one by a person who can tell it by a signal alone."""
    home = open_home(open_project(shared))
    alone = shoal.up(
        "small", engine="dask", workers=1, name="alone", no_client="6 s", project=shared, quiet=True
    )
    alone.release()
    told = shoal.up("small", engine="dask", workers=1, name="told", detach=True, project=shared, quiet=True)
    postgresql.stop("immediate")
    try:
        with pytest.raises(InfrastructureError, match=r"cannot be used[\s\S]*server"):
            home.stop(told.id, Reason.STOPPED_BY_USER, "no longer needed")
        eventually(lambda: not marked(), 90, "both ended")
        ended = time.time()
        time.sleep(2)
    finally:
        postgresql.start()
    said = {c.name: c for c in home.clusters(ended=True) if c.id in (alone.id, told.id)}
    assert {name: (c.state, c.reason) for name, c in said.items()} == {
        "alone": (State.STOPPED, Reason.CLIENT_GONE),
        "told": (State.STOPPED, Reason.STOPPED_BY_USER),
    }
    assert "6 s" in said["alone"].message
    assert all(c.report["seen"] > 0 and (c.ended_at or 0) <= ended for c in said.values())


def test_on_several_machines_a_head_ends_before_others_count_it_as_gone(
    empty_home: Path, project: Path, postgresql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LOCAL.lease + 30 <= LOCAL.silent
    assert LOCAL.lease >= 120, "a database restarts within that"
    monkeypatch.setattr(desk, "LOCAL", SimpleNamespace(**{**vars(LOCAL), "lease": 1.0, "renew": 0.0}))
    monkeypatch.setattr(Server, "one_host", False, raising=False)
    ledger = Ledger(postgresql.url, wait=1)
    ledger._store.one_host = False
    its = LocalDesk("none")
    its.__dict__["_ledger"] = ledger  # as it is once it was opened
    its.cluster = type("Known", (), {"workers": 0})()  # type: ignore[assignment]
    postgresql.stop()
    try:
        assert its.report(0, {}).stop is None, "not at once"
        time.sleep(1.2)
        wishes = its.report(0, {})
        assert wishes.stop is Reason.HEAD_LOST
        assert "could not reach the ledger" in wishes.message
    finally:
        postgresql.start()
        ledger._store.one_host = True


@pytest.mark.parametrize(
    ("url", "one_host"),
    [
        ("postgresql+psycopg2://shoal@127.0.0.1:1/db", True),
        ("postgresql+psycopg2://shoal@localhost/db", True),
        ("postgresql+psycopg2:///db?host=/run/postgresql", True),
        ("postgresql+psycopg2:///db", True),
        ("postgresql+psycopg2://shoal@db.internal/db", False),
        ("postgresql+psycopg2://shoal@10.0.0.7:5432/db", False),
    ],
)
def test_a_server_that_only_this_machine_can_reach_has_its_users_here(url: str, one_host: bool) -> None:
    assert Server(url).one_host is one_host


def test_who_was_alive_is_still_known_by_its_own_identity() -> None:
    assert is_alive(identity() | {"ledger": "/somewhere", "since": 1.0}) is True
