"""What to do next for one cluster, by what is recorded and what is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shoal.client.ending import STOP_WAIT
from shoal.client.handles import START_WAIT
from shoal.engines.spark.archive import MAKING
from shoal.governor.actions import (
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
)
from shoal.governor.ends import End, Phase, Pulse, Sentence
from shoal.governor.lifecycle import moved, step
from shoal.governor.periods import Periods
from shoal.homes.kubernetes.periods import KUBERNETES
from shoal.homes.local.periods import LOCAL
from shoal.model.cluster import FAILURES, Cluster, Reason, State
from shoal.model.workload import Plan, Workload
from shoal.quota.account import Amounts
from shoal.quota.admission import Claim, Decision, Verdict
from shoal.quota.queueing import TurnResult
from shoal.units import Bytes, Seconds

NOW = 1_000_000.0
LITTLE, MORE = Amounts(clusters=1, memory=Bytes(10)), Amounts(clusters=1, memory=Bytes(20))
BOTH = {Scope.TEAM: LITTLE, Scope.USER: LITTLE}
STOP = End(Reason.STOPPED_BY_USER, "enough")
PERIODS = Periods(*map(Seconds, (1, 2, 3, 4, 30, 300, 50, 60)))
DAY = 24 * 3600
GONE = Pulse(alone=121)
STARTS = Phase(State.STARTING, Reason.HEAD_STARTING, "the head is running")
SERVES = Phase(State.READY, Reason.SERVING, "2 workers ready")


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


def outcome(verdict: Verdict, plan: Plan, **more: object) -> TurnResult:
    return replace(TurnResult(Claim("c1", "a", plan), verdict), **more)  # type: ignore[arg-type]


def said(actions: list[Action]) -> list[object]:
    """Actions without their sentences."""
    return [(action.state, action.reason) if isinstance(action, Move) else action for action in actions]


def test_the_queues_answer_is_followed(cluster: Callable[..., Cluster]) -> None:
    queued = cluster(State.QUEUED)
    yes = Observation(wants=BOTH, by_plan=BOTH, outcome=outcome(Verdict.ADMIT, queued.plan))
    assert said(step(queued, yes, NOW, PERIODS)) == [
        Charge(Scope.TEAM, LITTLE),
        Charge(Scope.USER, LITTLE),
        (State.ADMITTED, Reason.ADMITTED),
    ]
    no = replace(yes, outcome=outcome(Verdict.REFUSE, queued.plan, message="too large"))
    assert step(queued, no, NOW, PERIODS) == [Move(State.REFUSED, Reason.OVER_LIMIT, "too large")]
    later = replace(yes, outcome=outcome(Verdict.WAIT, queued.plan, position=2, short=("you", "team red")))
    (move,) = step(queued, later, NOW, PERIODS)
    assert move == Move(
        State.QUEUED,
        Reason.WAITING_FOR_QUOTA,
        "position 2 in the queue, waiting for room in your and team red's quota",
        report={"place": 2, "latest": None},
    )
    told = replace(queued, reason=Reason.WAITING_FOR_QUOTA, message=move.message, report=move.report)
    assert step(told, later, NOW, PERIODS) == []
    first = replace(later, outcome=replace(later.outcome, latest=NOW + 60))
    (timed,) = step(told, first, NOW, PERIODS)
    assert timed == replace(move, report={"place": 2, "latest": NOW + 60})
    told = replace(told, report=timed.report)
    sooner = replace(first, outcome=replace(first.outcome, latest=NOW + 50))
    assert step(told, sooner, NOW, PERIODS) == [], "some seconds are no news"
    assert step(told, later, NOW, PERIODS) == [move], "that it is not known any more is"
    half = replace(later, charged={Scope.TEAM: LITTLE})
    assert step(told, half, NOW, PERIODS) == [move, Free(Scope.TEAM)]


@pytest.mark.parametrize(
    ("state", "ago", "seen", "expected"),
    [
        # Before it serves.
        (State.QUEUED, 0, Observation(Seen.NONE, stop=STOP), [(State.STOPPED, Reason.STOPPED_BY_USER)]),
        (State.QUEUED, 999, Observation(Seen.NONE), []),
        (State.QUEUED, 0, Observation(Seen.NONE, pulse=Pulse(alone=119)), []),
        (State.QUEUED, 0, Observation(Seen.NONE, pulse=GONE), [(State.STOPPED, Reason.CLIENT_GONE)]),
        (State.QUEUED, 31, Observation(), [(State.FAILED, Reason.START_FAILED)]),
        (State.QUEUED, 0, Observation(Seen.GONE, remains=None), [(State.FAILED, Reason.HEAD_CRASHED)]),
        (State.ADMITTED, 0, Observation(), [StartHead()]),
        (State.ADMITTED, -30, Observation(), [StartHead()]),
        (State.ADMITTED, 31, Observation(), [(State.FAILED, Reason.START_FAILED)]),
        (State.ADMITTED, -31, Observation(), [(State.FAILED, Reason.START_FAILED)]),
        # While it serves.
        (State.READY, 0, Observation(Seen.ALIVE), []),
        (State.READY, 0, Observation(Seen.ALIVE, stop=STOP), [(State.STOPPING, Reason.STOPPED_BY_USER)]),
        (State.READY, 0, Observation(Seen.GONE), [(State.FAILED, Reason.HEAD_CRASHED)]),
        (State.READY, 0, Observation(Seen.GONE, stop=STOP), [(State.FAILED, Reason.HEAD_CRASHED)]),
        (State.READY, 0, Observation(Seen.GONE, remains=True), [(State.STOPPING, Reason.HEAD_CRASHED)]),
        (State.READY, 0, Observation(Seen.GONE, remains=None), [(State.STOPPING, Reason.HEAD_CRASHED)]),
        (State.READY, 0, Observation(Seen.GONE, last=STOP), [(State.STOPPED, Reason.STOPPED_BY_USER)]),
        (State.READY, 0, Observation(Seen.UNKNOWN, remains=None, silent=4), []),
        (
            State.READY,
            0,
            Observation(Seen.UNKNOWN, remains=None, silent=5),
            [(State.FAILED, Reason.HEAD_LOST)],
        ),
        (State.READY, 0, Observation(Seen.FOREIGN, owner="x"), [(State.FAILED, Reason.HEAD_LOST)]),
        (State.READY, 0, Observation(Seen.ALIVE, lived=4 * 3600 + 50), []),
        (
            State.READY,
            0,
            Observation(Seen.ALIVE, lived=4 * 3600 + 51),
            [(State.STOPPING, Reason.DEADLINE_REACHED)],
        ),
        (State.READY, DAY, Observation(Seen.ALIVE, lived=None), []),
        # What its head sees.
        (
            State.READY,
            0,
            Observation(Seen.ALIVE, pulse=Pulse(DAY)),
            [(State.STOPPING, Reason.DEADLINE_REACHED)],
        ),
        (
            State.READY,
            0,
            Observation(Seen.ALIVE, pulse=Pulse(alone=DAY)),
            [(State.STOPPING, Reason.CLIENT_GONE)],
        ),
        (State.READY, 0, Observation(Seen.ALIVE, pulse=Pulse(idle=DAY)), [(State.STOPPING, Reason.IDLE)]),
        (State.READY, 0, Observation(Seen.ALIVE, pulse=Pulse(said=STOP)), [(State.STOPPING, STOP.reason)]),
        (State.READY, 0, Observation(Seen.ALIVE, pulse=Pulse(1, 1, 1)), []),
        # What its head says of itself; nothing goes back, and nothing is made up.
        (State.ADMITTED, 0, Observation(Seen.ALIVE, pulse=Pulse(phase=STARTS)), [STARTS[:2]]),
        (State.STARTING, 0, Observation(Seen.ALIVE, pulse=Pulse(phase=SERVES)), [SERVES[:2]]),
        (State.READY, 0, Observation(Seen.ALIVE, pulse=Pulse(phase=STARTS)), []),
        (State.STOPPING, 0, Observation(Seen.ALIVE, pulse=Pulse(phase=SERVES)), [StopHead()]),
        (State.ADMITTED, 0, Observation(Seen.ALIVE, pulse=Pulse(phase=SERVES._replace(reason="Idle"))), []),
        (
            State.ADMITTED,
            0,
            Observation(Seen.ALIVE, pulse=Pulse(phase=SERVES._replace(state=State.QUEUED))),
            [],
        ),
        # While it ends: the head in good order, then at once; then what it left; only then is it over.
        (State.STOPPING, 0, Observation(Seen.ALIVE), [StopHead()]),
        (State.STOPPING, 61, Observation(Seen.ALIVE), [(State.STOPPING, Reason.REQUESTED), KillHead()]),
        (State.STOPPING, 0, Observation(Seen.GONE, remains=True), [EndRemains()]),
        (State.STOPPING, 0, Observation(Seen.GONE, remains=None), [EndRemains()]),
        (State.STOPPING, 0, Observation(Seen.UNKNOWN, remains=None, silent=4), []),
        (State.STOPPING, 0, Observation(Seen.GONE), [(State.STOPPED, Reason.REQUESTED)]),
        (
            State.STOPPING,
            0,
            Observation(Seen.GONE, charged=BOTH),
            [(State.STOPPED, Reason.REQUESTED), Free(Scope.USER), Free(Scope.TEAM)],
        ),
        (State.STOPPING, 0, Observation(Seen.FOREIGN), [(State.FAILED, Reason.HEAD_LOST)]),
        # After the end: what shows up has no owner; accounts are freed in reverse.
        # As long as anything of it is there it counts.
        (State.STOPPED, 0, Observation(Seen.ALIVE, remains=True, charged=BOTH), [KillHead(), EndRemains()]),
        (State.STOPPED, 0, Observation(remains=True, charged=BOTH), [EndRemains()]),
        (State.STOPPED, 0, Observation(Seen.GONE, charged=BOTH), [Free(Scope.USER), Free(Scope.TEAM)]),
        (State.REFUSED, 0, Observation(), []),
    ],
)
def test_what_is_next(
    cluster: Callable[..., Cluster], state: State, ago: float, seen: Observation, expected: list[object]
) -> None:
    assert said(step(cluster(state, ago=ago), seen, NOW, PERIODS)) == expected


def test_a_broken_part_fails_a_cluster_and_its_end_does_not(cluster: Callable[..., Cluster]) -> None:
    crashed = cluster(State.STOPPING, reason=Reason.HEAD_CRASHED)
    assert said(step(crashed, Observation(Seen.GONE), NOW, PERIODS)) == [(State.FAILED, Reason.HEAD_CRASHED)]
    idle = cluster(State.STOPPING, reason=Reason.IDLE)
    assert said(step(idle, Observation(Seen.GONE), NOW, PERIODS)) == [(State.STOPPED, Reason.IDLE)]


def test_a_head_that_hangs_is_killed_and_that_is_told_once(cluster: Callable[..., Cluster]) -> None:
    hung = replace(cluster(State.STOPPING, ago=61, reason=Reason.IDLE), message="nothing to do")
    move, kill = step(hung, Observation(Seen.ALIVE), NOW, PERIODS)
    assert move == Move(
        State.STOPPING, Reason.IDLE, "nothing to do; its head did not end within 1 min and was killed"
    )
    told = moved(hung, move, None, NOW)
    assert told.since == hung.since, "it has been stopping for as long as before"
    assert step(told, Observation(Seen.ALIVE), NOW, PERIODS) == [kill] == [KillHead()]


def test_a_request_that_does_not_wait_is_refused_with_the_reasons(cluster: Callable[..., Cluster]) -> None:
    queued = cluster(State.QUEUED)
    no = Decision(Verdict.WAIT, Reason.WAITING_FOR_QUOTA, "you hold 42 GB of 42 GB")
    seen = Observation(Seen.NONE, outcome=outcome(Verdict.WAIT, queued.plan, position=1), decision=no)
    assert step(queued, seen, NOW, PERIODS) == [Move(State.REFUSED, no.reason, no.message)]
    patient = replace(queued, workload=replace(queued.workload, queue=True))
    assert said(step(patient, seen, NOW, PERIODS)) == [(State.QUEUED, Reason.WAITING_FOR_QUOTA)]


def test_whoever_waited_is_told_how_long(cluster: Callable[..., Cluster]) -> None:
    waited = cluster(State.QUEUED, ago=90, reason=Reason.WAITING_FOR_QUOTA)
    seen = Observation(Seen.NONE, outcome=outcome(Verdict.ADMIT, waited.plan))
    (move,) = step(waited, seen, NOW, PERIODS)
    assert isinstance(move, Move)
    assert move.message == "within every limit, after 1 min 30 s in the queue"


def test_every_sentence_and_time_is_in_the_docs() -> None:
    """Whoever meets one in `shoal why` finds there what it means."""
    docs = (Path(__file__).parents[2] / "docs" / "design.md").read_text()
    for sentence in Sentence:
        assert str(sentence).replace("{", "").replace("}", "") in docs.replace("*", ""), sentence
    for reason in FAILURES:
        assert f"`{reason}`" in docs, reason
    for name in vars(PERIODS):
        row = next(line for line in docs.splitlines() if line.startswith(f"| `{name}`:"))
        local, kubernetes = (cell.strip() for cell in row.split("|")[2:4])
        assert local.startswith(str(getattr(LOCAL, name))), row
        assert kubernetes.startswith(str(getattr(KUBERNETES, name))), row


def test_an_end_is_waited_for_until_a_head_that_hangs_is_killed() -> None:
    """And a head does not take so long for an orderly one, whatever its engine still writes."""
    assert MAKING < LOCAL.stop < STOP_WAIT
    assert KUBERNETES.stop < STOP_WAIT


def test_a_start_is_waited_for_until_its_home_gives_up() -> None:
    """Which says why: whoever waits would only say that it took long."""
    for its in (LOCAL, KUBERNETES):
        assert its.headless + its.start < START_WAIT


@pytest.mark.parametrize("wrong", [{"renew": 9}, {"lease": 2}, {"silent": 3}, {"stop": 0}, {"tick": 0}])
def test_times_that_contradict_each_other_are_no_settings(wrong: dict[str, float]) -> None:
    """A home in which others give a cluster's quota away while its head still runs cannot be made."""
    with pytest.raises(ValueError, match="has to be shorter"):
        replace(PERIODS, **{name: Seconds(value) for name, value in wrong.items()})


@pytest.mark.parametrize(
    "wrong", [{"stopped": 30}, {"abandoned": 30}, {"head_lock": 30}, {"dying": 15}, {"quiet": 5}]
)
def test_times_of_the_local_home_that_contradict_each_other_are_none_either(wrong: dict[str, float]) -> None:
    """Nobody gives up on a ledger just before whoever holds it is made to give it back."""
    with pytest.raises(ValueError, match="has to be shorter"):
        replace(LOCAL, **{name: Seconds(value) for name, value in wrong.items()})


class TestSize:
    def seen(self, **more: object) -> Observation:
        plain = Observation(Seen.ALIVE, charged=BOTH, wants=BOTH, by_plan=BOTH)
        return replace(plain, **more)  # type: ignore[arg-type]

    def test_growing_is_charged_first_and_recorded_then(self, cluster: Callable[..., Cluster]) -> None:
        ready = cluster(State.READY)
        wants = {Scope.TEAM: MORE, Scope.USER: MORE}
        seen = self.seen(target=3, wants=wants, outcome=outcome(Verdict.ADMIT, ready.plan))
        *charges, move = step(ready, seen, NOW, PERIODS)
        assert charges == [Charge(Scope.TEAM, MORE), Charge(Scope.USER, MORE)]
        assert isinstance(move, Move)
        assert move.workers == 3
        assert step(ready, replace(seen, outcome=outcome(Verdict.WAIT, ready.plan)), NOW, PERIODS) == []

    def test_shrinking_is_recorded_first_and_freed_once_the_workers_are_gone(
        self, cluster: Callable[..., Cluster]
    ) -> None:
        ready = cluster(State.READY, workers=2)
        (move,) = step(ready, self.seen(target=1), NOW, PERIODS)
        assert isinstance(move, Move)
        assert move.workers == 1
        held = self.seen(target=2, charged={Scope.TEAM: MORE, Scope.USER: MORE})
        assert step(replace(ready, workers=3), held, NOW, PERIODS) == []
        note, *lowered = step(ready, held, NOW, PERIODS)
        assert isinstance(note, Move)
        assert lowered == [Charge(Scope.USER, LITTLE), Charge(Scope.TEAM, LITTLE)]
