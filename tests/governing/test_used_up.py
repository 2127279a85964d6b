"""A budget that ends what runs, at every home that lives by the one lifecycle: told before, ended in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shoal.display.forecast import warning
from shoal.homes.base import Request
from shoal.homes.fake import FakeClock, FakeHome
from shoal.model.cluster import Cluster, Reason, State
from shoal.project.budget import AtLimit, Budget, allowance
from shoal.project.loading import Project
from shoal.project.policy import Policy, User
from shoal.project.targets import Target
from shoal.units import Seconds

from .played import InMemory, Mortal, PlayedHeads, PlayedHome

NOVEMBER = datetime(2026, 11, 10, tzinfo=UTC).timestamp()
TICK = 10.0


class Place:
    """A home whose policy somebody may change."""

    def __init__(self, kind: str, policy: Policy) -> None:
        self.kind, self.base = kind, policy
        self.clock, self.mortal = FakeClock(NOVEMBER), Mortal()
        self.ledger, self.heads = InMemory(self.clock, self.mortal), PlayedHeads(self.clock, self.mortal)
        self.home: Any = None

    def with_budget(self, monthly: str, **more: Any) -> Place:
        budget = Budget(monthly=allowance(monthly), **{"at_limit": AtLimit.STOP, **more})
        tier = self.base.tiers["t"].model_copy(update={"budget": budget})
        policy = Policy({"t": tier}, {**self.base.users, "eve": User(tier="t")}, self.base.teams)
        if self.kind == "local":
            target = Target(home="local")
            project = Project(Path("/p"), target, {"t": target}, {}, policy)
            self.home = PlayedHome(project, self.ledger, self.heads)
        elif self.home is None:
            self.home = FakeHome(policy, clock=self.clock)
        else:
            self.home.policy = policy
        return self

    def ask(self, name: str, workers: int = 1, hours: float = 1.0, owner: str = "cid") -> Cluster:
        return self.pass_time(8, self.home.request(self.asking(name, owner, workers, hours=hours)).id)

    asking: Callable[..., Request]

    def pass_time(self, seconds: float, cluster: str) -> Cluster:
        for _ in range(max(1, round(seconds / TICK))):
            self.home.advance(TICK)
            self.home.govern() if self.kind == "fake" else self.home.settle()
        found: Cluster = self.home.get(cluster)
        return found

    def spent(self, owner: str = "cid") -> float:
        return float(self.home.budgets(owner)[0].spent)


@pytest.fixture(params=["local", "fake"])
def place(
    request: pytest.FixtureRequest, policy: Policy, asking: Callable[..., Request], empty_home: Path
) -> Place:
    made = Place(request.param, policy)
    made.asking = asking
    return made


def test_what_is_lowered_below_what_runs_takes_ends_it_after_a_grace(place: Place) -> None:
    first = place.with_budget("8 core-hours").ask("first", hours=3)
    other = place.ask("other", owner="eve", hours=0.5)
    place.pass_time(2 * 3600, first.id)
    place.with_budget("3 core-hours")
    told = place.pass_time(TICK, first.id)
    assert told.state is State.READY
    assert told.notice.at == pytest.approx(place.clock.now + 600, abs=2 * TICK)
    assert "core-hours of your budget of 3 core-hours for 2026-11 is spent" in warning(told, None)
    assert place.pass_time(600 - 3 * TICK, first.id).state is State.READY
    ended = place.pass_time(5 * TICK, first.id)
    assert (ended.state, ended.reason) == (State.STOPPED, Reason.BUDGET_SPENT)
    assert ended.message.startswith("4.3")
    assert "and what runs ends with it: tier t" in ended.message
    assert place.home.get(other.id).reason is Reason.DEADLINE_REACHED, "hers is another budget"
    assert warning(ended, None) == ""


def test_what_was_admitted_on_a_part_of_its_lifetime_ends_when_the_budget_does(place: Place) -> None:
    """Told ahead of it: what is spent in the end is the budget, but for the moments that an end takes."""
    place.with_budget("4.1 core-hours", reserve=0.5)
    first, second = place.ask("first", hours=2), place.ask("second", hours=2)
    assert second.state.admitted
    assert place.ask("third").state is State.QUEUED
    place.home.stop(place.home.find("third", "cid").id, Reason.STOPPED_BY_USER, "enough")
    early = place.pass_time(3600 - 700, first.id)
    assert early.notice.at is None
    told = place.pass_time(200, first.id)
    assert told.notice.at is not None
    assert told.notice.at == pytest.approx(NOVEMBER + 3690, abs=2 * TICK)
    assert place.pass_time(350, second.id).state is State.READY
    ended = place.pass_time(300, second.id)
    assert {ended.reason, place.home.get(first.id).reason} == {Reason.BUDGET_SPENT}
    assert place.spent() == pytest.approx(4.1, abs=4 * 3 * TICK / 3600)


def test_what_is_raised_again_goes_on(place: Place) -> None:
    first = place.with_budget("8 core-hours").ask("first", hours=2)
    place.pass_time(1800, first.id)
    place.with_budget("1 core-hours")
    assert place.pass_time(TICK, first.id).notice.at is not None
    place.with_budget("8 core-hours")
    assert place.pass_time(TICK, first.id).notice.at is None
    assert place.pass_time(900, first.id).state is State.READY


def test_a_budget_that_only_refuses_ends_nothing(place: Place) -> None:
    first = place.with_budget("8 core-hours").ask("first", hours=2)
    place.with_budget("1 core-hours", at_limit=AtLimit.REFUSE)
    its = place.pass_time(3600, first.id)
    assert (its.state, its.notice.at) == (State.READY, None)


def test_who_runs_without_anybody_looking_is_told_and_ended_by_its_own_head(
    policy: Policy, asking: Callable[..., Request], empty_home: Path
) -> None:
    place = Place("local", policy)
    place.asking = asking
    first = place.with_budget("8 core-hours").ask("first", hours=3)
    governing = place.with_budget("1 core-hours").home._governing
    for seconds in (3600, 600):
        place.clock.now += seconds
        with place.ledger.write() as tx:
            governing.hold_to_budget(tx, tx.get(first.id))
    with place.ledger.read() as tx:
        assert tx.wishes(first.id).stop is Reason.BUDGET_SPENT


def test_another_project_in_the_same_ledger_ends_nothing_of_this_one(
    policy: Policy, asking: Callable[..., Request], empty_home: Path
) -> None:
    place = Place("local", policy)
    place.asking = asking
    first = place.with_budget("8 core-hours").ask("first", hours=3)
    home = place.with_budget("1 core-hours").home
    project = replace(home._project, folder=Path("/another"))
    place.home = PlayedHome(project, place.ledger, place.heads)
    assert place.pass_time(2 * 3600, first.id).notice.at is None


def test_a_grace_is_as_long_as_it_says(place: Place) -> None:
    first = place.with_budget("8 core-hours").ask("first", hours=3)
    place.with_budget("0.001 core-hours", grace=Seconds(60))
    assert place.pass_time(60 - TICK, first.id).state is State.READY
    assert place.pass_time(3 * TICK, first.id).reason is Reason.BUDGET_SPENT
