"""A head before its admission: a light process that waits in the queue.

Why it exists: a detached request is admitted with no command running and nobody looking. Whoever frees
something lets the queue move; this only looks whether it was moved, and whether whoever asked for it is still there.
The first waiter of a project also sees to it that what died silently is found.

What it must not do: import an engine, the pure core or an ORM: a hundred may wait on one machine.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shoal.homes.local.periods import LOCAL
from shoal.homes.local.sqlite_store import sqlite_file
from shoal.machine.processes import is_alive

_log = logging.getLogger("shoal.homes")
_MINE = "SELECT state, ended_at, clients FROM shoal_clusters WHERE id = :id"
_LIVE = "SELECT id, state, head, project FROM shoal_clusters WHERE ended_at IS NULL ORDER BY created"
_WAITING = "Queued"  # State.QUEUED, without importing what has it


def wait_for_admission(cluster_id: str, url: str) -> bool:
    """Until the cluster is admitted (True), or ended while it waited (False)."""
    if not url.startswith("sqlite:///"):
        return _wait_at_server(cluster_id, url)
    store, duty = sqlite_file(Path(url.removeprefix("sqlite:///"))), _Duty(cluster_id)
    clients = _WaitingClients()
    limit, there = float(os.environ.get("SHOAL_DELETED_AFTER") or LOCAL.deleted), time.monotonic()
    while True:
        if store.inode() is None:  # opening it would make an empty one
            if time.monotonic() - there > limit:
                _log.error("the ledger %s was deleted, and its request with it", url)
                return False
            time.sleep(LOCAL.look)
            continue
        there = time.monotonic()
        try:
            with store.connect(LOCAL.lock) as ledger:
                row = ledger.execute(_MINE, {"id": cluster_id}).fetchone()
                if row is None or row[1] is not None:
                    return False
                if row[0] != _WAITING:
                    return True
                rows = ledger.execute(_LIVE).fetchall() if duty.is_due() else None
            if rows is not None:
                duty.look(rows)
                if clients.are_gone(json.loads(row[2] or "[]")):
                    _tell_alone(cluster_id, url, clients)
        except sqlite3.OperationalError as error:
            _log.warning("the ledger did not answer: %s", error)
        time.sleep(LOCAL.look)


class _Duty:
    """What the first waiter of a project does for all: notice that something is gone."""

    def __init__(self, cluster_id: str) -> None:
        self._id = cluster_id
        self._holding: set[str] = set()
        self._looked = self._settled = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._looked >= LOCAL.duty

    def look(self, rows: Sequence[tuple[str, str, str, str]]) -> None:
        """At all live clusters: id, state, head and project, oldest first."""
        now = self._looked = time.monotonic()
        project = next((row[3] for row in rows if row[0] == self._id), None)
        for cluster, state, head, of in rows:
            if cluster == self._id:
                break
            if state == _WAITING and of == project and is_alive(json.loads(head)):
                return  # somebody ahead does it
        holding = {row[0] for row in rows if row[1] != _WAITING}
        died = any(is_alive(json.loads(row[2])) is False for row in rows if row[0] in holding)
        if died or self._holding - holding or now - self._settled > LOCAL.settled:
            self._settled = now
            _settle()
        self._holding = holding


class _WaitingClients:
    """Since when nobody who waits for the cluster has been seen."""

    def __init__(self) -> None:
        self._gone: float | None = None

    def are_gone(self, clients: Sequence[Mapping[str, Any]]) -> bool:
        """By the identities of all who said that they wait; nobody can tell of a process on another machine."""
        if not clients or any(is_alive(each) is not False for each in clients):
            self._gone = None
        elif self._gone is None:
            self._gone = time.monotonic()
        return self._gone is not None

    @property
    def alone(self) -> float:
        return 0.0 if self._gone is None else time.monotonic() - self._gone


def _tell_alone(cluster_id: str, url: str, clients: _WaitingClients) -> None:
    """What follows from it is the pure core's to say. To import that takes memory, for the little time that is left."""
    from shoal.errors import InfrastructureError
    from shoal.governor.ends import Pulse, unattended
    from shoal.homes.local.ledger import Ledger
    from shoal.homes.local.steps import reported

    try:
        ledger, pulse = Ledger(url, LOCAL.lock), Pulse(alone=clients.alone)
        with ledger.read() as tx:
            if unattended(pulse, tx.get(cluster_id).plan.timeouts) is None:
                return
        with ledger.write() as tx:
            cluster = tx.get(cluster_id)
            if cluster.state.value == _WAITING and clients.are_gone(tx.clients(cluster_id)):
                reported(tx, cluster, pulse)
    except InfrastructureError as error:
        _log.warning("the ledger did not answer: %s", error)
        return
    _settle()  # whoever was behind it may start


def _settle() -> None:
    command = [sys.executable, "-m", "shoal.homes.local.settle"]
    try:
        subprocess.run(command, timeout=LOCAL.settling, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("the ledger could not be brought up to date, trying again later: %s", error)


def _wait_at_server(cluster_id: str, url: str) -> bool:
    """The same over a database server, which needs its client library anyway; renews the waiter's lease."""
    from shoal.errors import InfrastructureError
    from shoal.homes.local.ledger import Ledger
    from shoal.model.cluster import State

    ledger = Ledger(url)
    clients = _WaitingClients()
    renewed = settled = time.monotonic()
    while True:
        try:
            with ledger.read() as tx:
                cluster, waiting = tx.get(cluster_id), tx.clients(cluster_id)
            if cluster.state is not State.QUEUED:
                ledger.close()
                return not cluster.state.ended
            if time.monotonic() - renewed > LOCAL.renew:
                renewed = time.monotonic()
                with ledger.write() as tx:
                    tx.update(cluster_id, renewed_at=tx.now)
            if clients.are_gone(waiting):
                _tell_alone(cluster_id, url, clients)
            if time.monotonic() - settled > LOCAL.settled:
                settled = time.monotonic()
                _settle()
        except InfrastructureError as error:
            _log.warning("the ledger did not answer: %s", error)
        time.sleep(LOCAL.look * 5)
