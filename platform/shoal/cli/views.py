"""What ``-o json`` says: plain values with a stable schema. Sizes in bytes, durations in seconds, times in
ISO 8601 (UTC), money as text.

Why it exists: people build on these shapes, so they are made in one place, by pure functions, and a test
pins every key. Keys may be added; none is renamed, and none changes its meaning.

What it must not do: look anything up or print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from shoal.display.cost import CostRow, Parts, money
from shoal.display.forecast import latest_start, warning
from shoal.display.report import taken
from shoal.errors import ShoalError
from shoal.model.cluster import Cluster
from shoal.model.resource import Resource
from shoal.model.status import Event, HeadStatus
from shoal.model.workload import Group, Plan, Size
from shoal.project.policy import Limit, Limits
from shoal.quota.account import Account, Amounts, amounts
from shoal.quota.admission import Decision
from shoal.quota.budgets import BudgetStatus, most
from shoal.units import Bytes

_WHOLE = frozenset(Resource) - {Resource.CORES, Resource.DURATION, Resource.PRIORITY}


def moment(at: float | None) -> str | None:
    """``2026-03-01T09:30:00Z``; None stays None."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def cluster_view(cluster: Cluster, status: HeadStatus | None = None, dashboard: str = "") -> dict[str, Any]:
    """One cluster; ``status`` is what its head says (None: it was not asked, or did not answer).

    ``dashboard``: the link to its pages, which lets in whoever has it ("": none, or not asked for).
    """
    price = cluster.plan.price_per_hour
    return {
        "name": cluster.name,
        "id": cluster.id,
        "owner": cluster.owner,
        "team": cluster.team,
        "engine": cluster.plan.engine.value,
        "template": cluster.plan.template,
        "target": cluster.plan.target,
        "state": cluster.state.value,
        "reason": cluster.reason.value,
        "message": cluster.message,
        "since": moment(cluster.since),
        "created": moment(cluster.created),
        "ended": moment(cluster.ended_at),
        "workers": cluster.workers,
        "workers_planned": cluster.plan.workers,
        "groups": [
            {
                "name": each.name,
                "workers": status.groups.get(each.name) if status else None,
                "planned": each.count,
            }
            for each in cluster.plan.groups
        ],
        "workers_at_most": sum(group.maximum for group in cluster.plan.groups),
        "place": cluster.turn.place,
        "latest_start": moment(latest_start(cluster)),
        "warning": warning(cluster, status.ends_in if status is not None else None) or None,
        "price_per_hour": None if price is None else str(price),
        "tags": dict(cluster.tags),
        "dashboard": dashboard or None,
        "status": None if status is None else status_view(status),
        "exit_code": cluster.exit_code,
        "result": cluster.result,
    }


def taken_view(cluster: Cluster, now: float) -> dict[str, Any]:
    """What a run took, until ``now`` (seconds since the epoch) if it lives."""
    lived, worker_seconds, price = taken(cluster, now)
    return {
        "template": cluster.plan.template,
        "result": cluster.result,
        "lived": round(float(lived), 3) if cluster.admitted_at is not None else 0.0,
        "worker_hours": round(worker_seconds / 3600, 6) if cluster.admitted_at is not None else 0.0,
        "cost": None if price is None else str(price),
        "peak_worker_memory": int(cluster.usage.peak_worker_memory),
    }


def cost_view(row: CostRow, by: Sequence[str]) -> dict[str, Any]:
    """What a group of runs cost. Core-hours as numbers, money as text; ``cost`` is None where it is not known.

    ``wasted``: idle workers, and what failed runs cost besides.
    """
    hours = _parts(row.core_hours) | {"wasted": row.core_hours.idle + row.lost_hours}
    priced = None
    if row.money is not None and row.lost is not None:
        amounts = _parts(row.money) | {"wasted": row.money.idle + row.lost}
        priced = {name: _decimal(amount) for name, amount in amounts.items()} | {"currency": row.currency}
    return {
        **dict(zip(by, row.keys, strict=True)),
        "runs": row.runs,
        "failed": row.failed,
        "unpriced": row.unpriced,
        "core_hours": {name: round(float(amount), 6) for name, amount in hours.items()},
        "cost": priced,
    }


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A view of costs as one line of CSV: ``cost_used``, ``core_hours_used`` and so on."""
    plain = {key: value for key, value in row.items() if key not in ("cost", "core_hours")}
    names = ("head", "starting", "used", "idle", "total", "wasted")
    plain |= {f"core_hours_{name}": row["core_hours"][name] for name in names}
    priced = row["cost"] or {}
    return plain | {f"cost_{name}": priced.get(name, "") for name in (*names, "currency")}


def _parts(parts: Parts) -> dict[str, Fraction]:
    return {**vars(parts), "total": parts.total}


def _decimal(amount: Fraction) -> str:
    """Six places: a hundredth of a cent is seen, and nothing is told that was not measured."""
    return f"{money(amount, '').amount:.6f}"


def submit_view(cluster: Cluster, exit_code: int, report: Mapping[str, Any] | None) -> dict[str, Any]:
    """A script's run on a cluster of its own: how it exited, and what the cluster took."""
    view = cluster_view(cluster)
    del view["exit_code"]  # the last key, as ever
    return view | {"report": None if report is None else dict(report), "exit_code": exit_code}


def status_view(status: HeadStatus) -> dict[str, Any]:
    """What a running cluster does now."""
    ends_in = status.ends_in
    return {
        "clients": status.clients,
        "busy": status.busy,
        "memory": int(status.memory),
        "memory_limit": int(status.limit),
        "peak_worker_memory": int(status.peak_memory),
        "spilled": int(status.spilled),
        "cpu_seconds": status.cpu_seconds,
        "restarts": status.restarts,
        "ends_in": None if ends_in is None else float(ends_in.seconds),
        "ends_reason": None if ends_in is None else ends_in.reason.value,
    }


def plan_view(plan: Plan) -> dict[str, Any]:
    """A plan: every number, and why each."""
    return {
        "template": plan.template,
        "engine": plan.engine.value,
        "target": plan.target,
        "workers": plan.workers,
        "groups": [_group(group) for group in plan.groups],
        "head": _size(plan.head),
        "head_there": _size(plan.head_there or plan.head),
        "timeouts": {key: float(value) for key, value in vars(plan.timeouts).items()},
        "image": plan.image,
        "conf": dict(plan.conf),
        "packages": list(plan.packages),
        "mounts": list(plan.mounts),
        "price_per_hour": None if plan.price_per_hour is None else str(plan.price_per_hour),
        "reasons": dict(plan.reasons),
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "minimum": group.minimum,
        "count": group.count,
        "maximum": group.maximum,
        **_size(group.size),
        "there": _size(group.there),
        "gpus": group.gpus,
        "spot": group.spot,
        "scratch": int(group.scratch),
    }


def _size(size: Size) -> dict[str, Any]:
    return {"cores": size.cores, "memory": int(size.memory)}


def limit_rows(
    limits: Mapping[Resource, Limit],
    held: Amounts,
    more: Amounts | None = None,
    queued: Amounts | None = None,
) -> list[dict[str, Any]]:
    """One row per total that is limited: what is held of it, what is free, and what would be with ``more``.

    ``queued``: what waits for it. ``free`` is 0 also where more is held than a lowered limit gives.
    """
    rows = []
    for what, limit in limits.items():
        row = {"what": what.value, "held": _plain(what, held.of(what)), "limit": _plain(what, limit.value)}
        row["free"] = _plain(what, max(0.0, limit.value - held.of(what)))
        if queued is not None:
            row["queued"] = _plain(what, queued.of(what))
        if more is not None:
            row["after"] = _plain(what, held.of(what) + more.of(what))
        rows.append(row | {"source": limit.source})
    return rows


def _plain(what: Resource, value: float) -> int | float:
    return int(value) if what in _WHOLE else value


def budget_rows(standings: Sequence[BudgetStatus], plan: Plan | None = None) -> list[dict[str, Any]]:
    """One row per budget, this month's; with a plan, what that may take until its maximum lifetime."""
    rows: list[dict[str, Any]] = []
    for each in standings:
        if plan is not None and not each.concerns(plan):
            continue
        row = {
            "scope": each.scope,
            "month": each.month,
            "unit": each.limit.unit,
            "monthly": each.limit.monthly,
        }
        row |= {name: round(getattr(each, name), 6) for name in ("spent", "reserved", "left")}
        row |= {"warned": each.warned, "unpriced": each.unpriced, "source": each.limit.source}
        if plan is not None:
            row["may_take"] = most(plan, each.limit.unit)
        rows.append(row)
    return rows


def fit_view(
    plan: Plan, limits: Limits, account: Account, decision: Decision, budgets: Sequence[BudgetStatus] = ()
) -> dict[str, Any]:
    """Whether a plan would be admitted now, and the account and the budgets before and after."""
    return {
        "fits": decision.verdict.value == "admit",
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "message": decision.message,
        "hint": decision.hint,
        "user": limits.user,
        "tier": limits.tier,
        "quota": limit_rows(limits.totals, account.held, amounts(plan)),
        "budgets": budget_rows(budgets, plan),
    }


def quota_view(
    limits: Limits,
    account: Account,
    team: Account | None,
    names: Mapping[str, str],
    machine: Mapping[str, Any] | None,
    queued: Account | None = None,
    team_queued: Account | None = None,
    budgets: Sequence[BudgetStatus] = (),
) -> dict[str, Any]:
    """What a user may have, holds and by which clusters; the team's totals and the machine likewise.

    ``queued`` and ``team_queued``: what waits, as if it were admitted.
    """
    waits, team_waits = (each or Account() for each in (queued, team_queued))
    per_cluster = {
        what.value: {"limit": _plain(what, limit.value), "source": limit.source}
        for what, limit in limits.per_cluster.items()
    }
    return {
        "user": limits.user,
        "tier": limits.tier,
        "team": limits.team,
        "totals": limit_rows(limits.totals, account.held, queued=waits.held),
        "per_cluster": per_cluster,
        "team_totals": []
        if team is None
        else limit_rows(limits.team_totals, team.held, queued=team_waits.held),
        "clusters": [
            {"name": names.get(key, key), "id": key, **_amounts(value)}
            for key, value in account.admitted.items()
        ],
        "machine": machine,
        "budgets": budget_rows(budgets),
    }


def _amounts(value: Amounts) -> dict[str, Any]:
    return {key: int(part) if isinstance(part, Bytes) else part for key, part in vars(value).items()}


def machine_view(limits: Mapping[Resource, Limit], used: Amounts, cores: float | None) -> dict[str, Any]:
    """What the machine holds and what really runs there."""
    return {"cores": cores, "totals": limit_rows(limits, used)}


def history_view(history: Sequence[Event]) -> list[dict[str, Any]]:
    """Every state a cluster was in, oldest first."""
    return [
        {
            "state": entry.state.value,
            "reason": entry.reason.value,
            "message": entry.message,
            "at": moment(entry.at),
        }
        for entry in history
    ]


def error_view(error: ShoalError, code: int) -> dict[str, Any]:
    """An error, for a program that asked for JSON."""
    return {
        "error": {
            "type": type(error).__name__,
            "code": int(code),
            "message": error.message,
            "hint": error.hint,
        }
    }
