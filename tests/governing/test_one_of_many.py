"""What is done for one cluster keeps nobody else waiting, a defect that it meets neither; what fails for all does."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shoal.errors import InfrastructureError
from shoal.governor.actions import Scope
from shoal.governor.ports import AccountKey
from shoal.governor.rounds import Governor, RoundPoint
from shoal.homes.base import Request
from shoal.homes.fake import PERIODS, FakeHome
from shoal.model.cluster import Cluster, State
from shoal.project.policy import Policy
from shoal.project.targets import Machine
from shoal.quota.account import Account
from shoal.units import Bytes


class Slow(FakeHome):
    """Each start of a head waits for two more; each write of an account, whether another one comes meanwhile."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy, Machine(memory=Bytes(10**12)))
        self._lock, self._starts = threading.Lock(), threading.Barrier(3)
        self._writers: dict[AccountKey, threading.Barrier] = defaultdict(lambda: threading.Barrier(2))

    def write_account(self, key: AccountKey, account: Account, version: int) -> int:
        with self._lock:
            others = self._writers[key]
        with pytest.raises(threading.BrokenBarrierError):
            others.wait(0.05)
        others.reset()
        with self._lock:
            return super().write_account(key, account, version)

    def write_cluster(self, cluster: Cluster, version: int) -> int:
        with self._lock:
            return super().write_cluster(cluster, version)

    def start_head(self, cluster_id: str) -> None:
        self._starts.wait(20)
        with self._lock:
            super().start_head(cluster_id)


def test_acts_for_different_clusters_are_beside_each_other(
    policy: Policy, asking: Callable[..., Request]
) -> None:
    """One account is written by one at a time: all that it is to hold is there after a single round."""
    home = Slow(policy)
    asked = [home.request(asking(name, owner)) for name, owner in (("a", "ann"), ("b", "ann"), ("c", "bob"))]
    with ThreadPoolExecutor(8) as pool:
        governor = Governor(home, policy, PERIODS, each=pool.map)
        governor.round()
        assert {home.get(each.id).state for each in asked} == {State.ADMITTED}
        assert home.accounts[Scope.TEAM, "red"][0].held.clusters == 3
        governor.round()
    assert home.heads.keys() == {each.id for each in asked}


def test_a_defect_of_one_cluster_keeps_nobody_else_waiting(
    policy: Policy, asking: Callable[..., Request], caplog: pytest.LogCaptureFixture
) -> None:
    home = FakeHome(policy)
    first, second = (home.request(asking(name, owner)) for name, owner in (("one", "ann"), ("two", "cid")))
    start = home.start_head

    def broken(cluster_id: str) -> None:
        if cluster_id == first.id:
            raise KeyError("slot")
        start(cluster_id)

    home.start_head = broken  # type: ignore[method-assign]
    for _ in range(3):
        Governor(home, policy, PERIODS).round()
    assert home.get(first.id).state is State.ADMITTED
    assert home.heads.keys() == {second.id}
    assert "one of ann is looked at again" in caplog.text

    def away(cluster_id: str) -> None:
        raise InfrastructureError("the place is away")

    home.start_head = away  # type: ignore[method-assign]
    with pytest.raises(InfrastructureError, match="is away"):
        Governor(home, policy, PERIODS).round()


def test_what_fails_for_all_ends_what_is_done_beside_it(
    policy: Policy, asking: Callable[..., Request]
) -> None:
    """After the act that is being done: the place is away, and each further one would wait for it as long."""
    home = FakeHome(policy)
    for name, owner in (("one", "ann"), ("two", "cid")):
        home.request(asking(name, owner))
    write, reached, second = home.write_account, list[RoundPoint](), list[Callable[[], int]]()

    def away(key: AccountKey, account: Account, version: int) -> int:
        if key[1] == "cid":
            raise InfrastructureError("the place is away")
        return write(key, account, version)

    def after(point: RoundPoint) -> None:
        reached.append(point)
        with pytest.raises(InfrastructureError, match="is away"):
            second.pop()()

    def beside(do: Callable[[Any], int], these: Iterable[Any]) -> list[int]:
        first, other = sorted(these, key=lambda its: str(its[0].name))
        second.append(lambda: do(other))
        return [do(first)]

    home.write_account = away  # type: ignore[method-assign]
    Governor(home, policy, PERIODS, after, each=beside).round()
    assert reached == [RoundPoint.ADMISSION_TEAM_CHARGED]
