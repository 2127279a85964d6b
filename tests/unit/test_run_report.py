"""The report of a run: what is said of each cluster and of all, with prices, without, and with some."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from shoal.display.report import report_of, taken
from shoal.display.run_report import COLUMNS, RunCluster, RunReport, quota_used
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.codec import plain, read
from shoal.model.status import Event
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.project.policy import Limit, Limits
from shoal.quota.account import Amounts
from shoal.quota.admission import with_workers
from shoal.units import Bytes, Money, Seconds

GB = 10**9
LIMITS = Limits(
    "alice",
    "standard",
    None,
    1.0,
    totals={
        "clusters": Limit(3, "tiers"),
        "memory": Limit(Bytes(42 * GB), "tiers"),
        "gpus": Limit(0, "tiers"),
    },
    per_cluster={"workers": Limit(3, "tiers"), "duration": Limit(Seconds(14400), "tiers")},
)

HISTORY = [
    Event(State.ADMITTED, Reason.ADMITTED, "", 1000.0),
    Event(State.READY, Reason.SERVING, "", 1004.0),
    Event(State.STOPPED, Reason.STOPPED_BY_USER, "", 1036.0),
]


def cluster(name: str, *, price: str | None = None, reason: Reason = Reason.STOPPED_BY_USER) -> Cluster:
    size = Size(4, Bytes(14 * GB))
    plan = Plan(
        "etl",
        Engine.DASK,
        "local",
        Size(2, Bytes(8 * GB)),
        (Group("default", 2, 2, 2, size, Size(1, Bytes(GB))),),
        Timeouts(Seconds(60), Seconds(60), Seconds(60)),
        price_per_hour=Money(Decimal(price)) if price else None,
    )
    used = {"peak_memory": 600_000_000, "peak_worker_memory": 250_000_000, "worker_memory_limit": GB}
    return Cluster(
        "c1",
        name,
        "alice",
        None,
        Workload("etl"),
        plan,
        State.STOPPED,
        reason,
        "",
        1000.0,
        1000.0,
        admitted_at=1000.0,
        ready_at=1004.0,
        ended_at=1036.0,
        report=used,
    )


def phase(name: str, *, price: str | None = None, reason: Reason = Reason.STOPPED_BY_USER) -> RunCluster:
    made = cluster(name, price=price, reason=reason)
    return RunCluster.of(made, report_of(made, HISTORY, 2000.0), LIMITS)


def test_a_phase_says_how_long_how_much_and_of_what() -> None:
    assert dict(zip(COLUMNS, phase("read-back-0123456789").cells(), strict=True)) == {
        "phase": "read-back, dask",
        "took": "36 s",
        "of it starting": "4 s",
        "peak worker memory": "600 MB (25%)",
        "held": "2 workers, 8 cores, 28 GB",
        "price or hours": "0.020 worker-hours",
        "quota used": "1 of 3 clusters, 28 GB of 42 GB of memory, 2 of 3 workers",
    }


def test_a_report_is_shown_as_its_line_in_a_prompt() -> None:
    assert repr(report_of(cluster("etl-1"), HISTORY, 2000.0)) == (
        "<Report etl-1 · 36 s · 0.02 worker-hours · peak memory 25% · cpu 0% · spilled 0 B>"
    )


def test_an_end_that_nobody_asked_for_is_told() -> None:
    assert phase("etl-1", reason=Reason.CLIENT_GONE).cells()[0] == "etl, dask (ClientGone)"


def test_workers_that_come_and_go_are_counted_and_paid_for_as_long_as_they_were_there() -> None:
    """A head at 4 USD and workers at 3 USD an hour: several for the 30 s that were seen, then one for 6 s."""
    whole = cluster("etl-1", price="10")
    plan = replace(whole.plan, worker_price=Money(Decimal("3")))
    smaller = with_workers(plan, 1)
    assert smaller.price_per_hour == Money(Decimal("7"))
    assert read(Plan, json.loads(json.dumps(plain(smaller)))) == smaller
    assert with_workers(replace(plan, worker_price=None), 1).price_per_hour == Money(Decimal("10"))
    seen = {"seen": 30.0, "worker_seconds": 80.0}  # and one worker in the last 6 s
    lived, worker_seconds, price = taken(replace(whole, plan=smaller, report=seen), 2000.0)
    assert (lived, worker_seconds) == (36.0, 86.0)
    assert price is not None
    assert float(price.amount) == pytest.approx((4 * 36 + 3 * 86) / 3600)
    # Records of before this was counted, and clusters that nobody looked at yet.
    assert taken(replace(whole, report={}), 2000.0)[1] == 72.0
    assert taken(replace(whole, plan=plan, report={}), 2000.0)[2] == Money(Decimal("0.1"))


def test_the_price_is_the_sum_and_none_when_one_is_not_known() -> None:
    assert RunReport("r", [phase("a-1", price="10"), phase("b-1", price="20")]).price == Money(
        Decimal("0.30")
    )
    half = RunReport("r", [phase("a-1", price="10"), phase("b-1")])
    assert half.price is None
    assert "0.040 worker-hours" in half.total()
    assert "0.00" not in RunReport("r", [phase("b-1")]).total().replace("0.020", "")
    assert RunReport("r", []).price is None


def test_the_table_has_a_row_for_each_and_json_is_plain() -> None:
    report = RunReport("Clusters of x", [phase("etl-1"), phase("sql-1", price="3.6")])
    lines = [line for line in report.markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 1}
    data = json.loads(json.dumps(report.to_json()))
    assert [p["role"] for p in data["phases"]] == ["etl", "sql"]
    assert data["phases"][1]["price"] == "0.0360 USD"


def test_only_what_is_held_is_compared_with_the_quota() -> None:
    assert quota_used(Amounts(clusters=1), LIMITS) == "1 of 3 clusters, 0 of 3 workers"
