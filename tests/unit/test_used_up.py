"""When a budget that ends what runs is used up, who is told of it when, and who ends."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shoal.governor.actions import Move, Observation, Seen
from shoal.governor.lifecycle import moved, step
from shoal.governor.periods import Periods
from shoal.model.cluster import Cluster, EndNotice, Reason, State
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.project.budget import AtLimit, Budget, BudgetLimit, allowance
from shoal.quota.budgets import Purse, Spending
from shoal.quota.used_up import UsedUp, first_used_up
from shoal.units import Bytes, Seconds

HOUR = 3600.0
NOW = datetime(2026, 11, 10, tzinfo=UTC).timestamp()
GRACE = Seconds(600)
PERIODS = Periods(*map(Seconds, (1, 2, 3, 4, 30, 300, 50, 60)))


def record(name: str, cores: int, since: float, hours: float, ended: float | None = None) -> Cluster:
    """One worker of so many cores; the head takes nothing."""
    size, nothing = Size(cores, Bytes(1)), Size(0, Bytes(0))
    group = Group("default", 1, 1, 1, size, size)
    times = Timeouts(Seconds(9), Seconds(9), Seconds(hours * HOUR))
    plan = Plan("etl", Engine.DASK, "t", nothing, (group,), times)
    state = State.READY if ended is None else State.STOPPED
    return Cluster(
        name, name, "ann", None, Workload("etl"), plan, state, Reason.SERVING, "", since, since,
        admitted_at=since, ended_at=ended,
    )  # fmt: skip


def purse(text: str, *clusters: Cluster, now: float = NOW, stops: bool = True) -> Purse:
    budget = Budget(monthly=allowance(text), **({"at_limit": AtLimit.STOP, "grace": GRACE} if stops else {}))
    spenders = Spending.of(clusters, now).users.get("ann", {})
    return Purse("you", BudgetLimit(budget, "tier t (policies/tiers.yaml:1)"), spenders, now)


def test_it_is_known_when_it_will_be_used_up() -> None:
    """Two cores, of which one ends by its lifetime meanwhile; what ended before has taken its part."""
    one, two = record("one", 1, NOW - HOUR, 9), record("two", 1, NOW - HOUR, 1 + 300 / HOUR)
    past = record("past", 4, NOW - 9 * HOUR, 1, NOW - 8 * HOUR)
    its = first_used_up([purse(f"{4 + 2 + 700 / HOUR} core-hours", one, two, past)], "one")
    assert its.at == pytest.approx(NOW + 400)
    assert its.message == (
        "6 core-hours of your budget of 6.194 core-hours for 2026-11 is spent, and what runs ends with it: tier t "
        "(policies/tiers.yaml:1)"
    )
    assert first_used_up([purse(f"{4 + 2 + 1100 / HOUR} core-hours", one, two, past)], "one").at == math.inf


def test_what_is_used_up_already_is_used_up_now() -> None:
    its = purse("1 core-hours", record("one", 1, NOW - 2 * HOUR, 9))
    assert first_used_up([its], "one") == UsedUp(NOW, GRACE, first_used_up([its], "one").message)


@pytest.mark.parametrize(
    "its",
    [
        pytest.param(purse("1 core-hours", record("one", 1, NOW - HOUR, 9), stops=False), id="refuses only"),
        pytest.param(purse("1 GPU-hours", record("one", 1, NOW - HOUR, 9)), id="takes none of it"),
        pytest.param(purse("2 core-hours", record("one", 1, NOW - HOUR, 2)), id="its lifetime ends with it"),
        pytest.param(purse("1 core-hours", record("one", 1, NOW - 2 * HOUR, 1)), id="its lifetime is over"),
    ],
)
def test_who_does_not_end_for_it(its: Purse) -> None:
    assert first_used_up([its], "one").at == math.inf


def test_a_month_begins_anew() -> None:
    """Ten minutes before December: this month's rest lasts for them, the next one's for a quarter of an hour."""
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    one = record("one", 1, december - 600, 9)
    its = purse(f"{599 / HOUR} core-hours", one, now=december - 600)
    assert first_used_up([its], "one").at == pytest.approx(december - 1)
    its = purse(f"{601 / HOUR} core-hours", one, now=december - 600)
    assert first_used_up([its], "one").at == math.inf
    its = purse(f"{601 / HOUR} core-hours", one, now=december + 60)
    assert first_used_up([its], "one").at == pytest.approx(december + 601)


def test_the_first_of_several_budgets_counts() -> None:
    one = record("one", 1, NOW - HOUR, 9)
    first = replace(purse(f"{1 + 60 / HOUR} core-hours", one), scope="team red")
    its = first_used_up([purse(f"{1 + 90 / HOUR} core-hours", one), first], "one")
    assert its.at == pytest.approx(NOW + 60)
    assert "the budget of team red" in its.message


def looked(cluster: Cluster, at: float, now: float = NOW) -> Cluster:
    """What its record says after a look which finds that a budget of it is used up ``at``."""
    seen = Observation(head=Seen.ALIVE, used_up=UsedUp(at, GRACE, "spent"))
    for action in step(cluster, seen, now, PERIODS):
        assert isinstance(action, Move)
        cluster = moved(cluster, action, None, now)
    return cluster


def test_it_is_told_a_grace_ahead_and_ends_then() -> None:
    its = looked(record("one", 1, NOW, 9), NOW + 600)
    assert its.notice == EndNotice(NOW + 600, NOW, Reason.BUDGET_SPENT, "spent")
    assert its.state is State.READY
    assert looked(its, NOW + 601, NOW + 1) == its, "a second more or less is no news"
    assert looked(its, NOW + 600, NOW + 599) == its
    ended = looked(its, NOW + 600, NOW + 600)
    assert (ended.state, ended.reason, ended.message) == (State.STOPPING, Reason.BUDGET_SPENT, "spent")


def test_a_budget_that_was_lowered_leaves_the_grace_too() -> None:
    its = looked(record("one", 1, NOW, 9), NOW)
    assert its.notice.at == NOW + 600
    assert looked(its, NOW + 599, NOW + 599) == its
    assert looked(its, NOW + 600, NOW + 600).state is State.STOPPING


def test_an_end_moves_and_is_withdrawn_with_the_budget() -> None:
    its = looked(record("one", 1, NOW, 9), NOW + 500)
    later = looked(its, NOW + 700, NOW + 100)
    assert (later.notice.at, later.notice.since) == (NOW + 700, NOW)
    raised = looked(later, math.inf, NOW + 200)
    assert raised == replace(its, notice=EndNotice())
    again = looked(raised, NOW + 800, NOW + 300)
    assert (again.notice.at, again.notice.since) == (NOW + 900, NOW + 300), "the grace begins anew"


def test_where_nobody_looked_nothing_changes() -> None:
    its = looked(record("one", 1, NOW, 9), NOW + 60)
    assert step(its, Observation(head=Seen.ALIVE), NOW + 9999, PERIODS) == []
