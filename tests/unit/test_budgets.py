"""Budgets of a month: what counts, what is reserved, who is refused and with which ways on; never over."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.cli.views import budget_rows
from shoal.errors import (
    NeverFitsError,
    QuotaExceededError,
)
from shoal.governor.actions import Move
from shoal.governor.lifecycle import moved
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.project.budget import Allowance, Budget, BudgetLimit, allowance
from shoal.project.policy import Limits, Policy, Shared, Team, Tier, User
from shoal.quota.account import Account
from shoal.quota.admission import Claim, Verdict, decide, lasting, with_workers
from shoal.quota.budgets import Purse, Spender, Spending, month_of, months, most, rates, warnings
from shoal.quota.queueing import Books, Waiting, admit, explain
from shoal.units import Bytes, Money, Seconds

GIB, HOUR, DAY = 2**30, 3600.0, 86400.0
NOW = datetime(2026, 11, 10, tzinfo=UTC).timestamp()


def plan(workers: int = 1, hours: float = 1.0, price: str | None = "1") -> Plan:
    """Workers of 2 cores, 4 GiB and ``price`` USD an hour; the head takes nothing."""
    size, nothing = Size(2, Bytes(4 * GIB)), Size(0, Bytes(0))
    group = Group("default", 1, workers, workers, size, size, 1)
    each = Money(Decimal(price)) if price is not None else None
    whole = Money(each.amount * workers) if each is not None else None
    times = Timeouts(Seconds(9), Seconds(9), Seconds(hours * HOUR))
    return Plan("etl", Engine.DASK, "t", nothing, (group,), times, price_per_hour=whole, worker_price=each)


def record(
    name: str, its: Plan, since: float, ended: float | None = None, team: str | None = None
) -> Cluster:
    state = State.READY if ended is None else State.STOPPED
    return Cluster(
        name, name, "ann", team, Workload("etl"), its, state, Reason.SERVING, "", since, since,
        admitted_at=since, ended_at=ended,
    )  # fmt: skip


def of(text: str, warn: float = 0.8) -> BudgetLimit:
    return BudgetLimit(Budget(monthly=allowance(text), warn=warn), "tier t (policies/tiers.yaml:1)")


def purse(text: str, *clusters: Cluster, now: float = NOW) -> Purse:
    return Purse("you", of(text), Spending.of(clusters, now).users.get("ann", {}), now)


def limits(budget: BudgetLimit | None = None, team: BudgetLimit | None = None) -> Limits:
    return Limits("ann", "t", "red" if team else None, 1.0, {}, {}, {}, budget, team)


def test_a_plan_takes_hours_and_money_by_the_hour() -> None:
    assert rates(plan(3)) == {"core-hours": 6, "GiB-hours": 12, "GPU-hours": 3, "USD": 3}
    assert "USD" not in rates(plan(price=None))
    beside = replace(plan(1), head=Size(1, Bytes(GIB)), runner=True)
    assert rates(beside)["core-hours"] == 4, "the script beside it counts as the head does"
    assert most(plan(3, hours=2), "USD") == 6


def test_months_are_those_of_utc() -> None:
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert month_of(december - 1).name == "2026-11"
    assert month_of(december).name == "2026-12"
    assert [month.name for month in months(december - 1, december + 40 * DAY)] == [
        "2026-11",
        "2026-12",
        "2027-01",
    ]


def test_a_run_counts_in_each_month_by_its_part_and_not_beyond_its_lifetime() -> None:
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    spender = Spender.of(record("a", plan(1, hours=5), december - 2 * HOUR))
    assert spender is not None
    assert spender.takes("USD", month_of(december - 1)) == pytest.approx(2)
    assert spender.takes("USD", month_of(december)) == pytest.approx(3)
    late = Spender.of(record("a", plan(1, hours=5), december, december + 9 * HOUR))
    assert late is not None
    assert late.takes("USD", month_of(december)) == pytest.approx(5)
    early = Spender.of(record("a", plan(1, hours=5), december, december + HOUR))
    assert early is not None
    assert early.takes("USD", month_of(december)) == pytest.approx(1)


def test_what_grew_took_what_it_had_before() -> None:
    grown = moved(
        record("a", plan(1, hours=10), NOW), Move(State.READY, Reason.SERVING, "", 3), None, NOW + 4 * HOUR
    )
    assert grown.accrued["until"] == NOW + 4 * HOUR
    spender = Spender.of(grown)
    assert spender is not None
    assert spender.takes("USD", month_of(NOW)) == pytest.approx(4 + 3 * 6)
    again = moved(
        grown, Move(State.READY, Reason.SERVING, "", 2), None, NOW + 3 * HOUR
    )  # the clock went back
    spender = Spender.of(again)
    assert spender is not None
    assert spender.takes("USD", month_of(NOW)) == pytest.approx(4 + 2 * 6)


def test_how_a_budget_stands() -> None:
    unpriced = record("c", plan(1, price=None), NOW - DAY, NOW - DAY + HOUR)
    its = purse(
        "20 USD",
        record("a", plan(2, hours=8), NOW - DAY, NOW - DAY + 5 * HOUR),
        record("b", plan(1, hours=4), NOW - HOUR),
        unpriced,
        record("old", plan(9, hours=9), NOW - 40 * DAY, NOW - 39 * DAY),
    ).standing()
    assert (its.spent, its.reserved, its.left) == pytest.approx((11, 3, 6))
    assert (its.month, its.unpriced, its.warned) == ("2026-11", 1, False)
    nearly = purse("13.75 USD", record("a", plan(1, 11), NOW - DAY, NOW)).standing()
    assert nearly.warned
    assert nearly.sentence() == (
        "80% of your budget of 13.75 USD for 2026-11 is spent, 2.75 USD left: tier t (policies/tiers.yaml:1)"
    )
    lowered = purse("3 USD", record("a", plan(1, hours=9), NOW - HOUR)).standing()
    assert lowered.left == 0


def test_what_is_spent_counts_whole_and_of_the_rest_what_is_reserved() -> None:
    limit = BudgetLimit(Budget(monthly=allowance("10 USD"), reserve=0.25), "tier t (policies/tiers.yaml:1)")
    running = record("a", plan(1, hours=12), NOW - 4 * HOUR)
    its = Purse("you", limit, Spending.of([running], NOW).users["ann"], NOW)
    stands = its.standing()
    assert (stands.spent, stands.reserved, stands.left) == pytest.approx((4, 2, 4))
    assert its.fits("new", plan(1, hours=16))
    short = its.short("new", plan(1, hours=17))
    assert short is not None
    assert short.sentence("etl", {"a": "nightly"}) == (
        "etl reserves 4.25 USD, 25% of what it may take in 2026-11 until its maximum lifetime; 4.00 USD of your budget "
        "of 10.00 USD is left: 4.00 USD spent, 2.00 USD reserved (nightly): tier t (policies/tiers.yaml:1)"
    )


def test_a_refusal_says_what_is_left_what_would_fit_and_whom_to_ask() -> None:
    its = purse(
        "20 USD",
        record("a", plan(2, hours=8), NOW - DAY, NOW - DAY + 5 * HOUR),
        record("b", plan(1, hours=4), NOW - HOUR),
    )
    decision = decide(
        Claim("new", "etl", plan(2, hours=5)), limits(), Account(), names={"b": "nightly"}, purses=[its]
    )
    assert decision.verdict is Verdict.WAIT
    assert str(decision.error()) == (
        "etl may take 10.00 USD in 2026-11 until its maximum lifetime; 6.00 USD of your budget of 20.00 USD is left: "
        "11.00 USD spent, 3.00 USD reserved (nightly): tier t (policies/tiers.yaml:1)\n"
        "  Shrink it:           workers=1 fits now (--workers 1)\n"
        "  Shorten it:          max_duration='3 h' fits now (--max-duration '3 h')\n"
        "  Ask for more:        tier t (policies/tiers.yaml:1)\n"
        "  Wait for it:         queue=True (--queue)"
    )
    assert isinstance(decision.error(), QuotaExceededError)
    assert not isinstance(decision.error(), NeverFitsError)


def test_more_than_a_whole_months_budget_never_fits() -> None:
    decision = decide(Claim("new", "etl", plan(2, hours=11)), limits(), Account(), purses=[purse("20 USD")])
    assert isinstance(decision.error(), NeverFitsError)
    assert str(decision.error()) == (
        "etl may take 22.00 USD in 2026-11 until its maximum lifetime; your budget for a month is 20.00 USD: "
        "tier t (policies/tiers.yaml:1)\n"
        "Waiting would not help: ask for less. shoal quota shows your limits.\n"
        "  Shorten it:          max_duration='10 h' fits now (--max-duration '10 h')\n"
        "  Ask for more:        tier t (policies/tiers.yaml:1)"
    )


def test_without_a_price_nothing_is_admitted_under_a_budget_in_money() -> None:
    short = purse("20 USD").short("new", plan(price=None))
    assert short is not None
    assert short.never
    assert short.sentence("etl", {}) == (
        "etl has no price in USD, in which your budget is: tier t (policies/tiers.yaml:1)"
    )
    assert purse("20 core-hours").fits("new", plan(price=None))


def test_what_ends_gives_back_what_it_did_not_take() -> None:
    running = record("b", plan(1, hours=18), NOW - 2 * HOUR)
    its = purse("20 USD", running)
    assert not its.fits("new", plan(1, hours=10))
    assert its.without(["b"]).fits("new", plan(1, hours=18))
    assert not its.without(["b"]).fits("new", plan(1, hours=18.1))
    decision = decide(
        Claim("new", "etl", plan(1, hours=10)), limits(), Account({"b": Account().held}), purses=[its]
    )
    assert decision.free == ("b",)


def test_the_next_month_is_asked_too() -> None:
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    reaching = record("a", plan(1, hours=30), december - 20 * HOUR)
    its = purse("20 USD", reaching, now=december - 20 * HOUR)
    assert its.standing().reserved == pytest.approx(20)
    short = its.short("new", plan(1, hours=5))
    assert short is not None
    assert short.month == "2026-11"
    later = replace(its, now=december - HOUR)
    short = later.without(["a"]).short("new", plan(1, hours=22))
    assert short is not None
    assert (short.month, short.never) == ("2026-12", True)


def test_growing_and_living_longer_are_held_too_and_shrinking_never() -> None:
    running = record("a", plan(2, hours=4), NOW)
    its = purse("10 USD", running)
    assert its.fits("a", with_workers(running.plan, 1))
    assert not its.fits("a", with_workers(running.plan, 3))
    assert purse("12 USD", running).fits("a", with_workers(running.plan, 3))
    assert purse("7 USD", running).fits("a", running.plan), "a lowered budget stops nothing"
    assert lasting(running, Seconds(5 * HOUR), limits(), NOW, [its]).timeouts.max == 5 * HOUR
    with pytest.raises(QuotaExceededError) as caught:
        lasting(running, Seconds(5.2 * HOUR), limits(), NOW, [its])
    assert isinstance(caught.value, NeverFitsError)
    assert caught.value.hint == (
        "`shoal extend a 5h` fits now.\nAsk for more: tier t (policies/tiers.yaml:1)"
    )


def _policy(budget: str | None = None, team: str | None = None) -> Policy:
    tier = Tier(
        concurrent_clusters=9, workers_per_cluster=9, memory=Bytes(200 * GIB), max_duration=Seconds(99 * HOUR),
        head=Bytes(GIB), gpus=99, budget=Budget(monthly=allowance(budget)) if budget else None,
    )  # fmt: skip
    red = Team(budget=Budget(monthly=allowance(team)) if team else None)
    return Policy(
        {"t": tier}, {name: User(tier="t", team="red") for name in ("ann", "bob", "cid")}, {"red": red}
    )


def _wait(
    name: str, user: str, hours: float, since: float = 0.0, workers: int = 1, least: int | None = None
) -> Waiting:
    return Waiting(Claim(name, name, plan(workers, hours)), user, NOW - since, least=least)


def test_one_pass_gives_the_rest_of_a_teams_budget_away_once() -> None:
    policy = _policy(team="10 USD")
    queue = [_wait("first", "ann", 6, since=9), _wait("second", "bob", 6, since=5), _wait("third", "bob", 4)]
    books = Books(spending=Spending(NOW))
    outcomes = {each.claim.cluster: each for each in admit(queue, books, policy, None, NOW)}
    assert {name: each.verdict for name, each in outcomes.items()} == {
        "first": Verdict.ADMIT,
        "second": Verdict.WAIT,
        "third": Verdict.ADMIT,
    }
    assert outcomes["second"].budget == ("team red",)
    after = Books(spending=Spending.of([record("first", plan(1, 6), NOW, team="red")], NOW))
    decision = explain(outcomes["second"], policy.limits_of("bob"), after)
    assert "4.00 USD of the budget of team red of 10.00 USD is left" in decision.message


def _shared(templates: dict[str, str] | None = None, everybody: str | None = None) -> Policy:
    budget = {
        name: Shared(budget=Budget(monthly=allowance(text))) for name, text in (templates or {}).items()
    }
    every = None if everybody is None else Shared(budget=Budget(monthly=allowance(everybody)))
    return replace(_policy(), everybody=every, templates=budget)


def test_everybodys_budget_is_given_away_once_whoever_asks() -> None:
    policy = _shared(everybody="10 USD")
    queue = [_wait("first", "ann", 6, since=9), _wait("second", "bob", 6, since=5), _wait("third", "cid", 4)]
    outcomes = {
        each.claim.cluster: each for each in admit(queue, Books(spending=Spending(NOW)), policy, None, NOW)
    }
    assert [outcomes[name].verdict.name for name in ("first", "second", "third")] == [
        "ADMIT",
        "WAIT",
        "ADMIT",
    ]
    assert outcomes["second"].budget == ("everybody",)
    after = Books(spending=Spending.of([record("first", plan(1, 6), NOW)], NOW))
    decision = explain(outcomes["second"], policy.limits_of("bob"), after)
    assert "4.00 USD of the budget of everybody of 10.00 USD is left" in decision.message


def test_a_templates_budget_holds_for_its_clusters_alone() -> None:
    policy = _shared({"etl": "10 USD", "train": "1 USD"})
    other = replace(plan(1, 99), template="analytics")
    spent = Spending.of([record("before", plan(1, 6), NOW), record("theirs", other, NOW)], NOW)
    etl, train = spent.purses(policy.limits_of("bob"))
    assert (etl.scope, etl.standing().left, train.standing().left) == ("template etl", 4, 1)
    assert etl.fits("x", plan(1, 4))
    assert not etl.fits("x", plan(1, 5))
    assert etl.short("x", other) is None
    assert etl.fits("x", other)
    assert etl.with_("x", other) == etl
    assert train.fits("x", plan(9, 99)), "of another template"
    (outcome,) = admit([_wait("x", "bob", 5)], Books(spending=spent), policy, None, NOW)
    assert (outcome.verdict, outcome.budget) == (Verdict.WAIT, ("template etl",))
    nearly = Spending.of([record("before", plan(1, 9), NOW - 9 * HOUR)], NOW).purses(policy.limits_of("bob"))
    standings = [its.standing() for its in nearly]
    (said,) = warnings(standings, plan())
    assert said.startswith(
        "90% of the budget of template etl of 10.00 USD for 2026-11 is spent, 1.00 USD left"
    )
    assert warnings(standings, other) == []
    assert [each["scope"] for each in budget_rows([p.standing() for p in (etl, train)], plan())] == [
        "template etl"
    ]


def test_one_with_a_range_starts_with_as_many_as_the_budget_has_room_for() -> None:
    books = Books(spending=Spending(NOW))
    queue = [_wait("some", "ann", 2, workers=9, least=2), _wait("rest", "ann", 1)]
    outcomes = {each.claim.cluster: each for each in admit(queue, books, _policy("11 USD"), None, NOW)}
    assert outcomes["some"].workers == 5
    assert outcomes["rest"].verdict is Verdict.ADMIT


def test_a_home_that_keeps_no_books_of_it_admits_nothing_under_a_budget() -> None:
    (outcome,) = admit([_wait("a", "ann", 1)], Books(), _policy("11 USD"), None, NOW)
    assert outcome.verdict is Verdict.REFUSE
    assert "does not enforce budgets" in outcome.message


# What may happen to a person's clusters: hours that go by, and something to one of them.
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "end", "scale", "scale", "extend"]),
        st.floats(0, 60),
        st.integers(0, 9),
        st.integers(1, 6),
        st.floats(0.1, 200),
    ),
    max_size=40,
)


@settings(max_examples=100, derandomize=True)
@given(steps=_STEPS, monthly=st.floats(5, 800), reserve=st.sampled_from([1.0, 1.0, 0.9, 0.5]))
def test_whatever_ends_when_nothing_goes_over(
    steps: list[tuple[str, float, int, int, float]], monthly: float, reserve: float
) -> None:
    """By more than the part that is not reserved. Counted apart from the code under test: hour by hour of what each
    had, by the records' own times."""
    limit = BudgetLimit(Budget(monthly=Allowance(Decimal(repr(monthly)), "USD"), reserve=reserve), "here")
    bound = monthly / reserve * (1 + 1e-6)
    records: dict[str, Cluster] = {}
    took: dict[str, float] = defaultdict(float)
    now, ended = NOW, 0

    def pass_time(until: float) -> None:
        for its in records.values():
            end = (its.admitted_at or 0.0) + its.plan.timeouts.max
            if its.ended_at is None:
                for month in months(now, until):
                    seconds = max(0.0, min(until, end, month.end) - max(now, month.begin))
                    took[month.name] += its.plan.workers * seconds / HOUR

    for what, hours, index, workers, longest in steps:
        pass_time(now + hours * HOUR)
        now += hours * HOUR
        for name, its in records.items():
            end = (its.admitted_at or 0.0) + its.plan.timeouts.max
            if its.ended_at is None and end <= now:
                records[name] = replace(its, state=State.STOPPED, ended_at=end)
        its_purse = Purse("you", limit, Spending.of(records.values(), now).users.get("ann", {}), now)
        live = [each for each in records.values() if each.ended_at is None]
        if what == "ask":
            name, wanted = f"n{len(records)}", plan(workers, longest)
            if its_purse.fits(name, wanted):
                records[name] = record(name, wanted, now)
        elif live:
            one = live[index % len(live)]
            if what == "end":
                records[one.id] = replace(one, state=State.STOPPED, ended_at=now)
                ended += 1
            elif what == "scale" and its_purse.fits(one.id, with_workers(one.plan, workers)):
                records[one.id] = moved(one, Move(State.READY, Reason.SERVING, "", workers), None, now)
            elif what == "extend":
                times = replace(one.plan.timeouts, max=Seconds(longest * HOUR))
                until = (one.admitted_at or 0.0) + times.max
                if until > now and its_purse.fits(one.id, one.plan, until):
                    records[one.id] = replace(one, plan=replace(one.plan, timeouts=times))
        assert all(spent <= bound for spent in took.values()), took
    pass_time(now + 300 * HOUR)
    assert all(spent <= bound for spent in took.values()), took
