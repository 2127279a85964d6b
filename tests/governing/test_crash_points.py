"""A governor dies after each of its writes in turn; another one finishes what it left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from shoal.governor.actions import Scope
from shoal.governor.rounds import Governor, RoundPoint
from shoal.homes.base import Request
from shoal.homes.fake import PERIODS, FakeHome
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import ScriptRun
from shoal.project.policy import Policy
from shoal.project.targets import Machine
from shoal.quota.account import in_pods
from shoal.units import Bytes

Asking = Callable[..., Request]


class Died(BaseException):
    pass


def admit(home: FakeHome, cluster: Cluster) -> State:
    return State.READY


def grow(home: FakeHome, cluster: Cluster) -> State:
    home.govern()
    home.advance(4)
    home.wish(cluster.id, 3)
    return State.READY


def stop(home: FakeHome, cluster: Cluster) -> State:
    home.govern()
    home.advance(4)
    home.stop(cluster.id, Reason.STOPPED_BY_USER, "enough")
    return State.STOPPED


def kill(home: FakeHome, cluster: Cluster) -> State:
    home.govern()
    home.advance(4)
    home.crash_head(cluster.id)
    return State.FAILED


# What is going on when the governor dies there.
CASES: dict[RoundPoint, Callable[[FakeHome, Cluster], State]] = {
    RoundPoint.ADMISSION_PLACE_CHARGED: admit,
    RoundPoint.ADMISSION_TEAM_CHARGED: admit,
    RoundPoint.ADMISSION_USER_CHARGED: admit,
    RoundPoint.ADMISSION_QUOTA_CHARGED: admit,
    RoundPoint.ADMISSION_RECORDED: admit,
    RoundPoint.START_HEAD_STARTED: admit,
    RoundPoint.START_SCRIPT_STARTED: admit,
    RoundPoint.SCALE_PLACE_CHARGED: grow,
    RoundPoint.SCALE_TEAM_CHARGED: grow,
    RoundPoint.SCALE_USER_CHARGED: grow,
    RoundPoint.SCALE_QUOTA_CHARGED: grow,
    RoundPoint.SCALE_RECORDED: grow,
    RoundPoint.RELEASE_STOP_RECORDED: stop,
    RoundPoint.RELEASE_HEAD_TOLD: stop,
    RoundPoint.RELEASE_REMAINS_ENDED: kill,
    RoundPoint.RELEASE_END_RECORDED: stop,
    RoundPoint.RELEASE_QUOTA_FREED: stop,
    RoundPoint.RELEASE_USER_FREED: stop,
    RoundPoint.RELEASE_TEAM_FREED: stop,
    RoundPoint.RELEASE_PLACE_FREED: stop,
}


def test_every_crash_point_has_its_case() -> None:
    assert set(CASES) == set(RoundPoint)


@pytest.mark.parametrize("point", RoundPoint, ids=str)
def test_another_governor_finishes(point: RoundPoint, policy: Policy, asking: Asking) -> None:
    home = FakeHome(policy, Machine(memory=Bytes(10**12)))
    cluster = home.request(replace(asking("a", "ann", 2), run=ScriptRun("a.py")))
    expected = CASES[point](home, cluster)
    died = []

    def reached(at: RoundPoint) -> None:
        if at == point:
            died.append(at)
            raise Died

    doomed = Governor(home, policy, PERIODS, reached, lambda: home.clock.elapsed)
    for attempt in range(8):
        try:
            doomed.round()
        except Died:
            break
        if attempt % 2:  # two looks at each moment: else a head would see the record before it is told
            home.advance(1)
    assert died, f"{point} was never reached"

    for _ in range(4):
        home.govern()
        home.advance(4)
    record = home.get(cluster.id)
    assert record.state is expected
    held = {key[0]: account.admitted for key, (account, _) in home.accounts.items()}
    assert held.keys() == set(Scope)
    if expected is State.READY:
        workers = 3 if CASES[point] is grow else 2
        assert home.scripts[cluster.id].alive
        assert home.heads[cluster.id].workers == record.plan.workers == workers
        quota = held.pop(Scope.QUOTA)
        assert quota == {cluster.id: in_pods(record.plan)}
        assert [its[cluster.id].workers for its in held.values()] == [workers] * 3
    else:
        assert not home.remains(cluster.id)
        assert not any(held.values())
