"""What is said ahead of time: when a cluster starts at the latest, and that it is about to end."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from shoal.display.following import Follower, said_by, speaker
from shoal.display.forecast import clock, latest_start, starts, until_warning, warning
from shoal.display.progress import line
from shoal.homes.base import Request
from shoal.homes.fake import FakeHome
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.status import NextEnd
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.project.policy import Policy, Tier, User
from shoal.units import Bytes, Seconds

GB = 10**9
NOW = time.mktime((2026, 3, 2, 9, 30, 0, 0, 0, -1))
SIZE = Size(1, Bytes(GB))


def cluster(state: State = State.READY, hours: float = 4.0, **report: float | None) -> Cluster:
    plan = Plan(
        template="etl",
        engine=Engine.DASK,
        target="fake",
        head=SIZE,
        groups=(Group("default", 1, 1, 1, SIZE, SIZE),),
        timeouts=Timeouts(idle=Seconds(1200), no_client=Seconds(120), max=Seconds(hours * 3600)),
    )
    where = (Workload("etl"), plan, state, Reason.SERVING, "waits")
    return Cluster("c1", "nightly", "ann", None, *where, since=NOW, created=NOW, report=dict(report))


def ends(reason: Reason, seconds: float) -> NextEnd:
    return NextEnd(reason, Seconds(seconds))


@pytest.mark.parametrize(
    ("may_last", "said"),
    [
        (None, "one hour more: shoal extend nightly +1h"),
        (12.0, "one hour more: shoal extend nightly +1h"),
        (4.5, "30 min more: shoal extend nightly +30min"),
        (4.0, "the most that your tier allows"),
    ],
)
def test_to_extend_is_advised_only_where_it_would_work(may_last: float | None, said: str) -> None:
    known = cluster()
    given = None if may_last is None else Seconds(may_last * 3600)
    found = warning(
        replace(known, plan=replace(known.plan, may_last=given)), ends(Reason.DEADLINE_REACHED, 600)
    )
    assert found.startswith("ends in 10 min, its maximum lifetime (4 h)")
    assert found.endswith(said)


@pytest.mark.parametrize(
    ("reason", "seconds", "said"),
    [
        (Reason.DEADLINE_REACHED, 901, ""),
        (
            Reason.DEADLINE_REACHED,
            900,
            "ends in 15 min, its maximum lifetime (4 h); one hour more: shoal extend nightly +1h",
        ),
        (Reason.IDLE, 241, ""),
        (Reason.IDLE, 239, "ends in 4 min unless it gets work: idle for most of 20 min"),
        (Reason.CLIENT_GONE, 25, ""),
        (Reason.CLIENT_GONE, 24, "ends in 24 s unless a client connects: without one for most of 2 min"),
    ],
)
def test_the_last_fifth_of_a_limit_is_warned_of_but_at_most_a_quarter_of_an_hour(
    reason: Reason, seconds: float, said: str
) -> None:
    assert warning(cluster(), ends(reason, seconds)) == said
    assert (until_warning(cluster(), ends(reason, seconds)) <= 0) is bool(said)


def test_of_what_is_not_known_or_does_not_run_nothing_is_said() -> None:
    assert warning(cluster(), None) == ""
    assert warning(cluster(State.STOPPING), ends(Reason.IDLE, 1)) == ""
    assert until_warning(cluster(), None) == float("inf")


def test_the_latest_start_is_said_only_of_what_waits_and_only_while_it_is_ahead() -> None:
    waits = cluster(State.QUEUED, latest=NOW + 600)
    assert latest_start(waits) == NOW + 600
    assert starts(waits, NOW) == "starts by 09:40 at the latest"
    assert starts(waits, NOW + 601) == ""
    assert starts(cluster(State.QUEUED, latest=None), NOW) == ""
    assert starts(cluster(State.QUEUED), NOW) == ""
    assert starts(cluster(State.READY, latest=NOW + 600), NOW) == ""
    assert clock(NOW + 86400, NOW) == "2026-03-03 09:30"
    soon = replace(waits, report={"latest": time.time() + 600})
    assert line(soon).startswith("nightly: Queued (waits; starts by ")
    assert line(cluster(State.QUEUED)) == "nightly: Queued (waits)"


@pytest.fixture
def home() -> FakeHome:
    tier = Tier(
        concurrent_clusters=2,
        workers_per_cluster=9,
        memory=Bytes(9 * GB),
        max_duration=Seconds(8 * 3600),
        head=Bytes(GB),
    )
    return FakeHome(Policy({"t": tier}, default=User(tier="t")))


def test_a_follower_warns_once_and_anew_only_after_the_end_had_moved_away(
    home: FakeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal.display.following.LEAST", 0.01)
    monkeypatch.setattr("shoal.display.following.MOST", 0.02)
    asked = cluster()
    running = home.request(Request("nightly", "ann", asked.workload, asked.plan))
    home.govern()
    home.advance(4)
    home.govern()
    said: list[str] = []
    follower = Follower(home, running.id, said.append)
    time.sleep(0.2)
    assert said == []
    home.advance(4 * 3600 - 600)
    deadline = time.monotonic() + 5
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert said == [
        "nightly ends in 10 min, its maximum lifetime (4 h); one hour more: shoal extend nightly +1h"
    ]
    record, version = home.records[running.id]
    longer = replace(record.plan, timeouts=record.plan.timeouts.lasting(Seconds(5 * 3600)))
    home.records[running.id] = replace(record, plan=longer), version + 1
    time.sleep(0.2)
    assert len(said) == 1, "it was extended"
    home.advance(3600)
    while len(said) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(said) == 2
    follower.end()


def test_warnings_go_where_somebody_said() -> None:
    assert speaker() is None
    said: list[str] = []
    with said_by(said.append):
        assert speaker() == said.append
    assert speaker() is None
