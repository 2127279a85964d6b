"""Budgets as people write them: amounts with their units, and what is at fault in a file, by its line."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from shoal.errors import ConfigError, ContradictionError, UnitError
from shoal.project import loading
from shoal.project.budget import Allowance, allowance, said

TIER = (
    "standard:\n  concurrent_clusters: 3\n  workers_per_cluster: 3\n  memory: 42 GB\n  max_duration: 12 h\n"
    "  head: 8 GB\n  budget: {monthly: %s}\n"
)


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("-5 USD", ContradictionError, "not above 0"),
        ("0 core-hours", ContradictionError, "not above 0"),
        ("10 USD 5 EUR", UnitError, "is not one amount"),
        ("200", UnitError, "has no unit"),
        ("200 usd", UnitError, "'usd' is not a unit of a budget"),
        ("5 node-hours", UnitError, "'node-hours' is not a unit of a budget"),
        ("lots", UnitError, "is not one amount"),
    ],
)
def test_what_is_no_allowance(text: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        allowance(text)


def test_an_allowance_as_people_write_it() -> None:
    assert allowance("500 Core-Hour") == Allowance(Decimal(500), "core-hours")
    assert (said(12.5, "USD"), said(1234567, "core-hours"), said(0.125, "GPU-hours")) == (
        "12.50 USD",
        "1234567 core-hours",
        "0.125 GPU-hours",
    )


@pytest.mark.parametrize(
    ("monthly", "target", "fault"),
    [
        ("-5 USD", "local", "standard.budget.monthly: '-5 USD' is not above 0: no cluster could ever start; "
         "write more than 0"),
        ("9 nodes", "local", "standard.budget.monthly: 'nodes' is not a unit of a budget; write a currency such as "
         "USD, core-hours, GiB-hours or GPU-hours"),
        ("9 USD", "local", "standard.budget: is in USD, and target local has no prices; add prices to it in "
         "shoal.yaml, or write core-hours, GiB-hours or GPU-hours"),
        ("9 EUR", "priced", "standard.budget: is in EUR, and the prices of target priced are in USD; write it in USD"),
        ("9 core-hours", "kubernetes", "standard.budget: budgets are not enforced at home kubernetes yet (target "
         "kubernetes); remove it; totals and max_duration bound what can be spent"),
    ],
)  # fmt: skip
def test_a_budget_that_nobody_could_hold_is_a_fault_with_its_line(
    folder: Callable[..., Path], monthly: str, target: str, fault: str
) -> None:
    shoal = (
        "default_target: local\ntargets:\n  local: {home: local}\n  kubernetes: {home: kubernetes}\n"
        "  priced: {home: local, prices: {core: 1 USD, gib: 0 USD}}\n"
    )
    root = folder(shoal=shoal, tiers=TIER % monthly)
    with pytest.raises(ConfigError, match="1 fault") as caught:
        loading.load(root, target)
    assert str(caught.value.values["faults"][0]) == f"policies/tiers.yaml:7: {fault}"
    tolerated = loading.load(root, target, tolerant=True)
    assert [str(each) for each in tolerated.policy.faults] == [f"policies/tiers.yaml:7: {fault}"]


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("grace: 5 min", "standard.budget: grace is the time before an end, and this budget ends nothing; write "
         "at_limit: stop, or remove grace"),
        ("at_limit: stop, grace: 0 s", "standard.budget.grace: is not above 0; write '80%' of a share, '10 min' of a "
         "time"),
        ("reserve: 0%", "standard.budget.reserve: is not above 0; write '80%' of a share, '10 min' of a time"),
        ("at_limit: warn", "standard.budget.at_limit: 'warn' is not one of them; write 'refuse' or "
         "'stop'"),
    ],
)  # fmt: skip
def test_an_end_that_is_not_one_is_a_fault(folder: Callable[..., Path], more: str, fault: str) -> None:
    root = folder(tiers=TIER % f"9 core-hours, {more}")
    with pytest.raises(ConfigError) as caught:
        loading.load(root, "local")
    assert [str(each) for each in caught.value.values["faults"]] == [f"policies/tiers.yaml:7: {fault}"]


def test_a_users_own_budget_counts_instead_of_the_tiers(folder: Callable[..., Path]) -> None:
    root = folder(
        tiers=TIER % "500 core-hours",
        users="default: {tier: standard, team: red}\n"
        "bob:\n  tier: standard\n  budget: {monthly: 9 GPU-hours, warn: 50%}\n",
        teams="red:\n  budget: {monthly: 99 GiB-hours}\n",
    )
    policy = loading.load(root, "local").policy
    theirs, own = policy.limits_of("ann"), policy.limits_of("bob")
    assert theirs.budget is not None
    assert theirs.team_budget is not None
    assert own.budget is not None
    assert (theirs.budget.unit, theirs.budget.source) == (
        "core-hours",
        "tier standard (policies/tiers.yaml:7)",
    )
    assert (own.budget.monthly, own.budget.source) == (9, "user bob (policies/users.yaml:4)")
    assert (own.budget.budget.warn, own.team_budget) == (0.5, None)
    assert theirs.team_budget.source == "team red (policies/teams.yaml:2)"


def test_a_template_and_everybody_may_have_a_budget(folder: Callable[..., Path]) -> None:
    root = folder(
        templates="etl: {budget: {monthly: 40 core-hours, at_limit: stop}}\n",
        everybody="# all of us\nbudget:\n  monthly: 900 core-hours\n",
        users="default: {tier: standard}\n",
    )
    policy = loading.load(root, "local").policy
    limits = policy.limits_of("ann")
    assert limits.budgeted
    assert limits.everybody_budget is not None
    assert limits.everybody_budget.source == "everybody (policies/everybody.yaml:2)"
    assert limits.template_budgets["etl"].source == "template etl (policies/templates.yaml:1)"
    assert policy.stops


def test_what_is_at_fault_in_them_is_told_by_its_line(folder: Callable[..., Path]) -> None:
    root = folder(
        templates="etl: {budget: {monthly: 9 USD}}\nelt:\n  budget: {monthly: 9 core-hours}\n"
        "analytics: {memory: 4 GB}\n",
        everybody="budget: {monthly: nothing}\n",
    )
    with pytest.raises(ConfigError) as caught:
        loading.load(root, "local")
    assert [str(each).partition(";")[0] for each in caught.value.values["faults"]] == [
        "policies/everybody.yaml:1: budget.monthly: 'nothing' is not one amount",
        "policies/templates.yaml:2: elt: there is no template 'elt' in clusters/",
        "policies/templates.yaml:4: analytics.budget: is missing",
        "policies/templates.yaml:4: analytics.memory: is not a known key",
    ]
    for wrong in ("budget: {monthly: 9 USD}\n", "budget: {monthly: 9 core-hours}\n"):
        there = folder(everybody=wrong, templates="etl: {budget: {monthly: 9 core-hours}}\n")
        with pytest.raises(ConfigError, match=r"policies/everybody.yaml:1: budget: "):
            loading.load(there, "local" if "USD" in wrong else "kubernetes")
