"""``why`` walks policy, quota, capacity, image, start-up, health, in that order, and stops where it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shoal.display.explain import Outcome, Stage, Step, explain
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.status import Event, HeadStatus, NextEnd
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.units import Bytes, Seconds

PLAN = Plan(
    template="etl",
    engine=Engine.DASK,
    target="local",
    head=Size(2, Bytes.parse("8 GB")),
    groups=(Group("default", 2, 2, 3, Size(4, Bytes.parse("14 GB")), Size(1, Bytes.parse("1 GB"))),),
    timeouts=Timeouts(Seconds(1200), Seconds(120), Seconds(14400)),
)
HISTORY = [
    Event(State.ADMITTED, Reason.ADMITTED, "within every limit", 0.0),
    Event(State.STARTING, Reason.HEAD_STARTING, "starting the scheduler", 1.0),
    Event(State.READY, Reason.SERVING, "2 workers serve", 3.5),
]


def cluster(state: State, reason: Reason, message: str = "", ready: float | None = None) -> Cluster:
    return Cluster(
        id="abc",
        name="nightly",
        owner="alice",
        team=None,
        workload=Workload("etl"),
        plan=PLAN,
        state=state,
        reason=reason,
        message=message,
        since=0.0,
        created=0.0,
        ready_at=ready,
        workers=2,
    )


def standing(steps: tuple[Step, ...]) -> Step:
    return next(step for step in steps if step.outcome not in (Outcome.PASSED, Outcome.PENDING))


def test_what_nobody_has_judged_yet_has_passed_nothing() -> None:
    """A governor that is away is told once, and no limit is said to allow 0 workers."""
    nothing = Group("default", 0, 0, 0, Size(0, Bytes(0)), Size(0, Bytes(0)))
    waits = cluster(State.QUEUED, Reason.GOVERNOR_AWAY, "no governor has answered yet")
    waits = replace(waits, plan=replace(PLAN, groups=(nothing,)), workers=0)
    steps = explain(waits, [], unresponsive="no governor has answered yet; `shoal doctor` looks for it")
    assert (steps[0].stage, steps[0].outcome) == (Stage.POLICY, Outcome.FAILED)
    assert steps[0].said == "no governor has answered yet; `shoal doctor` looks for it"


def test_the_order_is_always_the_same() -> None:
    steps = explain(cluster(State.READY, Reason.SERVING, ready=3.5), HISTORY)
    assert [step.stage.value for step in steps] == [
        "policy",
        "quota",
        "capacity",
        "image",
        "start-up",
        "health",
    ]


@pytest.mark.parametrize(
    ("state", "reason", "ready", "stage", "outcome"),
    [
        (State.REFUSED, Reason.OVER_LIMIT, None, Stage.POLICY, Outcome.FAILED),
        (State.REFUSED, Reason.WAITING_FOR_QUOTA, None, Stage.QUOTA, Outcome.FAILED),
        (State.REFUSED, Reason.WAITING_FOR_CAPACITY, None, Stage.CAPACITY, Outcome.FAILED),
        (State.QUEUED, Reason.WAITING_FOR_QUOTA, None, Stage.QUOTA, Outcome.NOW),
        (State.QUEUED, Reason.WAITING_FOR_CAPACITY, None, Stage.CAPACITY, Outcome.NOW),
        (State.FAILED, Reason.PACKAGES_FAILED, None, Stage.IMAGE, Outcome.FAILED),
        (State.FAILED, Reason.IMAGE_PULL_FAILED, None, Stage.IMAGE, Outcome.FAILED),
        (State.FAILED, Reason.START_FAILED, None, Stage.START_UP, Outcome.FAILED),
        (State.FAILED, Reason.HEAD_CRASHED, None, Stage.START_UP, Outcome.FAILED),
        (State.STARTING, Reason.HEAD_STARTING, None, Stage.START_UP, Outcome.NOW),
        (State.READY, Reason.SERVING, 3.5, Stage.HEALTH, Outcome.NOW),
        (State.FAILED, Reason.HEAD_CRASHED, 3.5, Stage.HEALTH, Outcome.FAILED),
        (State.STOPPED, Reason.IDLE, 3.5, Stage.HEALTH, Outcome.ENDED),
        (State.STOPPED, Reason.STOPPED_BY_USER, None, Stage.START_UP, Outcome.ENDED),
    ],
)
def test_a_cluster_stands_where_its_reason_says(
    state: State, reason: Reason, ready: float | None, stage: Stage, outcome: Outcome
) -> None:
    steps = explain(cluster(state, reason, "because", ready), HISTORY)
    step = standing(steps)
    assert (step.stage, step.outcome) == (stage, outcome)
    order = list(Stage)
    for other in steps:
        if order.index(other.stage) < order.index(stage):
            assert other.outcome is Outcome.PASSED
        if order.index(other.stage) > order.index(stage):
            assert other.outcome is Outcome.PENDING
    if outcome is Outcome.FAILED:
        assert "because" in step.said
        assert step.fix


def test_what_is_queued_is_not_told_to_queue() -> None:
    states = (State.QUEUED, State.REFUSED)
    steps = [standing(explain(cluster(state, Reason.WAITING_FOR_QUOTA, "because"), [])) for state in states]
    assert ["--queue" in step.fix for step in steps] == [False, True]


def test_phases_of_a_start_have_their_times() -> None:
    steps = explain(cluster(State.READY, Reason.SERVING, ready=3.5), HISTORY)
    assert "starting the scheduler (2.5 s)" in steps[4].said


def test_a_head_that_does_not_answer_is_not_called_ill() -> None:
    step = standing(explain(cluster(State.READY, Reason.SERVING, ready=3.5), HISTORY, None))
    assert "it may be busy" in step.said


def test_a_restarted_worker_is_told_with_its_reason() -> None:
    ill = replace(
        cluster(State.READY, Reason.WORKER_RESTARTED, "worker s-1 used 990 MB of its 1000 MB", 3.5), workers=1
    )
    step = standing(
        explain(ill, HISTORY, HeadStatus(clients=1, busy=True, ends_in=NextEnd(Reason.IDLE, Seconds(61))))
    )
    assert "used 990 MB" in step.said
    assert "1 of 2 workers" in step.said
    assert "1 min 1 s" in step.said


def test_an_image_is_told_where_workers_run_in_one_whatever_the_target_is_called() -> None:
    ready = cluster(State.READY, Reason.SERVING, ready=3.5)
    for in_pods, said in ((False, "no image needed: workers use this Python"), (True, "is available")):
        (image,) = (step for step in explain(ready, HISTORY, in_pods=in_pods) if step.stage is Stage.IMAGE)
        assert said in image.said
