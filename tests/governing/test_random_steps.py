"""Whatever happens in whatever order: no limit is exceeded, nothing runs unowned, everybody gets an answer.

Hypothesis draws the steps: requests, queues, scaling, kills, time, a clock that jumps, lost, doubled and late
writes, two governors of which either dies between any two writes. The invariants are checked after every
single write, not only between steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from shoal.governor.actions import Scope
from shoal.governor.rounds import CrashPoint, Governor
from shoal.homes.base import Ask
from shoal.homes.fake import PERIODS, FakeHome, Fault
from shoal.model.cluster import Cluster, Reason, State
from shoal.project.policy import Policy
from shoal.project.targets import Machine
from shoal.quota.account import amounts, real
from shoal.units import Bytes

GB = 10**9
PLACE = Machine(memory=Bytes(120 * GB), gpus=1)
# No shrinking: what failed is shown step by step, and shrinking takes minutes.
SEARCH = [Phase.explicit, Phase.reuse, Phase.generate]
steps: Counter[str] = Counter()


class Died(BaseException):
    """The governor was killed: nothing in it may catch this."""


class World(RuleBasedStateMachine):
    """The fake home, two governors, and everything that may happen."""

    small_policy: Callable[..., Policy]
    small_ask: Callable[..., Ask]

    @initialize()
    def begin(self) -> None:
        self.policy = self.small_policy()
        self.home = FakeHome(self.policy, PLACE)
        self.plagued: list[Fault] = []
        self.home.faults = lambda operation: self.plagued.pop() if self.plagued else Fault.NONE
        self.home.changed = self.no_limit_is_exceeded
        self.dies_at: CrashPoint | None = None
        self.governors = [self.new_governor(), self.new_governor()]
        self.stale: Any = None
        self.number = 0
        # Some clusters that run already: most of what can go wrong needs one.
        for owner, workers in (("ann", 2), ("bob", 1), ("cid", 3)):
            self.ask(owner, workers, 1)
        self.all_is_well()

    def new_governor(self) -> Governor:
        return Governor(self.home, self.policy, PERIODS, self.reached, lambda: self.home.clock.elapsed)

    def reached(self, point: CrashPoint) -> None:
        if point == self.dies_at:
            self.dies_at = None
            raise Died

    # -- what may happen -------------------------------------------------------------------------------

    @rule(
        owner=st.sampled_from(["ann", "bob", "cid", "dan"]),
        workers=st.integers(1, 5),
        hours=st.sampled_from([0.1, 0.5, 1]),
        least=st.sampled_from([None, 1, 2]),
    )
    def ask(self, owner: str, workers: int, hours: float, least: int | None = None) -> None:
        self.number += 1
        asked = type(self).small_ask(f"n{self.number}", owner, workers, hours=hours, least=least)
        self.home.request(asked)

    @rule()
    def all_is_well(self) -> None:
        """Long enough for what was asked for to be served."""
        for _ in range(2):
            self.govern(0)
            self.home.advance(4)
            self.govern(1)

    @rule(which=st.integers(0, 1))
    def govern(self, which: int) -> None:
        try:
            self.governors[which].round()
        except Died:
            self.governors[which] = self.new_governor()

    @rule(which=st.integers(0, 1))
    def govern_by_an_old_look(self, which: int) -> None:
        """A governor that read a while ago acts only now, after the other one."""
        if self.stale is None:
            self.stale = self.home.snapshot()
            return
        governor, fresh = self.governors[which], self.home.snapshot
        old, self.stale = self.stale, None
        self.home.snapshot = lambda: old  # type: ignore[method-assign]
        try:
            governor.round()
        except Died:
            self.governors[which] = self.new_governor()
        finally:
            self.home.snapshot = fresh  # type: ignore[method-assign]

    @rule(point=st.sampled_from(CrashPoint))
    def a_governor_is_about_to_die(self, point: CrashPoint) -> None:
        self.dies_at = point

    @rule(faults=st.lists(st.sampled_from(Fault), max_size=4))
    def the_network_is_bad(self, faults: list[Fault]) -> None:
        self.plagued = list(faults)

    @rule()
    def a_late_write_arrives(self) -> None:
        self.home.deliver_late()

    @rule(seconds=st.sampled_from([0.5, 3, 10, 40, 60, 400, 3600]))
    def time_goes_by(self, seconds: float) -> None:
        self.home.advance(seconds)

    @rule(seconds=st.sampled_from([-7200, -60, 60, 7200]))
    def the_clock_jumps(self, seconds: float) -> None:
        self.home.clock.now += seconds

    @rule(index=st.integers(0, 20), workers=st.integers(1, 5))
    def scale(self, index: int, workers: int) -> None:
        if live := self.live(State.READY):
            self.home.wish(live[index % len(live)].id, workers)

    @rule(index=st.integers(0, 20))
    def stop(self, index: int) -> None:
        if live := self.live():
            self.home.stop(live[index % len(live)].id, Reason.STOPPED_BY_USER, "enough")

    @rule(index=st.integers(0, 20))
    def kill_a_head(self, index: int) -> None:
        if heads := [head for head in self.home.heads.values() if head.alive]:
            self.home.crash_head(heads[index % len(heads)].cluster)

    @rule(index=st.integers(0, 20), reachable=st.booleans())
    def a_machine_is_cut_off(self, index: int, reachable: bool) -> None:
        if heads := list(self.home.heads.values()):
            heads[index % len(heads)].reachable = reachable

    # -- what must hold --------------------------------------------------------------------------------

    def live(self, *states: State) -> list[Cluster]:
        found = self.home.clusters()
        return [cluster for cluster in found if not states or cluster.state in states]

    @invariant()
    def counted(self) -> None:
        steps["steps"] += 1

    def no_limit_is_exceeded(self) -> None:
        """By the accounts, by the records, and by the workers that really run."""
        steps["checks"] += 1
        by_record: dict[tuple[Scope, str], Counter[str]] = {}
        really: dict[tuple[Scope, str], Counter[str]] = {}
        for cluster, _ in self.home.records.values():
            keys = [(Scope.USER, cluster.owner), (Scope.PLACE, "")]
            keys += [(Scope.TEAM, cluster.team)] if cluster.team else []
            head = self.home.heads.get(cluster.id)
            for key in keys:
                if cluster.state.admitted:
                    its = real(cluster.plan) if key[0] is Scope.PLACE else amounts(cluster.plan)
                    for what in ("clusters", "memory", "cores"):
                        by_record.setdefault(key, Counter())[what] += its.of(what)  # type: ignore[assignment]
                if head is not None and (head.alive or head.workers):
                    really.setdefault(key, Counter())["memory"] += head.workers * 10 * GB
        for key, counted in [*by_record.items(), *really.items()]:
            for what, value in counted.items():
                assert value <= self.limit(key, what), f"{key}: {value} of {what}"
        for key, (account, _) in self.home.accounts.items():
            for what in ("clusters", "memory"):
                assert account.held.of(what) <= self.limit(key, what), f"account {key}"
        for key, counted in by_record.items():
            account = self.home.accounts[key][0]
            assert account.held.memory >= counted["memory"], f"{key} is admitted more than it is charged"

    def limit(self, key: tuple[Scope, str], what: str) -> float:
        scope, name = key
        if scope is Scope.PLACE:
            return float(PLACE.memory or 0) if what == "memory" else math.inf
        if scope is Scope.USER:
            totals = self.policy.limits_of(name).totals
            return totals[what].value if what in totals else math.inf
        if what == "memory":
            return float(self.policy.teams[name].memory or math.inf)
        return self.policy.teams[name].concurrent_clusters or math.inf if what == "clusters" else math.inf

    def teardown(self) -> None:
        """When the trouble is over, all comes to an end by itself."""
        if not hasattr(self, "home"):
            return
        self.plagued.clear()
        self.dies_at = None
        for head in self.home.heads.values():
            head.reachable = True
        while self.home.late:
            self.home.deliver_late()
        for _ in range(200):
            if not self.live():
                break
            self.all_is_well()
            self.home.advance(600.0)
        for _ in range(5):
            self.governors[0].round()
            self.home.advance(10)
        assert not self.live(), [(c.id, c.state, c.message) for c in self.live()]
        for head in self.home.heads.values():
            assert not head.alive, f"an orphan: the head of {head.cluster}"
            assert not head.workers, f"orphans: workers of {head.cluster}"
        for key, (account, _) in self.home.accounts.items():
            assert not account.admitted, f"{key} still holds {account.admitted}"


@pytest.fixture
def world(policy: Policy, asking: Callable[..., Ask]) -> type[World]:
    World.small_policy = staticmethod(lambda: policy)
    World.small_ask = staticmethod(asking)
    steps.clear()
    return World


def test_a_few_thousand_random_steps(world: type[World]) -> None:
    run_state_machine_as_test(
        world,
        settings=settings(
            max_examples=50,
            stateful_step_count=50,
            deadline=None,
            phases=SEARCH,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)  # some three minutes of CPU, more on a machine that others use
def test_a_hundred_thousand_random_steps(world: type[World]) -> None:
    run_state_machine_as_test(
        world,
        settings=settings(
            max_examples=2400,
            stateful_step_count=50,
            deadline=None,
            phases=SEARCH,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert steps["steps"] >= 100_000
