"""Whatever happens in whatever order: no limit is exceeded, nothing runs unowned, everybody gets an answer.

Hypothesis draws the steps: requests, queues, scaling, kills, time, a clock that jumps, lost, doubled and late
writes, which arrive also between two acts of a round, two governors of which either dies between any two writes. The
invariants are checked after every single write, not only between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from shoal.errors import RefusedError
from shoal.governor.actions import Scope
from shoal.governor.cautious import Cautious
from shoal.governor.rounds import Governor, RoundPoint
from shoal.homes.base import Request
from shoal.homes.fake import PERIODS, FakeHome, InjectedFault
from shoal.model.cluster import Cluster, Reason, State
from shoal.project.policy import Policy
from shoal.quota.account import Account, Amounts, in_pods

from .world import LIVES, PLACE, Died, Steps, made, run, steps

KINDS = ("records", "accounts", "wishes", "sights")


class Beside:
    """Like ``map``, each on a stack of its own: who goes on when one has ``handed_over`` is random."""

    def __init__(self, random: Random) -> None:
        self._random, self._main = random, getcurrent()

    def __call__(self, do: Callable[[Any], int], these: Iterable[Any]) -> list[int]:
        done = list[int]()
        acting = [(greenlet(lambda its: done.append(do(its))), its) for its in these]
        while acting:
            each, its = self._random.choice(acting)
            each.switch(*(() if each else (its,)))
            acting = [one for one in acting if not one[0].dead]
        return done

    def handed_over(self) -> None:
        if getcurrent() is not self._main:
            self._main.switch()


class World(Steps):
    """The fake home, two governors, and everything that may happen."""

    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        self.policy = type(self).small_policy()
        self.home = FakeHome(self.policy, PLACE)
        self.clock, self.heads = self.home.clock, self.home.heads
        self.plagued: list[InjectedFault] = []
        self.late_starts, self.on_its_way, self.arriving = 0, Random(seed), False
        self.home.faults = self.fault
        self.broken: list[AssertionError] = []
        self.home.changed = self.look_closely
        self.dies_at: RoundPoint | None = None
        self.beside: Beside | None = None
        self.emptied: set[str] = set()
        self.governors = [self.new_governor(), self.new_governor()]
        self.start()

    def fault(self, operation: str) -> InjectedFault:
        if operation == "start head" and self.late_starts:
            self.late_starts -= 1
            return InjectedFault.LATE
        return self.plagued.pop() if self.plagued else InjectedFault.NONE

    def look_closely(self) -> None:
        """A governor that meets a defect goes on with the next cluster, also where this test has found it."""
        try:
            self.no_limit_is_exceeded()
        except AssertionError as error:
            self.broken.append(error)

    @invariant()
    def every_promise_was_kept(self) -> None:
        if self.broken:
            raise self.broken[0]

    def new_governor(self) -> Governor:
        return Governor(
            Cautious(self.home), self.policy, PERIODS, self.reached, lambda: self.home.clock.elapsed
        )

    def reached(self, point: RoundPoint) -> None:
        if point == self.dies_at:
            self.dies_at = None
            raise Died
        if self.on_its_way.random() < 0.5:
            self.a_late_write_arrives()
        if self.beside is not None:
            self.beside.handed_over()

    def request(self, ask: Request) -> None:
        try:
            self.home.request(ask)
        except RefusedError:
            assert not ask.workload.queue

    def look(self) -> None:
        for which in range(2):
            self.govern(which)

    def advance(self, seconds: float) -> None:
        self.home.advance(seconds)

    def records(self) -> Iterable[Cluster]:
        return self.home.clusters()

    def wish(self, cluster_id: str, workers: int) -> None:
        self.home.wish(cluster_id, workers)

    def tell_to_stop(self, cluster_id: str) -> None:
        self.home.stop(cluster_id, Reason.STOPPED_BY_USER, "enough")

    def crash(self, cluster_id: str) -> None:
        self.home.crash_head(cluster_id)

    def trouble_is_over(self) -> None:
        super().trouble_is_over()
        self.plagued.clear()
        self.dies_at, self.late_starts = None, 0
        while self.home.late:
            self.a_late_write_arrives()
        for _ in range(10):  # what ends, or is retired, takes its time
            if not self.emptied:
                break
            self.all_is_well()
        assert not self.emptied, "nobody counts again what runs"

    @rule(which=st.integers(0, 1))
    def govern(self, which: int) -> None:
        try:
            self.governors[which].round()
        except Died:
            self.governors[which] = self.new_governor()

    @rule(which=st.integers(0, 1), ages=st.fixed_dictionaries(dict.fromkeys(KINDS, st.integers(0, 25))))
    def govern_by_old_caches(self, which: int, ages: dict[str, int]) -> None:
        """Of each kind the governor sees what was so many changes ago."""
        self.home.caches.ages = ages
        self.govern(which)
        self.home.caches.ages = {}

    @rule(which=st.integers(0, 1), seed=st.integers(0, 99))
    def govern_several_at_once(self, which: int, seed: int) -> None:
        """After each act for a cluster, whichever of them goes on."""
        self.beside = self.governors[which].each = Beside(Random(seed))
        self.govern(which)
        self.governors[which].each, self.beside = map, None

    @rule(index=st.integers(0, 20))
    def somebody_deletes_a_record(self, index: int) -> None:
        if records := list(self.home.records):
            self.home.delete_record(records[index % len(records)])

    @rule(point=st.sampled_from(RoundPoint))
    def a_governor_is_about_to_die(self, point: RoundPoint) -> None:
        self.dies_at = point

    @rule(faults=st.lists(st.sampled_from(InjectedFault), max_size=4))
    def the_network_is_bad(self, faults: list[InjectedFault]) -> None:
        self.plagued = list(faults)

    @rule(starts=st.integers(1, 3))
    def heads_start_late(self, starts: int) -> None:
        self.late_starts = starts

    @rule()
    def a_late_write_arrives(self) -> None:
        self.arriving = True
        self.home.deliver_late()
        self.arriving = False

    @rule(owner=st.sampled_from(["ann", "bob", "cid", "dan"]))
    def somebody_empties_a_quota(self, owner: str) -> None:
        self.emptied.add(owner)
        self.home.empty_quota(owner)

    @rule(seconds=st.sampled_from([-7200, -60, 60, 7200]))
    def the_clock_jumps(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(index=st.integers(0, 20))
    def whoever_waits_for_a_request_dies(self, index: int) -> None:
        if waiting := self.live(State.QUEUED):
            self.home.kill_clients(waiting[index % len(waiting)].id)

    @rule(index=st.integers(0, 20), reachable=st.booleans())
    def a_machine_is_cut_off(self, index: int, reachable: bool) -> None:
        if heads := list(self.heads.values()):
            heads[index % len(heads)].reachable = reachable

    def no_limit_is_exceeded(self) -> None:
        """Nor by the accounts, which hold what is recorded, at least."""
        records = [cluster for cluster, _ in self.home.records.values()]
        # Of one whose record is gone, what runs counts on.
        gone = [replace(cluster, state=State.STOPPED) for cluster in self.home.deleted.values()]
        by_record = self.within_limits([*records, *gone])
        for key, (account, _) in self.home.accounts.items():
            for what in ("clusters", "memory") if key[0] is not Scope.QUOTA else ():
                assert account.held.of(what) <= self.limit(key, what), f"account {key}"
        for key, counted in by_record.items():
            held = self.home.accounts[key][0].held
            assert held.memory >= counted["memory"], f"{key} is admitted more than it is charged"
        self.no_quota_is_too_low()

    def no_quota_is_too_low(self) -> None:
        """It counts what is admitted, and every process: else that could not be started, or started again."""
        for owner in ("ann", "bob", "cid", "dan"):
            quota = self.home.accounts.get((Scope.QUOTA, owner), (Account(), 0))[0].admitted
            low = []
            for cluster, _ in self.home.records.values():
                head = self.heads.get(cluster.id)
                workers = head.workers if head is not None else 0
                runs = workers + (head is not None and head.alive)
                if cluster.owner == owner and (cluster.state.admitted or runs):
                    least = in_pods(cluster.plan).workers if cluster.state.admitted else 0
                    held = quota.get(cluster.id, Amounts()).workers
                    if held < max(least, runs):
                        low.append(f"{cluster.id} of {owner}: {held}")
            if low and self.arriving:  # a start came late, and later still what was decided without it
                self.emptied.add(owner)
            if owner in self.emptied:
                self.emptied -= set() if low else {owner}  # from here on it stays right
            else:
                assert not low

    def nothing_is_held(self) -> None:
        self.every_promise_was_kept()
        for key, (account, _) in self.home.accounts.items():
            assert not account.admitted, f"{key} still holds {account.admitted}"


@pytest.fixture
def world(policy: Policy, asking: Callable[..., Request]) -> type[World]:
    return made(World, policy, asking)


def test_a_few_thousand_random_steps(world: type[World]) -> None:
    run(world, 50)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_random_steps_at_length(world: type[World], record_property: Callable[[str, object], None]) -> None:
    run(world, LIVES)
    record_property("n", steps["steps"])
    assert steps["steps"] >= 40 * LIVES
