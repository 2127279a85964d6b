"""What runs cost: parts, months and groups add up to the price of each run, whatever lives were led."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.cli import views
from shoal.cli.commands.cost import between, moment, no_formula, without_money
from shoal.display import focus
from shoal.display.cost import KEYS, Period, charges, grouped, summed
from shoal.display.report import taken
from shoal.errors import UnitError, UsageError
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.units import Bytes, Money, Seconds

GB = 10**9
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
DAY = 86400.0
SIZE = Size(2, Bytes(4 * GB))


def life(
    admitted: float | None,
    ready: float | None,
    ended: float | None,
    workers: int = 2,
    cpu: float = 0.0,
    worker_seconds: float | None = None,
    price: str | None = "0.10",
    owner: str = "ann",
    exit_code: int | None = None,
    currency: str = "USD",
    name: str = "run",
) -> Cluster:
    """A run's record; ``price`` of a worker's hour, the head costs as much as half a worker."""
    worker = None if price is None else Money(Decimal(price), currency)
    hour = None if worker is None else Money(worker.amount * workers + worker.amount / 2, currency)
    group = Group("workers", workers, workers, workers, SIZE, SIZE)
    timeouts = Timeouts(Seconds(60), Seconds(60), Seconds(10 * DAY))
    plan = Plan("etl", Engine.DASK, "local", Size(1, Bytes(GB)), (group,), timeouts)
    plan = replace(plan, price_per_hour=hour, worker_price=worker)
    seen = 0.0 if admitted is None or ended is None else ended - admitted
    report: dict[str, object] = {"cpu_seconds": cpu, "exit_code": exit_code}
    if worker_seconds is not None:
        report |= {"worker_seconds": worker_seconds, "seen": seen}
    state = State.STOPPED if ended is not None else State.READY
    return Cluster(
        id=f"{owner}-{name}-{admitted}", name=name, owner=owner, team="growth", workload=Workload("etl"), plan=plan,
        state=state, reason=Reason.STOPPED_BY_USER, message="", since=0.0, created=admitted or NOVEMBER,
        admitted_at=admitted, ready_at=ready, ended_at=ended, report=report, tags={"project": f"p-{owner}"},
    )  # fmt: skip


@st.composite
def lives(draw: st.DrawFn) -> Cluster:
    admitted = NOVEMBER + draw(st.floats(-70 * DAY, 70 * DAY))
    starting, serving = draw(st.floats(0, 600)), draw(st.floats(0, 40 * DAY))
    workers = draw(st.integers(1, 5))
    lived = starting + serving
    came_up = draw(st.booleans())
    return life(
        admitted,
        admitted + starting if came_up else None,
        draw(st.sampled_from([admitted + lived, None])),
        workers,
        cpu=draw(st.floats(0, lived * workers * 3)),
        worker_seconds=draw(st.sampled_from([None, draw(st.floats(0, lived * workers))])),
        price=draw(st.sampled_from(["0.10", "0.037", "12"])),
        owner=draw(st.sampled_from(["ann", "bob"])),
        exit_code=draw(st.sampled_from([None, 0, 7])),
        name=f"run-{draw(st.integers(0, 10**9))}",
    )


NOW = NOVEMBER + 200 * DAY


@settings(max_examples=50)
@given(
    st.lists(lives(), max_size=5, unique_by=lambda run: run.id),
    st.sampled_from(Period),
    st.sampled_from([*KEYS, "tag:project"]),
)
def test_parts_months_and_groups_add_up_to_the_price(runs: Sequence[Cluster], each: Period, by: str) -> None:
    found = charges(runs, NOW, each=each)
    for run in runs:
        _, _, price = taken(run, NOW)
        assert price is not None
        its = summed([charge for charge in found if charge.cluster is run])
        assert its.money is not None
        assert its.money.total == Fraction(price.amount)
        for parts in (its.money, its.core_hours):
            assert min(parts.head, parts.starting, parts.used, parts.idle) >= 0
    total = summed(found)
    rows = grouped(found, [by])
    assert sum((row.core_hours.total for row in rows), Fraction(0)) == total.core_hours.total
    assert sum((row.shown.total for row in rows), Fraction(0)) == total.shown.total
    assert all(row.wasted <= row.shown.total for row in rows)


@settings(max_examples=50)
@given(st.lists(lives(), max_size=4, unique_by=lambda run: run.id), st.floats(-80 * DAY, 200 * DAY))
def test_what_is_before_and_after_a_moment_is_the_whole(runs: Sequence[Cluster], at: float) -> None:
    cut = NOVEMBER + at
    before, after = charges(runs, NOW, until=cut), charges(runs, NOW, since=cut)
    both, whole = summed([*before, *after]), summed(charges(runs, NOW))
    assert both.core_hours == whole.core_hours


def test_a_run_by_hand() -> None:
    """Two workers of two cores for three hours, of which one hour passed until it was Ready; 4 core-hours computed."""
    run = life(NOVEMBER, NOVEMBER + 3600, NOVEMBER + 3 * 3600, cpu=4 * 3600.0)
    row = summed(charges([run], NOW))
    hours = row.core_hours
    assert (hours.head, hours.starting, hours.used, hours.idle) == (3, 4, 4, 4)
    assert row.money is not None
    cents = [round(float(part) * 100, 9) for part in vars(row.money).values()]
    assert cents == [15.0, 20.0, 20.0, 20.0]
    assert views.cost_view(row, ())["cost"] == {
        "head": "0.150000", "starting": "0.200000", "used": "0.200000", "idle": "0.200000",
        "total": "0.750000", "wasted": "0.200000", "currency": "USD",
    }  # fmt: skip


def test_a_run_over_midnight_of_a_month_is_shared_by_time() -> None:
    run = life(NOVEMBER - 3600, NOVEMBER - 3600, NOVEMBER + 2 * 3600)
    rows = grouped(charges([run], NOW, each=Period.MONTH), ["month"])
    assert [(row.keys, row.runs) for row in rows] == [(("2026-10",), 1), (("2026-11",), 1)]
    assert rows[1].core_hours.total == 2 * rows[0].core_hours.total
    assert summed(charges([run], NOW, since=NOVEMBER)).core_hours == rows[1].core_hours


def test_a_run_of_no_length_is_counted_once() -> None:
    """Its clock jumped, and its head told of work: it lies in the part that begins in its moment."""
    run = life(NOVEMBER, None, NOVEMBER, worker_seconds=7.0)
    assert charges([run], NOW, until=NOVEMBER) == []
    assert summed(charges([run], NOW, since=NOVEMBER)).core_hours == summed(charges([run], NOW)).core_hours


def test_failed_runs_are_lost_and_their_idle_workers_not_counted_twice() -> None:
    failed = life(NOVEMBER, NOVEMBER, NOVEMBER + 3600, cpu=3600.0, exit_code=7)
    fine = life(NOVEMBER, NOVEMBER, NOVEMBER + 3600, cpu=3600.0, exit_code=0, name="other")
    row = summed(charges([failed, fine], NOW))
    assert (row.runs, row.failed) == (2, 1)
    assert row.core_hours.idle == 6
    assert row.lost_hours == 2  # the head's hour and the used one of the failed run


def test_half_a_sum_is_none() -> None:
    priced, free = (
        life(NOVEMBER, NOVEMBER, NOVEMBER + 60),
        life(NOVEMBER, NOVEMBER, NOVEMBER + 60, price=None),
    )
    euros = life(NOVEMBER, NOVEMBER, NOVEMBER + 60, currency="EUR")
    assert summed(charges([priced, free], NOW)).money is None
    assert summed(charges([priced, euros], NOW)).money is None
    assert summed(charges([priced, priced], NOW)).money is not None
    assert views.cost_view(summed(charges([free], NOW)), ())["cost"] is None


def test_why_there_is_no_sum_of_money_is_said() -> None:
    priced, free = (
        life(NOVEMBER, None, NOVEMBER + 60),
        life(NOVEMBER, None, NOVEMBER + 60, price=None, name="b"),
    )
    euros = life(NOVEMBER, None, NOVEMBER + 60, currency="EUR", name="c")
    assert without_money(summed(charges([priced], NOW))) == without_money(summed(charges([free], NOW))) == ""
    total = summed(charges([priced, free, euros], NOW))
    assert without_money(total) == (
        "Core-hours, as there is no sum of money: 1 of 3 runs without a price and prices in EUR and USD."
    )
    assert views.cost_view(total, ())["unpriced"] == 1


def test_the_start_costs_where_it_was_and_not_in_later_months() -> None:
    """An hour until it was Ready, the last one of October; two of work in November."""
    run = life(NOVEMBER - 3600, NOVEMBER, NOVEMBER + 2 * 3600, cpu=3600.0)
    october, november = grouped(charges([run], NOW, each=Period.MONTH), ["month"])
    assert vars(october.core_hours) == {"head": 1, "starting": 4, "used": 0, "idle": 0}
    assert vars(november.core_hours) == {"head": 2, "starting": 0, "used": 1, "idle": 7}


def test_groups_in_different_units_are_in_the_order_of_their_hours() -> None:
    dear = life(NOVEMBER, NOVEMBER, NOVEMBER + 3600, price="1000")
    long = life(NOVEMBER, NOVEMBER, NOVEMBER + 36000, price=None, owner="bob")
    rows = grouped(charges([dear, long], NOW), ["user"])
    assert [row.keys for row in rows] == [("bob",), ("ann",)]


def test_a_span_without_time_is_refused() -> None:
    assert between("1 d", None, NOVEMBER) == (NOVEMBER - DAY, NOVEMBER)
    with pytest.raises(UsageError, match=r"--since 2026-11-02 is .*, not before --until 2026-11-01"):
        between("2026-11-02", "2026-11-01", NOW)
    with pytest.raises(UsageError, match="not before now"):
        between("2027-01-01", None, NOVEMBER)


def test_no_text_is_a_formula() -> None:
    assert [no_formula(text) for text in ("=cmd|'x'!A1", "+1", "@a", "-", "", "etl-2")] == [
        "'=cmd|'x'!A1", "'+1", "'@a", "-", "", "etl-2",
    ]  # fmt: skip


def test_what_was_never_admitted_costs_nothing() -> None:
    assert charges([life(None, None, NOVEMBER + 60)], NOW) == []


def test_unknown_groups_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="cannot be grouped by 'tean'") as caught:
        grouped([], ["tean"])
    assert caught.value.hint.startswith("Did you mean 'team'?")
    assert "tag:NAME" in caught.value.hint
    with pytest.raises(UsageError):
        grouped([], ["tag:"])


@settings(max_examples=50)
@given(st.lists(lives(), max_size=3, unique_by=lambda run: run.id))
def test_rows_of_focus_have_all_columns_and_sum_to_the_price(runs: Sequence[Cluster]) -> None:
    rows = list(focus.rows(charges(runs, NOW, each=Period.MONTH)))
    for run in runs:
        _, _, price = taken(run, NOW)
        assert price is not None
        billed = sum((Decimal(row["BilledCost"]) for row in rows if row["ResourceId"] == run.id), Decimal(0))
        assert abs(billed - price.amount) < Decimal("1e-18") * max(1, price.amount)
    for row in rows:
        assert tuple(row) == focus.COLUMNS
        # What FOCUS 1.0 wants in every row of usage.
        for column in (
            "BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodStart", "BillingPeriodEnd",
            "ChargeCategory", "ChargeFrequency", "ChargePeriodStart", "ChargePeriodEnd", "ContractedCost",
            "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ProviderName",
            "PublisherName", "ServiceCategory", "ServiceName",
        ):  # fmt: skip
            assert row[column], column
        assert row["BillingPeriodStart"] <= row["ChargePeriodStart"] <= row["ChargePeriodEnd"]
        assert row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
        assert "E" not in row["BilledCost"]
        assert json.loads(row["Tags"]) == {"project": f"p-{row['SubAccountId']}"}


def test_moments_as_people_write_them() -> None:
    assert moment("2026-11-01", 0) == moment("2026-11", 0) == moment("2026-11-01T00:00:00Z", 0) == NOVEMBER
    assert moment("30 d", NOVEMBER) == NOVEMBER - 30 * DAY
    with pytest.raises(UsageError, match="'2026-13-01' is not a date"):
        moment("2026-13-01", 0)
    with pytest.raises(UnitError):
        moment("yesterday", 0)
