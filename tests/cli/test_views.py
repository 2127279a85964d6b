"""The JSON schema, pinned; and what tables make of it. Pure."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from rich.console import Console, RenderableType

from shoal.cli import layout as tables
from shoal.cli import views
from shoal.cli.exits import code_of
from shoal.errors import (
    CapacityError,
    ConfigError,
    InfrastructureError,
    NeverFitsError,
    NotFoundError,
    QuotaExceededError,
    ShoalError,
)
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.resource import Resource
from shoal.model.status import HeadStatus, NextEnd
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.project.budget import Budget, BudgetLimit, allowance, said
from shoal.project.policy import Limit, Limits
from shoal.quota.account import Account, amounts
from shoal.quota.budgets import BudgetStatus
from shoal.units import Bytes, Money, Seconds

PLAN = Plan(
    template="etl",
    engine=Engine.DASK,
    target="local",
    head=Size(2, Bytes.parse("8 GB")),
    groups=(Group("default", 1, 2, 3, Size(4, Bytes.parse("14 GB")), Size(1, Bytes.parse("1 GB"))),),
    timeouts=Timeouts(Seconds(1200), Seconds(120), Seconds(14400)),
    reasons={"workers": "1 to 3 workers: from template etl", "price": "no price: nobody said"},
)
CLUSTER = Cluster(
    id="abc",
    name="nightly",
    owner="alice",
    team=None,
    workload=Workload("etl"),
    plan=PLAN,
    state=State.READY,
    reason=Reason.SERVING,
    message="2 workers serve",
    since=0.0,
    created=0.0,
    workers=2,
)
LIMITS = Limits(
    user="alice",
    tier="standard",
    team=None,
    weight=1.0,
    totals={
        Resource.MEMORY: Limit(Bytes.parse("42 GB"), "tier standard"),
        Resource.CLUSTERS: Limit(3, "tier standard"),
    },
    per_cluster={Resource.WORKERS: Limit(3, "tier standard")},
)


def shown(renderable: RenderableType, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("state", "report", "exit_code", "result"),
    [
        (State.READY, {}, None, None),
        (State.STOPPED, {}, None, "ended"),  # as every record of before exit codes were noted
        (State.STOPPED, {"exit_code": 0}, 0, "succeeded"),
        (State.STOPPED, {"exit_code": 7}, 7, "failed"),
        (State.FAILED, {"exit_code": 0}, 0, "failed"),
        (State.REFUSED, {}, None, "refused"),
    ],
)
def test_what_came_of_a_run(
    state: State, report: dict[str, int], exit_code: int | None, result: str | None
) -> None:
    view = views.cluster_view(replace(CLUSTER, state=state, report=dict(report)))
    assert (view["exit_code"], view["result"]) == (exit_code, result)


def test_keys_of_a_cluster_are_pinned() -> None:
    assert list(views.cluster_view(CLUSTER)) == [
        "name", "id", "owner", "team", "engine", "template", "target", "state", "reason", "message",
        "since", "created", "ended", "workers", "workers_planned", "groups", "workers_at_most",
        "place", "latest_start", "warning", "price_per_hour", "tags", "dashboard", "status", "exit_code",
        "result",
    ]  # fmt: skip
    status = views.cluster_view(CLUSTER, HeadStatus(clients=1))["status"]
    assert list(status) == [
        "clients", "busy", "memory", "memory_limit", "peak_worker_memory", "spilled", "cpu_seconds",
        "restarts", "ends_in", "ends_reason",
    ]  # fmt: skip


def test_keys_of_a_plan_are_pinned() -> None:
    view = views.plan_view(PLAN)
    assert list(view) == [
        "template", "engine", "target", "workers", "groups", "head", "head_there", "timeouts", "image",
        "conf", "packages", "mounts", "price_per_hour", "reasons",
    ]  # fmt: skip
    assert list(view["groups"][0]) == [
        "name", "minimum", "count", "maximum", "cores", "memory", "there", "gpus", "spot", "scratch",
    ]  # fmt: skip


def test_keys_of_quota_are_pinned() -> None:
    view = views.quota_view(LIMITS, Account({"abc": amounts(PLAN)}), None, {"abc": "nightly"}, None)
    assert list(view) == [
        "user", "tier", "team", "totals", "per_cluster", "team_totals", "clusters", "machine", "budgets",
    ]  # fmt: skip
    assert view["totals"][0] == {
        "what": "memory",
        "held": 28_000_000_000,
        "limit": 42_000_000_000,
        "free": 14_000_000_000,
        "queued": 0,
        "source": "tier standard",
    }
    assert view["clusters"][0]["name"] == "nightly"


def test_a_budget_is_told_as_values_and_in_a_sentence() -> None:
    limit = BudgetLimit(Budget(monthly=allowance("20 core-hours"), warn=0.5), "tier standard (t.yaml:3)")
    standing = BudgetStatus("you", "2026-11", limit, spent=12.5, reserved=4.0, unpriced=0)
    (row,) = views.budget_rows([standing])
    assert row == {
        "scope": "you",
        "month": "2026-11",
        "unit": "core-hours",
        "monthly": 20.0,
        "spent": 12.5,
        "reserved": 4.0,
        "left": 3.5,
        "warned": True,
        "unpriced": 0,
        "source": "tier standard (t.yaml:3)",
    }
    (row,) = views.budget_rows([replace(standing, scope="team red", unpriced=2)], PLAN)
    assert tables.budget(row).plain == (
        "The budget of team red of 20 core-hours for 2026-11: 12.5 core-hours spent, 4 core-hours reserved by what "
        "runs, 3.5 core-hours left (nearly spent); this may take "
        f"{said(row['may_take'], 'core-hours')} until its maximum lifetime; 2 runs without a price in core-hours not "
        "counted  tier standard (t.yaml:3)"
    )


def test_money_is_text_and_unknown_prices_are_null_never_zero() -> None:
    assert views.cluster_view(CLUSTER)["price_per_hour"] is None
    priced = replace(CLUSTER, plan=replace(PLAN, price_per_hour=Money(Decimal("0.42"))))
    assert views.cluster_view(priced)["price_per_hour"] == "0.42 USD"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (NotFoundError("x"), 2),
        (QuotaExceededError("x"), 3),
        (NeverFitsError("x"), 3),
        (CapacityError("x"), 3),
        (InfrastructureError("x"), 4),
        (ShoalError("x"), 4),
    ],
)
def test_exit_codes_tell_usage_refusal_and_failure_apart(error: ShoalError, code: int) -> None:
    assert code_of(error) == code
    assert views.error_view(error, code)["error"]["type"] == type(error).__name__


def test_ages_are_said_in_the_unit_that_fits() -> None:
    now = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    assert tables.age("2026-01-01T11:59:30Z", now) == "30 s"
    assert tables.age("2026-01-01T11:55:00Z", now) == "5 min"
    assert tables.age("2025-12-31T12:00:00Z", now) == "24 h"
    assert tables.age(None) == ""


@pytest.mark.parametrize("width", [60, 100, 240])
def test_the_now_table_keeps_name_state_and_reason_at_any_width(width: int) -> None:
    rows = [views.cluster_view(CLUSTER, HeadStatus(ends_in=NextEnd(Reason.IDLE, Seconds(1100))))]
    text = shown(tables.clusters(rows, width), width)
    assert "nightly" in text
    assert "Ready" in text
    assert "2 workers serve" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width
    assert ("18 min (Idle)" in text) is (width >= tables.NARROW)


@pytest.mark.parametrize("width", [60, 240])
def test_a_plan_shows_each_size_with_its_reason(width: int) -> None:
    text = " ".join(shown(tables.plan(PLAN), width).split())
    assert "2 (1-3)" in text
    assert "from template etl" in text or width == 60
    assert "0.00" not in text
