"""Two governors at the same moment: each of the orders of writes that ``lifecycle`` promises to survive.

Each test stops one governor in the middle of its round, lets another look there, and lets it act on what it
saw only when the first is through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from shoal.governor.actions import Scope
from shoal.governor.cautious import Cautious
from shoal.governor.ports import Snapshot
from shoal.governor.rounds import Governor, RoundPoint
from shoal.homes.base import Request
from shoal.homes.fake import PERIODS, FakeHome, InjectedFault
from shoal.model.cluster import Cluster, Reason, State
from shoal.project.policy import Policy, Team
from shoal.quota.account import amounts
from shoal.units import Bytes

GB = 10**9
TEAM, USER = (Scope.TEAM, "red"), (Scope.USER, "ann")
Asking = Callable[..., Request]


@pytest.fixture
def home(policy: Policy) -> FakeHome:
    return FakeHome(policy)


@pytest.fixture
def strict(policy: Policy) -> Policy:
    """Another project's policy: in it, team red has no room left beside bob's 30 GB."""
    return replace(policy, teams={**policy.teams, "red": Team(memory=Bytes(40 * GB))}, _known={})


def look_at(home: FakeHome, policy: Policy, point: RoundPoint) -> Snapshot:
    """A round of a governor, and what another one sees at ``point`` in the middle of it."""
    seen: list[Snapshot] = []

    def reached(at: RoundPoint) -> None:
        if at == point and not seen:
            seen.append(home.snapshot())

    Governor(home, policy, PERIODS, reached).round()
    assert seen, f"{point} was not reached"
    return seen[0]


def act_on(home: FakeHome, policy: Policy, seen: Snapshot) -> None:
    fresh = home.snapshot
    home.snapshot = lambda: seen  # type: ignore[method-assign]
    try:
        Governor(home, policy, PERIODS).round()
    finally:
        home.snapshot = fresh  # type: ignore[method-assign]


def charged(home: FakeHome, cluster: Cluster) -> dict[Scope, float]:
    return {
        key[0]: account.admitted[cluster.id].memory / GB
        for key, (account, _) in home.accounts.items()
        if cluster.id in account.admitted and key[0] is not Scope.QUOTA
    }


def with_bob(home: FakeHome, asking: Asking, bob: int = 3) -> None:
    home.request(asking("bobs", "bob", bob))
    home.govern()
    home.advance(4)


def test_one_withdraws_while_the_other_admits(home: FakeHome, strict: Policy, asking: Asking) -> None:
    with_bob(home, asking)
    cluster = home.request(asking("anns", "ann", 2))
    seen = look_at(home, home.policy, RoundPoint.ADMISSION_TEAM_CHARGED)
    assert home.get(cluster.id).state is State.ADMITTED
    act_on(home, strict, seen)  # saw it Queued, charged in part, and with no room by its policy
    assert home.get(cluster.id).state.admitted
    assert charged(home, cluster) == {Scope.TEAM: 20, Scope.USER: 20}


def test_one_admits_on_what_the_other_is_taking_back(home: FakeHome, strict: Policy, asking: Asking) -> None:
    with_bob(home, asking)
    cluster = home.request(asking("anns", "ann", 2))
    died = Governor(home, home.policy, PERIODS, lambda point: die() if "team charged" in point else None)
    with pytest.raises(KeyboardInterrupt):
        died.round()
    assert charged(home, cluster) == {Scope.TEAM: 20}
    # The strict one notes in the record that it waits; there the other looks; then the charge is taken back.
    seen = look_at(home, strict, RoundPoint.ADMISSION_RECORDED)
    assert charged(home, cluster) == {}
    act_on(home, home.policy, seen)
    recorded = home.get(cluster.id).state.admitted
    assert charged(home, cluster) == ({Scope.TEAM: 20, Scope.USER: 20} if recorded else {})


def die() -> None:
    raise KeyboardInterrupt


def test_one_lowers_while_the_other_grows(home: FakeHome, strict: Policy, asking: Asking) -> None:
    with_bob(home, asking)
    cluster = home.request(asking("anns", "ann", 1))
    home.govern()
    home.advance(4)
    home.wish(cluster.id, 2)
    seen = look_at(home, home.policy, RoundPoint.SCALE_TEAM_CHARGED)
    assert home.get(cluster.id).plan.workers == 2
    act_on(home, strict, seen)  # saw one worker recorded, two charged, and no room for a second
    assert home.get(cluster.id).plan.workers == 2
    assert charged(home, cluster) == {Scope.TEAM: 20, Scope.USER: 20}


def test_both_admit_the_last_place(home: FakeHome, policy: Policy, asking: Asking) -> None:
    first, second = home.request(asking("a", "ann", 4)), home.request(asking("b", "bob", 4))
    third = home.request(asking("c", "ann", 1))
    seen = home.snapshot()
    act_on(home, policy, seen)
    act_on(home, policy, seen)
    states = [home.get(cluster.id).state for cluster in (first, second, third)]
    assert states == [State.ADMITTED, State.ADMITTED, State.QUEUED]
    held = home.accounts[TEAM][0].held
    assert held == amounts(first.plan) + amounts(second.plan)


def test_a_start_that_comes_late_is_seen_before_anything_is_freed(home: FakeHome, asking: Asking) -> None:
    """Nothing of it was there when its end was written, and there is when its accounts would be freed."""
    cluster = home.request(asking("a", "ann", 2))
    home.govern(1)
    home.faults = lambda operation: InjectedFault.LATE if operation == "start head" else InjectedFault.NONE
    home.govern(1)
    assert cluster.id not in home.heads
    home.stop(cluster.id, Reason.STOPPED_BY_USER, "enough")
    uncounted = list[RoundPoint]()

    def reached(at: RoundPoint) -> None:
        if at is RoundPoint.RELEASE_END_RECORDED:
            home.deliver_late()
        if home.remains(cluster.id) and charged(home, cluster) != {Scope.TEAM: 20, Scope.USER: 20}:
            uncounted.append(at)

    governor = Governor(Cautious(home), home.policy, PERIODS, reached)
    for _ in range(4):
        governor.round()
    assert cluster.id in home.heads
    assert not home.remains(cluster.id)
    assert charged(home, cluster) == {}
    assert uncounted == []


@pytest.mark.parametrize("lost", [None, "no write", "charge quota"], ids=["deleted", "ended", "not freed"])
def test_whoever_does_not_wait_is_answered_by_what_is_free_after_a_round_that_freed(
    home: FakeHome, policy: Policy, asking: Asking, lost: str | None
) -> None:
    """Not by the pass before it, which said that it has to wait, and the accounts after it, in which all is free, or in
    which what ended still counts."""
    first = home.request(asking("a", "ann", 4))
    home.govern()
    home.advance(4)
    if lost is None:
        home.delete_record(first.id)
    else:
        home.stop(first.id, Reason.STOPPED_BY_USER, "enough")
        home.govern(1)
    home.advance(4)
    asked = home.request(asking("b", "ann", 4))
    its = replace(asked, workload=replace(asked.workload, queue=False))
    home.records[asked.id] = its, 1  # as on Kubernetes, where whoever asks does not decide
    home.faults = lambda operation: InjectedFault.LOST_REQUEST if operation == lost else InjectedFault.NONE
    Governor(Cautious(home), policy, PERIODS).round()
    assert first.id not in home.records or home.get(first.id).state is State.STOPPED
    home.faults = lambda operation: InjectedFault.NONE
    for _ in range(2):
        Governor(Cautious(home), policy, PERIODS).round()
    assert home.get(asked.id).state.admitted, home.get(asked.id).message


def test_workers_count_until_they_are_gone(home: FakeHome, asking: Asking) -> None:
    cluster = home.request(asking("a", "ann", 3))
    home.govern()
    home.advance(4)
    home.crash_head(cluster.id)
    faults = {"end remains": InjectedFault.LOST_REQUEST}
    home.faults = lambda operation: faults.get(operation, InjectedFault.NONE)
    home.govern(3)
    assert home.get(cluster.id).state is State.STOPPING
    assert charged(home, cluster)[Scope.USER] == 30
    home.advance(10)
    home.govern(3)
    assert home.get(cluster.id).state is State.FAILED
    assert charged(home, cluster) == {}


def test_a_worker_that_hands_over_still_counts(home: FakeHome, asking: Asking) -> None:
    cluster = home.request(asking("a", "ann", 3))
    home.govern()
    home.advance(4)
    home.wish(cluster.id, 1)
    home.govern(3)
    home.advance(4)
    home.govern(3)
    assert home.heads[cluster.id].workers == 3
    assert charged(home, cluster)[Scope.USER] == 30
    home.advance(11)
    home.govern(3)
    assert home.heads[cluster.id].workers == 1
    assert charged(home, cluster) == {Scope.TEAM: 10, Scope.USER: 10}


def test_growing_again_gives_nothing_back_while_workers_are_retired(home: FakeHome, asking: Asking) -> None:
    cluster = home.request(asking("a", "ann", 3))
    home.govern()
    home.advance(4)
    home.wish(cluster.id, 1)
    home.govern(3)
    another = home.request(asking("b", "ann", 3))
    home.wish(cluster.id, 2)
    home.govern(3)
    assert charged(home, cluster)[Scope.USER] == 30
    assert home.get(another.id).state is State.QUEUED
    for _ in range(3):
        home.advance(6)
        home.govern(3)
    assert charged(home, cluster) == {Scope.TEAM: 20, Scope.USER: 20}
    assert home.get(another.id).state is not State.QUEUED


def test_a_clock_that_jumps_makes_no_head_seem_lost(home: FakeHome, policy: Policy, asking: Asking) -> None:
    governor = Governor(home, policy, PERIODS, monotonic=lambda: home.clock.elapsed)
    cluster = home.request(asking("a", "ann", 1))
    governor.round()
    governor.round()
    home.advance(4)
    home.heads[cluster.id].reachable = False
    governor.round()
    home.clock.now += 3000
    governor.round()
    assert home.get(cluster.id).state is State.READY
    home.advance(46)
    governor.round()
    assert (home.get(cluster.id).state, home.get(cluster.id).reason) == (State.FAILED, "HeadLost")


def test_a_policy_that_takes_away_leaves_what_runs(home: FakeHome, asking: Asking, policy: Policy) -> None:
    cluster = home.request(asking("a", "ann", 3))
    home.govern()
    home.advance(4)
    home.policy = replace(policy, teams={**policy.teams, "red": Team(memory=Bytes(10 * GB))}, _known={})
    another = home.request(asking("b", "bob", 1))
    home.govern()
    assert home.get(cluster.id).state is State.READY
    assert home.get(another.id).state is State.QUEUED
    assert "team red's quota" in home.get(another.id).message


def test_a_request_that_nobody_waits_for_makes_room_for_the_next(home: FakeHome, asking: Asking) -> None:
    """As at home local: by the same rule, and only once the last of its clients was gone for long enough."""
    home.request(asking("holder", "ann", workers=3))
    home.govern()
    large, small = (home.request(asking(name, "ann", workers=n)) for name, n in (("large", 4), ("small", 2)))
    no_client = large.plan.timeouts.no_client
    home.kill_clients(large.id)
    home.advance(no_client - 1)
    home.attend(large.id)
    home.kill_clients(large.id)
    home.advance(no_client - 1)
    home.govern()
    assert home.get(small.id).state is home.get(large.id).state is State.QUEUED
    home.advance(1)
    home.govern()
    assert (home.get(large.id).state, home.get(large.id).reason) == (State.STOPPED, Reason.CLIENT_GONE)
    assert home.get(small.id).state is not State.QUEUED
