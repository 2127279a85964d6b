"""What an older Shoal wrote is read, and what this one writes leaves an older one going.

``make versions`` runs the older release itself beside this one (tests/versions/skew.py).
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest

from shoal.display.report import report_of
from shoal.errors import InfrastructureError
from shoal.homes.local import endpoints, schema
from shoal.homes.local.ledger import Ledger
from shoal.model.cluster import FAILURES, Cluster, Reason, State
from shoal.model.codec import plain, read
from shoal.model.endpoint import Endpoint
from shoal.model.report import QueueStatus, Usage
from shoal.model.workload import Group, Plan, Size, Timeouts, Workload
from shoal.quota.account import Account, Amounts
from shoal.units import Seconds

WRITTEN = Path(__file__).parent / "older" / "ledger-0.1.0.sql"

# What Shoal 0.1.0 wrote, by type. A field that came later has a default, so that what lacks it can be read.
FIRST = {
    Workload: "template",
    Size: "cores memory",
    Group: "name minimum count maximum size there",
    Timeouts: "idle no_client max",
    Plan: "template engine target head groups timeouts",
    Amounts: "",
    Account: "",
    Cluster: "id name owner team workload plan state reason message since created",
    Endpoint: "address token",
    QueueStatus: "",
    Usage: "",
}


@pytest.fixture
def older(empty_home: Path) -> Path:
    """A ledger that Shoal 0.1.0 made, with one cluster that has ended."""
    empty_home.mkdir()
    file = empty_home / "ledger.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(WRITTEN.read_text())
    return file


def rows(file: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


def test_a_ledger_of_an_older_shoal_is_read_and_keeps_its_records(older: Path) -> None:
    with Ledger().read() as tx:
        [cluster] = tx.all()
        history = tx.history(cluster.id)
    assert (cluster.name, cluster.state, cluster.reason) == ("nightly", State.STOPPED, Reason.STOPPED_BY_USER)
    assert cluster.plan.may_last is None, "a later field has its default"
    assert report_of(cluster, history, 0.0).worker_hours == pytest.approx(0.00195, rel=0.01)
    assert [event.state for event in history][-1] == "Stopped"
    assert (cluster.usage.seen, cluster.usage.ends_in, len(cluster.usage.samples)) == (
        5.2,
        ("Idle", 1195.7),
        9,
    )
    assert replace(cluster, report={"samples": "damaged"}).usage == Usage()
    assert replace(cluster, report={"place": 2}).turn == QueueStatus(), "it does not wait any more"
    assert replace(cluster, state=State.QUEUED, report={"place": 2, "latest": 7}).turn == QueueStatus(2, 7.0)


def test_what_is_written_into_it_can_be_read_by_the_older_shoal(older: Path) -> None:
    with Ledger().write() as tx:
        [known] = tx.all()
        tx.insert(replace(known, id="new", plan=replace(known.plan, may_last=Seconds(7200))))
        tx.update(known.id, plan=replace(known.plan, may_last=Seconds(3600)))
    with Ledger().read() as tx:
        assert {cluster.plan.may_last for cluster in tx.all()} == {3600.0, 7200.0}
    first = json.loads(rows(older, "SELECT plan FROM shoal_clusters")[0][0]).keys()
    for (plan,) in rows(older, "SELECT plan FROM shoal_clusters"):
        assert json.loads(plan).keys() == first, "it stops at a field that it does not know"
    assert rows(older, "SELECT value FROM shoal_meta WHERE key = 'version'") == [("1",)]


def test_the_columns_that_came_later_are_added_once(older: Path) -> None:
    for _ in range(2):
        Ledger().close()
    columns = [row[1] for row in rows(older, "PRAGMA table_info(shoal_clusters)")]
    assert columns.count("plan_added") == 1


def test_a_server_of_an_older_shoal_gets_the_later_columns_too(postgresql: Any) -> None:
    url = postgresql.database("older")
    ledger = Ledger(url)
    with ledger.write() as tx:
        for name in schema.ADDED:
            tx._connection.execute(f"ALTER TABLE shoal_clusters DROP COLUMN {name}")
    with Ledger(url).read() as tx:
        assert tx.all() == []
    ledger.close()


def test_the_files_of_a_head_can_be_read_by_the_older_shoal(tmp_path: Path) -> None:
    endpoint = Endpoint("tls://x:1", "secret", name="x", files="/f")
    endpoints.write(tmp_path, endpoint)
    assert endpoints.read(tmp_path) == endpoint
    written = json.loads((tmp_path / "endpoint.json").read_text())
    assert written.keys() == {"address", "token", "dashboard", "security"}
    (tmp_path / "endpoint.added.json").unlink()  # as an older head leaves it
    assert endpoints.read(tmp_path) == Endpoint("tls://x:1", "secret")
    endpoints.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FIRST, ids=lambda kind: kind.__name__)
def test_every_field_that_came_later_has_a_default(kind: Any) -> None:
    needed = {
        field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING
    }
    assert needed == set(FIRST[kind].split())


def test_what_a_newer_shoal_tells_besides_is_left_out(older: Path) -> None:
    with Ledger().read() as tx:
        [cluster] = tx.all()
    for value in (cluster.plan, cluster.workload):
        told = {**plain(value), "of a newer one": {"x": [1]}}
        assert read(type(value), json.loads(json.dumps(told))) == value


def test_what_cannot_be_read_says_where_and_what_to_do(older: Path) -> None:
    with Ledger().read() as tx:
        [cluster] = tx.all()
    told = plain(cluster.plan)
    told["groups"][0]["count"] = "many"
    with pytest.raises(InfrastructureError, match=r"stored Plan .*groups\[0\]\.count.*\n.*upgrade"):
        read(Plan, told)


REASONS = {
    "Requested",
    "WaitingForQuota",
    "WaitingForCapacity",
    "OverLimit",
    "Admitted",
    "HeadStarting",
    "WorkersStarting",
    "Serving",
    "WorkerRestarted",
    "StoppedByUser",
    "ClientGone",
    "Idle",
    "DeadlineReached",
    "ImagePullFailed",
    "PackagesFailed",
    "StartFailed",
    "HeadCrashed",
    "HeadLost",
}
# Of home kubernetes alone, whose records 0.1.0 never reads.
ELSEWHERE = {Reason.GOVERNOR_AWAY, Reason.PLACE_REFUSED}


def test_every_reason_is_written_as_one_that_the_older_shoal_knows(older: Path) -> None:
    """It stops at another; this one tells the true one, of the record, of its wish and in its history."""
    for reason in set(Reason) - ELSEWHERE:
        with Ledger().write() as tx:
            [known] = [each for each in tx.all() if each.name == "nightly"]
            live = replace(
                known, id=reason.value, name=reason.value.lower(), state=State.READY, ended_at=None
            )
            tx.insert(replace(live, reason=Reason.SERVING))
            assert tx.change(live, replace(live, state=State.STOPPING, reason=reason, message="so it is"))
            told = schema.first_reason(reason)
            tx.update(live.id, stop_reason=told, stop_message="so it is")
        with Ledger().read() as tx:
            assert tx.get(live.id).reason is reason
            assert tx.wishes(live.id).stop is reason
            assert [event.reason for event in tx.history(live.id)] == [Reason.SERVING, reason]
    for column in ("reason, stop_reason FROM shoal_clusters", "reason FROM shoal_events"):
        for row in rows(older, f"SELECT {column}"):
            assert set(row) <= REASONS | {None}, row


def test_a_reason_that_an_older_shoal_wrote_since_is_the_one_that_counts(older: Path) -> None:
    with Ledger().write() as tx:
        [known] = tx.all()
        tx.insert(replace(known, id="spent", reason=Reason.BUDGET_SPENT))
    with closing(sqlite3.connect(older)) as connection, connection:
        connection.execute("UPDATE shoal_clusters SET reason = 'HeadLost' WHERE id = 'spent'")
    with Ledger().read() as tx:
        assert tx.get("spent").reason is Reason.HEAD_LOST


def test_a_reason_of_a_newer_shoal_is_told_as_it_stands(older: Path) -> None:
    with closing(sqlite3.connect(older)) as connection, connection:
        connection.execute("UPDATE shoal_clusters SET reason = 'MachineLost'")
    with Ledger().read() as tx:
        [cluster] = tx.all()
    assert str(cluster.reason) == "MachineLost"
    assert cluster.reason.value == "MachineLost"
    assert cluster.reason not in FAILURES
    assert cluster.reason not in list(Reason)
