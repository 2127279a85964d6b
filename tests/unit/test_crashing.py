"""Workers' pods that crash again and again are made again with ever longer pauses, and never more than planned."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from shoal.homes.kubernetes.crashing import Crashes, crashes, paused
from shoal.homes.kubernetes.names import HEAD
from shoal.homes.kubernetes.tending import tend

from .test_kubernetes_objects import record
from .test_kubernetes_pods import pod, slots, workers

CLUSTER = record()
PLAN = CLUSTER.plan
HEAD_POD = pod("nightly-head", HEAD)


def crashed(slot: int, uid: str = "", code: int = 1, **more: Any) -> dict[str, Any]:
    (made,) = workers(slot, phase="Failed")
    made["metadata"]["uid"] = uid or f"crashed-{slot}"
    made["status"] |= {"containerStatuses": [{"state": {"terminated": {"exitCode": code}}}]} | more
    return made


def test_a_worker_that_crashes_at_once_is_made_ever_more_slowly() -> None:
    """Two of three crash as soon as they run, for an hour: without a pause there would be 7,200 pods."""
    now, known, made = 0.0, dict[str, Crashes](), 0
    pods = workers(0, 1, 2)
    times = []
    while now < 3600:
        bad = [each for each in pods if each["metadata"]["labels"]["shoal.dev/slot"] != "0"]
        for each in bad:
            each["status"] = crashed(0)["status"]
        known = crashes(PLAN, pods, known, now)
        todo = tend(CLUSTER, [HEAD_POD, *pods], None, None, paused(PLAN, known, now))
        gone = {uid for _, uid in todo.end}
        pods = [each for each in pods if each["metadata"]["uid"] not in gone]
        for slot in todo.make:
            made += 1
            (new,) = workers(slot.number)
            new["metadata"]["uid"] = f"made-{made}"
            pods.append(new)
            times.append(now)
        assert len(pods) <= 3 + len(gone), "never more than the plan has"
        now += 1
    assert times[:2] == [0, 0], "at once at first"
    assert made < 40
    assert max(later - first for first, later in pairwise(times)) <= 301


def test_what_crashed_long_ago_counts_no_more() -> None:
    first = crashes(PLAN, [crashed(0), crashed(1), crashed(2)], {}, 0)
    assert paused(PLAN, first, 0) == frozenset(), "each may crash once"
    second = crashes(PLAN, [crashed(3)], first, 100)
    assert paused(PLAN, second, 100) == {"crashed-3"}
    assert paused(PLAN, second, 110) == frozenset()
    assert crashes(PLAN, [crashed(3)], second, 105) == second, "seen twice is one crash"
    later = crashes(PLAN, [crashed(4)], crashes(PLAN, [], second, 300), 715)
    assert later["default"].times == 1
    sooner = crashes(PLAN, [crashed(4)], crashes(PLAN, [], second, 300), 700)
    assert sooner["default"].times == 5


@pytest.mark.parametrize(
    "lost",
    [
        crashed(0, reason="Evicted"),
        crashed(
            0, conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
        ),
        crashed(0, code=0),
        workers(0)[0],
        pod("nightly-w-0", "worker", "Failed", 0, deletionTimestamp="now"),
    ],
)
def test_who_was_taken_away_or_ended_in_good_order_is_no_crash(lost: dict[str, Any]) -> None:
    assert crashes(PLAN, [lost], {}, 0) == {}


def test_meanwhile_its_slot_stays_and_another_worker_is_replaced_at_once() -> None:
    known = {"default": Crashes(frozenset({"crashed-1"}), 4, 0)}
    rests = paused(PLAN, known, 5)
    pods = [HEAD_POD, *workers(0), crashed(1)]
    assert tend(CLUSTER, pods, None, None, rests).make == slots(2)
    assert tend(CLUSTER, pods, None, None, rests).end == ()
    after = tend(CLUSTER, pods, None, None, paused(PLAN, known, 10))
    assert (after.make, after.end) == (slots(2, 3), (("nightly-w-1", "crashed-1"),))
