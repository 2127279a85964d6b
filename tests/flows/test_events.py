"""What Prefect is told of clusters and tables: each thing once, and by the same id whichever attempt tells it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from shoal.model.cluster import Cluster, Reason, State
from shoal.model.status import Event
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.prefect.events import Notice, Telling, of_cluster
from shoal.prefect.lineage import of_snapshot
from shoal.prefect.runs import FLOW_RUN, Run
from shoal.units import Bytes, Seconds

LIFE = [
    Event(State.QUEUED, Reason.WAITING_FOR_QUOTA, "you hold 2 of 2 clusters", 10.0),
    Event(State.QUEUED, Reason.WAITING_FOR_CAPACITY, "position 2", 20.0),
    Event(State.ADMITTED, Reason.ADMITTED, "admitted", 30.0),
    Event(State.STARTING, Reason.HEAD_STARTING, "its head starts", 31.0),
    Event(State.READY, Reason.SERVING, "serves", 40.0),
    Event(State.READY, Reason.WORKER_RESTARTED, "worker 1 was killed at 95 % of its memory", 50.0),
    Event(State.READY, Reason.WORKER_RESTARTED, "worker 2 was killed at 95 % of its memory", 51.0),
    Event(State.READY, Reason.SERVING, "serves", 60.0),
    Event(State.STOPPING, Reason.STOPPED_BY_USER, "closed", 70.0),
    Event(State.STOPPED, Reason.STOPPED_BY_USER, "closed", 71.0),
]


def cluster(state: State, run: str = "this") -> Cluster:
    size = Size(1, Bytes(10**9))
    group, times = Group("default", 1, 1, 1, size, size), Timeouts(Seconds(60), Seconds(60), Seconds(60))
    plan = Plan("small", Engine.DASK, "local", size, (group,), times, reasons={})
    tags = {FLOW_RUN: run}
    return Cluster(
        "c", "small", "alice", None, Workload("small"), plan, state, Reason.SERVING, "", 0, 0, tags=tags
    )


class Home:
    """A record and its history, which may be away."""

    def __init__(self, record: Cluster | None = None, history: list[Event] | None = None) -> None:
        self.record, self.past, self.away = record, history or [], False

    def find(self, name: str, owner: str) -> Cluster | None:
        if self.away:
            raise ConnectionError("the ledger is away")
        return self.record

    def history(self, cluster_id: str) -> list[Event]:
        return list(self.past)


def words(told: list[Notice]) -> list[str]:
    return [notice.name.removeprefix("shoal.cluster.") for notice in told]


def telling(home: Home, told: list[Notice], run: str = "this") -> Telling:
    return Telling(home, "small", "alice", Run(run), told.append)  # type: ignore[arg-type]


def test_a_life_is_told_by_its_turns_with_the_time_and_the_reason_of_each() -> None:
    told = of_cluster(cluster(State.STOPPED), LIFE)
    assert words(told) == [
        *("queued", "admitted", "ready", "worker-restarted", "worker-restarted", "ready", "ended"),
    ]
    assert [notice.at for notice in told] == [10.0, 30.0, 40.0, 50.0, 51.0, 60.0, 71.0]
    assert told[0].payload["message"] == "you hold 2 of 2 clusters"
    assert told[-1].resource["shoal.reason"] == "StoppedByUser"
    assert len({notice.id for notice in told}) == len(told)


def test_what_is_told_again_has_the_id_that_it_had_also_while_more_happens() -> None:
    early = of_cluster(cluster(State.READY), LIFE[:5])
    late = of_cluster(cluster(State.STOPPED), LIFE)
    assert [notice.id for notice in early] == [notice.id for notice in late[: len(early)]]
    other = of_cluster(replace(cluster(State.READY), id="another"), LIFE[:5])
    assert not {notice.id for notice in early} & {notice.id for notice in other}


def test_each_turn_is_told_once_and_the_rest_at_the_end(eventually: Callable[..., Any]) -> None:
    home, told = Home(), list[Notice]()
    teller = telling(home, told)
    home.past, home.record = LIFE[:1], cluster(State.QUEUED)
    eventually(lambda: words(told) == ["queued"], 10, "it is told while the start is waited for")
    home.away = True
    teller._look()
    home.away, home.past = False, LIFE
    teller.end()
    teller.end()
    assert words(told) == words(of_cluster(cluster(State.STOPPED), LIFE))


def test_what_an_earlier_attempt_told_is_not_told_again() -> None:
    home, told = Home(cluster(State.READY), LIFE[:5]), list[Notice]()
    teller = telling(home, told)
    home.past = LIFE
    teller.end()
    assert words(told) == ["worker-restarted", "worker-restarted", "ready", "ended"]


def test_a_cluster_of_that_name_that_is_another_runs_is_not_told_of() -> None:
    home, told = Home(cluster(State.READY, run="other"), LIFE), list[Notice]()
    telling(home, told).end()
    home.record = None
    telling(home, told).end()
    assert not told


def test_a_snapshot_is_told_once_with_what_it_was_read_from() -> None:
    first = of_snapshot("iceberg://shoal/a/b", 2**62, 7, ["iceberg://shoal/c/d"])
    again = of_snapshot("iceberg://shoal/a/b", 2**62, 7, ["iceberg://shoal/c/d"])
    assert [notice.id for notice in first] == [notice.id for notice in again]
    assert [notice.name for notice in first] == [
        "prefect.asset.referenced",
        "prefect.asset.materialization.succeeded",
    ]
    assert first[-1].payload == {"snapshot_id": str(2**62), "rows": 7}
    assert first[-1].related[0]["prefect.resource.role"] == "asset"
    assert first[-1].id != of_snapshot("iceberg://shoal/a/b", 2**62 + 1, 7, [])[-1].id
