"""How long a cluster may live, and how large it may be, for what it may cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shoal.errors import UsageError
from shoal.model.workload import Plan
from shoal.planning.affording import affordable, workers_for

from .test_budgets import HOUR, plan


@pytest.mark.parametrize(
    ("its", "max_cost", "lasts"),
    [
        (plan(2, hours=10), "5 USD", 2.5 * HOUR),
        (plan(2, hours=10), "5 core-hours", 1.25 * HOUR),
        (plan(2, hours=10), "20 USD", None),
        (replace(plan(2, hours=10), groups=(replace(plan(2).groups[0], maximum=5),)), "5 USD", HOUR),
        (plan(2, hours=10, price="0"), "5 USD", None),
    ],
)
def test_what_may_be_spent_is_how_long_it_may_live(its: Plan, max_cost: str, lasts: float | None) -> None:
    assert affordable(its, max_cost, explicit=False) == lasts


@pytest.mark.parametrize(
    ("its", "max_cost", "explicit", "says"),
    [
        (
            plan(2, hours=10),
            "5 USD",
            True,
            "10 h may take 20.00 USD at 2.00 USD per hour, and max_cost is 5.00 USD",
        ),
        (plan(2, hours=10), "0.02 USD", False, "max_cost: 0.0200 USD lasts 36 s at 2.00 USD per hour"),
        (plan(2, price=None), "5 USD", False, "max_cost is in USD, and target t has no prices"),
        (plan(2), "5 EUR", False, "max_cost is in EUR, and target t has prices in USD"),
        (plan(2), "5", False, "'5' has no unit"),
    ],
)
def test_what_cannot_be_afforded_is_refused_with_values(
    its: Plan, max_cost: str, explicit: bool, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        affordable(its, max_cost, explicit=explicit)


def ranged(low: int, high: int, price: str | None = "1") -> Plan:
    its = plan(low, price=price)
    return replace(its, groups=(replace(its.groups[0], minimum=low, maximum=high),))


@pytest.mark.parametrize(
    ("its", "max_price", "range_"),
    [
        (ranged(1, 6), "3.5 USD/h", (1, 3)),
        (ranged(1, 6), "6 USD/hour", None),
        (ranged(2, 6), "2 USD / h", (2, 2)),
        (ranged(1, 6, price=None), "8 core-hours/h", (1, 4)),
    ],
)
def test_what_an_hour_may_cost_is_how_many_workers_it_may_have(
    its: Plan, max_price: str, range_: tuple[int, int] | None
) -> None:
    assert workers_for(its, max_price, explicit=False) == range_


@pytest.mark.parametrize(
    ("its", "max_price", "explicit", "says"),
    [
        (plan(4), "3 USD/h", True, "max_price: 4 workers may take 4.00 USD an hour, and max_price is 3.00 USD an hour\n"
         "Write workers=3, which takes 3.00 USD an hour; or allow more."),
        (ranged(4, 9), "3 USD/h", False, "max_price: 4 workers may take 4.00 USD an hour, and max_price is 3.00 USD an "
         "hour\nWrite workers=3, which takes 3.00 USD an hour; or allow more."),
        (ranged(2, 2), "0.5 USD/h", False, "max_price: 2 workers may take 2.00 USD an hour, and max_price is 0.50 USD "
         "an hour\nOne worker takes 1.00 USD an hour: ask for smaller ones; or allow more."),
        (plan(2, price=None), "5 USD/h", False, "max_price is in USD, and target t has no prices\n"
         "Write core-hours, GiB-hours, GPU-hours."),
        (plan(2), "5 USD", False, "'5 USD' is not a price of an hour\nWrite max_price as '2 USD/h'."),
        (plan(2), "5 USD/day", False, "'5 USD/day' is not a price of an hour\nWrite max_price as '2 USD/h'."),
        (plan(2), "-5 USD/h", False, "'-5 USD' is not above 0: no cluster could ever start\nwrite more than 0"),
    ],
)  # fmt: skip
def test_a_price_of_an_hour_that_does_not_do(its: Plan, max_price: str, explicit: bool, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        workers_for(its, max_price, explicit=explicit)
    assert str(caught.value) == says
