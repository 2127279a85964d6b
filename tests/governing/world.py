"""What may happen to any home, as steps that Hypothesis draws, and what must hold after each of them."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from shoal.governor.actions import Scope
from shoal.homes.base import Request
from shoal.homes.fake import FakeClock, FakeHead
from shoal.model.cluster import Cluster, State
from shoal.project.policy import Policy
from shoal.project.targets import Machine
from shoal.quota.account import amounts, real
from shoal.units import Bytes

GB = 10**9
PLACE = Machine(cores=64, memory=Bytes(120 * GB), gpus=1)
steps: Counter[str] = Counter()


class Died(BaseException):
    """A process was killed: nothing in it may catch this."""


# CI draws the same steps each time; `make soak-steps` others, and a hundred thousand of them.
SOAK = int(os.environ.get("SHOAL_SOAK_LIVES", "0"))
LIVES = SOAK or 60


def run(machine: type[Steps], examples: int, length: int = 50) -> None:
    """``examples`` lives of a home, of ``length`` steps each."""
    steps.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=length,
            deadline=None,
            derandomize=not SOAK,
            # No shrinking: what failed is shown step by step, and shrinking takes minutes.
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


class Steps(RuleBasedStateMachine):
    """Of a home that its kind makes in ``begin``."""

    small_policy: Callable[[], Policy]
    small_ask: Callable[..., Request]

    policy: Policy
    clock: FakeClock
    heads: Mapping[str, FakeHead]
    number: int

    def start(self) -> None:
        """Some clusters that run already: most of what can go wrong needs one."""
        self.number = 0
        for owner, workers in (("ann", 2), ("bob", 1), ("cid", 3)):
            self.ask(owner, workers, 1)
        self.all_is_well()

    # -- what a kind of home does ------------------------------------------------------------------------

    def request(self, ask: Request) -> None:
        raise NotImplementedError

    def look(self) -> None:
        """Somebody looks, and everything that follows from it is done."""
        raise NotImplementedError

    def advance(self, seconds: float) -> None:
        raise NotImplementedError

    def records(self) -> Iterable[Cluster]:
        raise NotImplementedError

    def wish(self, cluster_id: str, workers: int) -> None:
        raise NotImplementedError

    def tell_to_stop(self, cluster_id: str) -> None:
        raise NotImplementedError

    def crash(self, cluster_id: str) -> None:
        raise NotImplementedError

    def trouble_is_over(self) -> None:
        for head in self.heads.values():
            head.reachable = True

    # -- what may happen ---------------------------------------------------------------------------------

    @rule(
        owner=st.sampled_from(["ann", "bob", "cid", "dan"]),
        workers=st.integers(1, 5),
        hours=st.sampled_from([0.1, 0.5, 1]),
        least=st.sampled_from([None, 1, 2]),
        queue=st.sampled_from([True, True, True, False]),
    )
    def ask(
        self, owner: str, workers: int, hours: float, least: int | None = None, queue: bool = True
    ) -> None:
        self.number += 1
        self.request(
            type(self).small_ask(f"n{self.number}", owner, workers, hours=hours, least=least, queue=queue)
        )

    @rule()
    def all_is_well(self) -> None:
        """Long enough for what was asked for to be served."""
        for _ in range(2):
            self.look()
            self.advance(4)
            self.look()

    @rule(seconds=st.sampled_from([0.5, 3, 10, 40, 60, 400, 3600]))
    def time_goes_by(self, seconds: float) -> None:
        self.advance(seconds)

    @rule(index=st.integers(0, 20), workers=st.integers(1, 5))
    def scale(self, index: int, workers: int) -> None:
        if live := self.live(State.READY):
            self.wish(live[index % len(live)].id, workers)

    @rule(index=st.integers(0, 20))
    def stop(self, index: int) -> None:
        if live := self.live():
            self.tell_to_stop(live[index % len(live)].id)

    @rule(index=st.integers(0, 20))
    def kill_a_head(self, index: int) -> None:
        if heads := [head for head in self.heads.values() if head.alive]:
            self.crash(heads[index % len(heads)].cluster)

    # -- what must hold ----------------------------------------------------------------------------------

    def live(self, *states: State) -> list[Cluster]:
        found = [cluster for cluster in self.records() if not cluster.state.ended]
        return [cluster for cluster in found if not states or cluster.state in states]

    @invariant()
    def counted(self) -> None:
        steps["steps"] += 1

    def within_limits(self, clusters: Iterable[Cluster]) -> Mapping[tuple[Scope, str], Counter[str]]:
        """By the records, and by the workers that really run; returns what is recorded."""
        steps["checks"] += 1
        by_record: dict[tuple[Scope, str], Counter[str]] = {}
        really: dict[tuple[Scope, str], Counter[str]] = {}
        for cluster in clusters:
            keys = [(Scope.USER, cluster.owner), (Scope.PLACE, "")]
            keys += [(Scope.TEAM, cluster.team)] if cluster.team else []
            head = self.heads.get(cluster.id)
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
        return by_record

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

    def nothing_is_held(self) -> None:
        """By any account, once everything has ended."""
        raise NotImplementedError

    def teardown(self) -> None:
        """When the trouble is over, all comes to an end by itself."""
        if not hasattr(self, "number"):
            return
        self.trouble_is_over()
        # A day at a time for those that wait until a month, and with it a budget, begins.
        for seconds in (*[600.0] * 200, *[86400.0] * 100):
            if not self.live():
                break
            self.all_is_well()
            self.advance(seconds)
        for _ in range(5):
            self.look()
            self.advance(10)
        assert not self.live(), [(c.id, c.state, c.message) for c in self.live()]
        for head in self.heads.values():
            assert not head.alive, f"an orphan: the head of {head.cluster}"
            assert not head.workers, f"orphans: workers of {head.cluster}"
        self.nothing_is_held()


def made(machine: type[Any], policy: Policy, asking: Callable[..., Request], **more: Any) -> type[Any]:
    """The machine for this world."""
    given = {"small_policy": staticmethod(lambda: policy), "small_ask": staticmethod(asking), **more}
    return type(machine.__name__, (machine,), given)
