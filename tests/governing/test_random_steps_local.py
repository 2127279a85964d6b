"""Whatever happens in whatever order at home ``local``: the same steps and promises as everywhere, over its own store.

Its decisions, its ledger and its look at what is gone run as they are, in memory and in a real SQLite file; processes
are played. Whoever asks, looks or runs dies between any two statements of a transaction, and between transactions. On
one machine the clock jumps; on several, machines are cut off.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from shoal.errors import InfrastructureError, RefusedError, UsageError
from shoal.governor.actions import Scope
from shoal.homes.base import Request
from shoal.homes.fake import FakeClock
from shoal.model.cluster import Cluster, Reason
from shoal.project.budget import Budget, allowance
from shoal.project.loading import Project
from shoal.project.policy import Policy, Shared
from shoal.project.targets import Target
from shoal.quota.budgets import Spending, months
from shoal.units import Seconds

from .played import InFile, InMemory, Mortal, PlayedHeads, PlayedHome, Store
from .world import LIVES, PLACE, Died, Steps, made, run, steps

PEOPLE = ("ann", "bob", "cid", "dan")
Opens = Callable[[FakeClock, Mortal, Callable[[], None]], Store]


class World(Steps):
    """The local home, and everything that may happen to it."""

    opens: Opens
    several = False  # machines
    begins = FakeClock().now

    @initialize()
    def begin(self) -> None:
        self.policy = type(self).small_policy()
        self.clock, self.mortal = FakeClock(self.begins), Mortal()
        self.ledger = type(self).opens(self.clock, self.mortal, lambda: self.no_limit_is_exceeded())
        played = PlayedHeads(self.clock, self.mortal, lambda: self.no_limit_is_exceeded())
        self.heads = played.heads
        target = Target(home="local", machine=PLACE)
        project = Project(Path("/p"), target, {"t": target}, {}, self.policy)
        self.home = PlayedHome(project, self.ledger, played)
        self.start()

    def done(self, what: Callable[[], Any]) -> None:
        """By somebody who may die meanwhile, or be refused."""
        self.mortal.dead = False
        try:
            what()
        except (Died, RefusedError, InfrastructureError, UsageError):
            pass
        finally:
            self.mortal.dead = False

    def request(self, ask: Request) -> None:
        self.done(lambda: self.home.request(ask))

    def look(self) -> None:
        self.done(self.home.settle)

    def advance(self, seconds: float) -> None:
        self.home.advance(seconds)

    def records(self) -> Iterable[Cluster]:
        with self.mortal.spared(), self.ledger.read() as tx:
            return tx.all()

    def wish(self, cluster_id: str, workers: int) -> None:
        self.done(lambda: self.home.scale(cluster_id, workers))

    def tell_to_stop(self, cluster_id: str) -> None:
        self.done(lambda: self.home.stop(cluster_id, Reason.STOPPED_BY_USER, "enough"))

    def crash(self, cluster_id: str) -> None:
        self.home.played.kill(cluster_id)

    @rule(index=st.integers(0, 20), hours=st.sampled_from([0.5, 1, 2, 3.5]))
    def live_longer(self, index: int, hours: float) -> None:
        if live := self.live():
            one = live[index % len(live)]
            self.done(lambda: self.home.extend(one.id, Seconds(hours * 3600)))

    def trouble_is_over(self) -> None:
        super().trouble_is_over()
        self.mortal.statements, self.mortal.moment = None, ""

    @rule(statements=st.integers(0, 60))
    def somebody_is_about_to_die(self, statements: int) -> None:
        self.mortal.statements = statements

    @rule(moment=st.sampled_from(Mortal.MOMENTS))
    def somebody_is_about_to_die_at(self, moment: str) -> None:
        self.mortal.moment = moment

    # One that hangs where nobody can reach it cannot be ended by anybody: no store can promise anything about it.
    @precondition(lambda self: not self.several)
    @rule(index=st.integers(0, 20))
    def a_head_hangs(self, index: int) -> None:
        if heads := [head for head in self.heads.values() if head.alive]:
            self.home.played.hung.add(heads[index % len(heads)].cluster)

    @precondition(lambda self: not self.several)
    @rule(seconds=st.sampled_from([-7200, -60, 60, 7200]))
    def the_clock_jumps(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: self.several)
    @rule(index=st.integers(0, 20), reachable=st.booleans())
    def a_machine_is_cut_off(self, index: int, reachable: bool) -> None:
        if heads := list(self.heads.values()):
            heads[index % len(heads)].reachable = reachable

    def no_limit_is_exceeded(self) -> None:
        """And what an account keeps for the next turns is of what is admitted."""
        clusters = list(self.records())
        self.within_limits(clusters)
        self.within_budgets(clusters)
        admitted = {cluster.id for cluster in clusters if cluster.state.admitted}
        with self.mortal.spared(), self.ledger.read() as tx:
            for key in itertools.product((Scope.USER, Scope.TEAM), (*PEOPLE, *self.policy.teams)):
                assert set(tx.history_of(key).shares) <= admitted, key

    def within_budgets(self, clusters: Iterable[Cluster]) -> None:
        """In no month, with all that what runs may still take."""
        spending = Spending.of(clusters, self.clock.now)
        tier, teams = self.policy.tiers["t"].budget, self.policy.teams
        held = [(who, tier, spending.users.get(who, {})) for who in PEOPLE]
        held += [(who, teams[who].budget, spending.teams.get(who, {})) for who in teams]
        held += [
            (who, its.budget, spending.templates.get(who, {})) for who, its in self.policy.templates.items()
        ]
        held += [("everybody", its.budget, spending.everybody) for its in [self.policy.everybody] if its]
        for who, budget, taking in held:
            if budget is None or not taking:
                continue
            steps["budgets"] += 1
            ends = [self.clock.now, *(each.until for each in taking.values())]
            for month in months(min(each.since for each in taking.values()), max(ends)):
                spent = sum(each.takes(budget.monthly.unit, month) for each in taking.values())
                assert spent <= float(budget.monthly.amount) * (1 + 1e-6), (who, month.name, spent)

    def nothing_is_held(self) -> None:
        assert not any(cluster.state.admitted for cluster in self.records())
        self.no_limit_is_exceeded()


@pytest.fixture
def world(policy: Policy, asking: Callable[..., Request], empty_home: Path) -> Callable[..., type[World]]:
    def make(opens: Opens, *, several: bool = False) -> type[World]:
        return made(World, policy, asking, opens=staticmethod(opens), several=several)

    return make


def in_files(folder: Path) -> Opens:
    """A new ledger for each life."""
    numbers = itertools.count()
    return lambda clock, mortal, committed: InFile(folder / f"{next(numbers)}.db", clock, mortal, committed)


@pytest.mark.parametrize("several", [False, True], ids=["one machine", "several machines"])
def test_a_few_thousand_random_steps_in_memory(world: Callable[..., type[World]], several: bool) -> None:
    run(world(InMemory, several=several), 20)


def test_random_steps_in_a_real_file(world: Callable[..., type[World]], tmp_path: Path) -> None:
    run(world(in_files(tmp_path)), 4, 30)


def with_budgets(policy: Policy) -> Policy:
    """Each person has some hours, and the red team, whoever uses a template and everybody less than all of them."""
    tier = policy.tiers["t"].model_copy(update={"budget": Budget(monthly=allowance("9 core-hours"))})
    red = policy.teams["red"].model_copy(update={"budget": Budget(monthly=allowance("150 GiB-hours"))})
    shared = [Shared(budget=Budget(monthly=allowance(text))) for text in ("20 core-hours", "15 core-hours")]
    named = {"everybody": shared[0], "templates": {"etl": shared[1]}}
    return Policy({"t": tier}, policy.users, {**policy.teams, "red": red}, **named)


@pytest.mark.parametrize("several", [False, True], ids=["one machine", "several machines"])
def test_random_steps_never_go_over_a_budget(
    policy: Policy, asking: Callable[..., Request], empty_home: Path, several: bool
) -> None:
    """Two hours before a month ends: what runs reaches into the next."""
    begins = datetime(1970, 2, 1, tzinfo=UTC).timestamp() - 7200
    own = {"opens": staticmethod(InMemory), "several": several, "begins": begins}
    run(made(World, with_budgets(policy), asking, **own), 10)
    assert steps["budgets"] > 500


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("several", [False, True], ids=["one machine", "several machines"])
def test_random_steps_in_memory_at_length(
    world: Callable[..., type[World]], several: bool, record_property: Callable[[str, object], None]
) -> None:
    run(world(InMemory, several=several), LIVES)
    record_property("n", steps["steps"])
    assert steps["steps"] >= 40 * LIVES
