"""What to do next for one cluster, by what is recorded and what is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from shoal.governor.lifecycle import (
    DEADLINE_GRACE,
    SILENT,
    START_LIMIT,
    STOP_LIMIT,
    Action,
    Charge,
    EndRemains,
    Free,
    KillHead,
    Move,
    Observation,
    Scope,
    Seen,
    StartHead,
    StopHead,
    step,
)
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import Plan, Workload
from shoal.quota.account import Amounts
from shoal.quota.admission import Ask, Verdict
from shoal.quota.queueing import Outcome
from shoal.units import Bytes

NOW = 1_000_000.0
LITTLE, MORE = Amounts(clusters=1, memory=Bytes(10)), Amounts(clusters=1, memory=Bytes(20))
BOTH = {Scope.TEAM: LITTLE, Scope.USER: LITTLE}
STOP = (Reason.STOPPED_BY_USER, "enough")


@pytest.fixture
def cluster(planned: Callable[..., Plan]) -> Callable[..., Cluster]:
    def make(
        state: State, *, ago: float = 0.0, reason: Reason = Reason.REQUESTED, workers: int = 2
    ) -> Cluster:
        """``ago``: seconds since it was admitted and since its state."""
        at = NOW - ago
        plan = planned("etl", workers=2)
        return Cluster(
            "c1",
            "a",
            "ann",
            "red",
            Workload("etl"),
            plan,
            state,
            reason,
            "",
            at,
            at,
            admitted_at=at,
            workers=workers,
        )

    return make


def outcome(verdict: Verdict, plan: Plan, **more: object) -> Outcome:
    return replace(Outcome(Ask("c1", "a", plan), verdict), **more)  # type: ignore[arg-type]


def said(actions: list[Action]) -> list[object]:
    """Actions without their sentences."""
    return [(action.state, action.reason) if isinstance(action, Move) else action for action in actions]


def test_the_queues_answer_is_followed(cluster: Callable[..., Cluster]) -> None:
    queued = cluster(State.QUEUED)
    yes = Observation(wants=BOTH, by_plan=BOTH, outcome=outcome(Verdict.ADMIT, queued.plan))
    assert said(step(queued, yes, NOW)) == [
        Charge(Scope.TEAM, LITTLE),
        Charge(Scope.USER, LITTLE),
        (State.ADMITTED, Reason.ADMITTED),
    ]
    no = replace(yes, outcome=outcome(Verdict.REFUSE, queued.plan, message="too large"))
    assert step(queued, no, NOW) == [Move(State.REFUSED, Reason.OVER_LIMIT, "too large")]
    later = replace(yes, outcome=outcome(Verdict.WAIT, queued.plan, place=2, short=("you", "team red")))
    (move,) = step(queued, later, NOW)
    assert move == Move(
        State.QUEUED,
        Reason.WAITING_FOR_QUOTA,
        "position 2 in the queue, waiting for room in your and team red's quota",
        report={"place": 2, "latest": None},
    )
    told = replace(queued, reason=Reason.WAITING_FOR_QUOTA, message=move.message, report=move.report)
    assert step(told, later, NOW) == []
    first = replace(later, outcome=replace(later.outcome, latest=NOW + 60))
    (timed,) = step(told, first, NOW)
    assert timed == replace(move, report={"place": 2, "latest": NOW + 60})
    told = replace(told, report=timed.report)
    sooner = replace(first, outcome=replace(first.outcome, latest=NOW + 50))
    assert step(told, sooner, NOW) == [], "some seconds are no news"
    assert step(told, later, NOW) == [move], "that it is not known any more is"
    half = replace(later, charged={Scope.TEAM: LITTLE})
    assert step(told, half, NOW) == [move, Free(Scope.TEAM)]


@pytest.mark.parametrize(
    ("state", "ago", "seen", "expected"),
    [
        # Before it serves.
        (State.QUEUED, 0, Observation(stop=STOP), [(State.STOPPED, Reason.STOPPED_BY_USER)]),
        (State.ADMITTED, 0, Observation(), [StartHead()]),
        (State.ADMITTED, START_LIMIT + 1, Observation(), [(State.STOPPING, Reason.START_FAILED)]),
        # While it serves.
        (State.READY, 0, Observation(Seen.ALIVE), []),
        (State.READY, 0, Observation(Seen.ALIVE, stop=STOP), [(State.STOPPING, Reason.STOPPED_BY_USER)]),
        (State.READY, 0, Observation(Seen.GONE), [(State.STOPPING, Reason.HEAD_CRASHED)]),
        (State.READY, 0, Observation(Seen.UNKNOWN, remains=None, silent=SILENT), []),
        (State.READY, 0, Observation(Seen.UNKNOWN, silent=SILENT + 1), [(State.STOPPING, Reason.HEAD_LOST)]),
        (State.READY, 4 * 3600 + DEADLINE_GRACE, Observation(Seen.ALIVE), []),
        (
            State.READY,
            4 * 3600 + DEADLINE_GRACE + 1,
            Observation(Seen.ALIVE),
            [(State.STOPPING, Reason.DEADLINE_REACHED)],
        ),
        # While it ends: the head in good order, then at once; then what it left; only then is it over.
        (State.STOPPING, 0, Observation(Seen.ALIVE), [StopHead()]),
        (State.STOPPING, STOP_LIMIT + 1, Observation(Seen.ALIVE), [KillHead()]),
        (State.STOPPING, 0, Observation(Seen.GONE, remains=True), [EndRemains()]),
        (State.STOPPING, 0, Observation(Seen.UNKNOWN, remains=None, silent=SILENT), []),
        (State.STOPPING, 0, Observation(Seen.GONE), [(State.STOPPED, Reason.REQUESTED)]),
        # After the end: what shows up has no owner; accounts are freed in reverse.
        (State.STOPPED, 0, Observation(Seen.ALIVE, remains=True), [KillHead(), EndRemains()]),
        (State.STOPPED, 0, Observation(Seen.GONE, charged=BOTH), [Free(Scope.USER), Free(Scope.TEAM)]),
        (State.REFUSED, 0, Observation(), []),
    ],
)
def test_what_is_next(
    cluster: Callable[..., Cluster], state: State, ago: float, seen: Observation, expected: list[object]
) -> None:
    assert said(step(cluster(state, ago=ago), seen, NOW)) == expected


def test_a_broken_part_fails_a_cluster_and_its_end_does_not(cluster: Callable[..., Cluster]) -> None:
    crashed = cluster(State.STOPPING, reason=Reason.HEAD_CRASHED)
    assert said(step(crashed, Observation(Seen.GONE), NOW)) == [(State.FAILED, Reason.HEAD_CRASHED)]
    idle = cluster(State.STOPPING, reason=Reason.IDLE)
    assert said(step(idle, Observation(Seen.GONE), NOW)) == [(State.STOPPED, Reason.IDLE)]


class TestSize:
    def seen(self, **more: object) -> Observation:
        plain = Observation(Seen.ALIVE, charged=BOTH, wants=BOTH, by_plan=BOTH)
        return replace(plain, **more)  # type: ignore[arg-type]

    def test_growing_is_charged_first_and_recorded_then(self, cluster: Callable[..., Cluster]) -> None:
        ready = cluster(State.READY)
        wants = {Scope.TEAM: MORE, Scope.USER: MORE}
        seen = self.seen(target=3, wants=wants, outcome=outcome(Verdict.ADMIT, ready.plan))
        *charges, move = step(ready, seen, NOW)
        assert charges == [Charge(Scope.TEAM, MORE), Charge(Scope.USER, MORE)]
        assert isinstance(move, Move)
        assert move.workers == 3
        assert step(ready, replace(seen, outcome=outcome(Verdict.WAIT, ready.plan)), NOW) == []

    def test_shrinking_is_recorded_first_and_freed_once_the_workers_are_gone(
        self, cluster: Callable[..., Cluster]
    ) -> None:
        ready = cluster(State.READY, workers=2)
        (move,) = step(ready, self.seen(target=1), NOW)
        assert isinstance(move, Move)
        assert move.workers == 1
        held = self.seen(target=2, charged={Scope.TEAM: MORE, Scope.USER: MORE})
        assert step(replace(ready, workers=3), held, NOW) == []
        note, *lowered = step(ready, held, NOW)
        assert isinstance(note, Move)
        assert lowered == [Charge(Scope.USER, LITTLE), Charge(Scope.TEAM, LITTLE)]
