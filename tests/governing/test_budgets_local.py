"""Budgets at home ``local``: many who ask at once, what is given back, what waits for the next month, what is shown."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shoal.errors import NeverFitsError, QuotaExceededError
from shoal.homes.base import KeepsBudgets, Request
from shoal.homes.fake import FakeClock
from shoal.model.cluster import Reason, State
from shoal.project.budget import Budget, allowance
from shoal.project.loading import Project
from shoal.project.policy import Policy
from shoal.project.targets import Target
from shoal.units import Seconds

from .played import InFile, InMemory, Mortal, PlayedHeads, PlayedHome, Store

NOVEMBER = datetime(2026, 11, 10, tzinfo=UTC).timestamp()
Homes = Callable[..., PlayedHome]


@pytest.fixture
def home(policy: Policy, empty_home: Path) -> Homes:
    """``home("6 core-hours")``: where each person has so much a month; plans take 1 core a worker, 1 the head."""

    def make(monthly: str, clock: FakeClock | None = None, ledger: Store | None = None) -> PlayedHome:
        tier = policy.tiers["t"].model_copy(update={"budget": Budget(monthly=allowance(monthly))})
        own = Policy({"t": tier}, policy.users, policy.teams)
        clock, mortal = clock or FakeClock(NOVEMBER), Mortal()
        target = Target(home="local")
        project = Project(Path("/p"), target, {"t": target}, {}, own)
        return PlayedHome(project, ledger or InMemory(clock, mortal), PlayedHeads(clock, mortal))

    return make


def until_over(home: PlayedHome, seconds: float, step: float = 600.0) -> None:
    for _ in range(int(seconds / step)):
        home.advance(step)
        home.settle()


def test_who_asks_at_once_gets_the_rest_once(
    home: Homes, asking: Callable[..., Request], tmp_path: Path
) -> None:
    clock = FakeClock(NOVEMBER)

    def ask(number: int) -> str:
        own = InFile(tmp_path / "ledger.db", clock, Mortal())
        try:
            home("5 core-hours", clock, own).request(asking(f"n{number}", "cid", 1, queue=False))
        except QuotaExceededError as error:
            return error.message
        return ""

    InFile(tmp_path / "ledger.db", clock, Mortal()).close()
    with ThreadPoolExecutor(8) as many:
        answers = list(many.map(ask, range(8)))
    refused = [answer for answer in answers if answer]
    assert len(refused) == 6
    assert all("1 core-hours of your budget of 5 core-hours is left" in answer for answer in refused)


def test_more_than_a_months_budget_is_refused_for_good_with_what_would_fit(
    home: Homes, asking: Callable[..., Request]
) -> None:
    its = home("6 core-hours")
    with pytest.raises(NeverFitsError) as caught:
        its.request(asking("large", "cid", 3, hours=3))
    assert str(caught.value) == (
        "large may take 12 core-hours in 2026-11 until its maximum lifetime; your budget for a month is 6 core-hours: "
        "tier t\nWaiting would not help: ask for less. shoal quota shows your limits.\n"
        "  Shorten it:          max_duration='1 h 30 min' fits now (--max-duration '1 h 30 min')\n"
        "  Ask for more:        tier t"
    )
    assert its.clusters() == []


def test_an_end_gives_back_what_it_did_not_take_and_the_queue_moves(
    home: Homes, asking: Callable[..., Request]
) -> None:
    its = home("8 core-hours")
    first = its.request(asking("first", "cid", 3, hours=2))
    second = its.request(asking("second", "cid", 1, hours=2))
    assert (second.state, second.reason) == (State.QUEUED, Reason.WAITING_FOR_QUOTA)
    assert second.message == "position 1 in the queue, waiting for room in your budget"
    with pytest.raises(
        QuotaExceededError, match=r"0 core-hours of your budget .* 8 core-hours reserved \(first\)"
    ):
        its.request(asking("third", "cid", 1, queue=False))
    until_over(its, 1800)
    (standing,) = its.budgets("cid")
    assert isinstance(its, KeepsBudgets)
    assert (standing.spent, standing.reserved) == pytest.approx((2, 6), abs=0.01)
    its.stop(first.id, Reason.STOPPED_BY_USER, "enough")
    until_over(its, 60, 10)
    assert its.get(second.id).state.admitted
    assert its.get(first.id).state.ended
    (standing,) = its.budgets("cid")
    assert standing.spent == pytest.approx(2, abs=0.1)
    assert standing.reserved == pytest.approx(4, abs=0.1)


def test_growing_and_extending_are_held_and_what_was_had_before_counts(
    home: Homes, asking: Callable[..., Request]
) -> None:
    its = home("10 core-hours")
    one = its.request(asking("one", "cid", 1, hours=3))
    until_over(its, 3600)
    with pytest.raises(QuotaExceededError, match="one may take 12 core-hours"):
        its.scale(one.id, 4)
    assert its.get(one.id).plan.workers == 1
    its.scale(one.id, 3)
    assert its.get(one.id).plan.workers == 3
    assert its.budgets("cid")[0].left == pytest.approx(0, abs=0.1)
    with pytest.raises(QuotaExceededError, match=r"14 core-hours in 2026-11 until its maximum lifetime"):
        its.extend(one.id, Seconds(4 * 3600))
    its.scale(one.id, 1)
    until_over(its, 60, 10)
    assert its.get(one.id).plan.workers == 1
    extended = its.extend(one.id, Seconds(4 * 3600))
    assert extended.plan.timeouts.max == 4 * 3600
    until_over(its, 5 * 3600)
    ended = its.get(one.id)
    assert ended.reason is Reason.DEADLINE_REACHED
    assert its.budgets("cid")[0].spent == pytest.approx(2 * 4, abs=0.3)


def test_what_waits_for_its_budget_starts_when_the_month_does(
    home: Homes, asking: Callable[..., Request]
) -> None:
    clock = FakeClock(datetime(2026, 11, 30, 20, tzinfo=UTC).timestamp())
    its = home("4 core-hours", clock)
    its.request(asking("first", "cid", 1, hours=2))
    second = its.request(asking("second", "cid", 1, hours=2))
    until_over(its, 3 * 3600)
    assert its.get(second.id).state is State.QUEUED, "all of November is spent"
    until_over(its, 3600 + 60)
    assert its.get(second.id).state.admitted
    (standing,) = its.budgets("cid")
    assert (standing.month, standing.limit.monthly) == ("2026-12", 4)


def test_a_lowered_budget_stops_nothing_and_lets_nothing_in(
    home: Homes, asking: Callable[..., Request]
) -> None:
    clock, mortal = FakeClock(NOVEMBER), Mortal()
    ledger = InMemory(clock, mortal)
    home("8 core-hours", clock, ledger).request(asking("first", "cid", 1, hours=2))
    lowered = home("3 core-hours", clock, ledger)
    lowered.settle()
    assert [cluster.state for cluster in lowered.clusters()] == [State.ADMITTED]
    with pytest.raises(QuotaExceededError, match="0 core-hours of your budget"):
        lowered.request(asking("second", "cid", 1, hours=0.5, queue=False))


def test_what_was_recorded_without_a_price_is_counted_in_hours_and_told(
    home: Homes, asking: Callable[..., Request]
) -> None:
    clock = FakeClock(NOVEMBER)
    ledger = InMemory(clock, Mortal())
    home("8 core-hours", clock, ledger).request(asking("first", "cid", 1, hours=2))
    in_money = home("5 USD", clock, ledger)
    (standing,) = in_money.budgets("cid")
    assert (standing.spent, standing.reserved, standing.unpriced) == (0, 0, 1)
    unpriced = replace(asking("second", "cid", 1), name="second")
    with pytest.raises(QuotaExceededError, match="second has no price in USD"):
        in_money.request(unpriced)
