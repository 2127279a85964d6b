"""The ledger's tables, and the way between a row and a record.

Why it exists: what is written down about clusters has one shape, with a version, in one place.

What it must not do: open databases or decide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

from shoal.model.cluster import Cluster, EndedRun, EndNotice, Reason, State
from shoal.model.codec import plain, read
from shoal.model.workload import Plan, Workload

VERSION = 1  # raised when a change of the tables cannot be read by an older Shoal

# Column -> type. After those of a record come what a head is asked to do; it alone acts on them. ``clients``: the
# identities of the processes that wait for it in the queue.
CLUSTERS = {
    "id": "VARCHAR NOT NULL PRIMARY KEY",
    "name": "VARCHAR NOT NULL",
    "owner": "VARCHAR NOT NULL",
    "team": "VARCHAR",
    "workload": "JSON NOT NULL",
    "plan": "JSON NOT NULL",
    "state": "VARCHAR NOT NULL",
    "reason": "VARCHAR NOT NULL",
    "message": "TEXT NOT NULL",
    "since": "FLOAT NOT NULL",
    "created": "FLOAT NOT NULL",
    "head": "JSON NOT NULL",
    "admitted_at": "FLOAT",
    "ready_at": "FLOAT",
    "ended_at": "FLOAT",
    "renewed_at": "FLOAT",
    "workers": "INTEGER NOT NULL",
    "report": "JSON NOT NULL",
    "tags": "JSON NOT NULL",
    "project": "VARCHAR NOT NULL",
    "wanted": "INTEGER",
    "stop_reason": "VARCHAR",
    "stop_message": "TEXT",
    "longest": "FLOAT",
}
# Columns that came after the first version; a ledger gets those that it lacks when it is opened. Shoal 0.1.0
# reads the columns that it knows by name, and no field more than it knows inside their JSON: later fields of a plan
# have a column of their own, and its heads keep running beside a newer Shoal.
ADDED = {
    "plan_added": "JSON",
    "clients": "JSON",
    "wanted_groups": "JSON",
    "accrued": "JSON",
    "notice": "JSON",
    "reason_added": "VARCHAR",
}
# What is written in the columns that Shoal 0.1.0 reads for a reason that it does not know; the true one stands beside
# it. The message is the same.
NEAREST = {Reason.BUDGET_SPENT: Reason.DEADLINE_REACHED}
_FIRST_PLAN = frozenset(
    {"template", "engine", "target", "head", "groups", "timeouts", "image", "conf", "packages"}
    | {"price_per_hour", "reasons", "head_there", "mounts", "worker_price"}
)


def tables(number: str) -> list[str]:
    """The statements that make the tables and indexes, where they are not there; ``number`` is the type of a
    primary key that counts by itself."""
    clusters = ", ".join(f"{name} {kind}" for name, kind in (CLUSTERS | ADDED).items())
    events = (
        f"number {number}, cluster VARCHAR NOT NULL, at FLOAT NOT NULL, state VARCHAR NOT NULL, "
        "reason VARCHAR NOT NULL, message TEXT NOT NULL"
    )
    accounts = (
        "scope VARCHAR NOT NULL, name VARCHAR NOT NULL, account JSON NOT NULL, PRIMARY KEY (scope, name)"
    )
    return [
        "CREATE TABLE IF NOT EXISTS shoal_meta (key VARCHAR NOT NULL PRIMARY KEY, value VARCHAR)",
        f"CREATE TABLE IF NOT EXISTS shoal_clusters ({clusters})",
        f"CREATE TABLE IF NOT EXISTS shoal_accounts ({accounts})",
        f"CREATE TABLE IF NOT EXISTS shoal_events ({events})",
        "CREATE INDEX IF NOT EXISTS shoal_clusters_live ON shoal_clusters (ended_at)",
        "CREATE INDEX IF NOT EXISTS shoal_clusters_name ON shoal_clusters (owner, name)",
        "CREATE INDEX IF NOT EXISTS ix_shoal_events_cluster ON shoal_events (cluster)",
    ]


def lacking(columns: Iterable[str]) -> list[str]:
    """The statements that add what a ledger with these columns lacks."""
    known = set(columns)
    return [
        f"ALTER TABLE shoal_clusters ADD COLUMN {name} {kind}"
        for name, kind in ADDED.items()
        if name not in known
    ]


def to_row(cluster: Cluster) -> dict[str, Any]:
    """A record as plain values by column."""
    row = {name: getattr(cluster, name) for name in FIELDS}
    row.update(
        workload=plain(cluster.workload),
        **plan_columns(cluster.plan),
        state=cluster.state.value,
        **reason_columns(cluster.reason),
        notice=notice_column(cluster.notice),
    )
    return row


def to_copy(cluster: Cluster) -> dict[str, Any]:
    """A record as its head keeps it beside the ledger: with the columns of the first version alone."""
    return {name: value for name, value in to_row(cluster).items() if name not in ADDED}


def plan_columns(plan: Plan) -> dict[str, Any]:
    """A plan by column: what the first version knew, and the rest."""
    whole = plain(plan)
    return {
        "plan": {name: value for name, value in whole.items() if name in _FIRST_PLAN},
        "plan_added": {name: value for name, value in whole.items() if name not in _FIRST_PLAN},
    }


def first_reason(reason: Reason) -> str:
    """A reason as the first version knew it."""
    return NEAREST.get(reason, reason).value


def reason_columns(reason: Reason) -> dict[str, Any]:
    """A reason by column: as the first version knew it, and as it is where that is another."""
    return {"reason": first_reason(reason), "reason_added": reason.value if reason in NEAREST else None}


def reason_of(told: str, added: str | None) -> Reason:
    """The inverse; ``added`` is a cluster's own reason, void where an older Shoal wrote another since."""
    true = Reason(added) if added else None
    return true if true is not None and NEAREST.get(true) == told else Reason(told)


def notice_column(notice: EndNotice) -> Any:
    """Nothing where its end is not near."""
    return plain(notice) if notice.at is not None else None


def from_row(row: Sequence[Any]) -> Cluster:
    """A record from the values of :data:`SELECTED`. Records of the same text share their workload and plan."""
    known = dict(zip(SELECTED, row, strict=True))
    known.update(
        workload=_workload(text(known["workload"])),
        plan=_plan(text(known["plan"]), text(known.pop("plan_added") or {})),
        state=State(known["state"]),
        reason=reason_of(known["reason"], known.pop("reason_added")),
        head=decoded(known["head"]),
        report=decoded(known["report"]),
        tags=decoded(known["tags"]),
        accrued=decoded(known["accrued"]) or {},
        notice=read(EndNotice, decoded(told)) if (told := known["notice"]) else EndNotice(),
    )
    return Cluster(**known)


def to_ended(row: Sequence[Any]) -> EndedRun:
    """From the values of :data:`ENDED`: nothing else of a record is read, for there may be many."""
    cluster_id, owner, team, plan, added, admitted_at, ended_at, accrued = row
    settled = _plan(text(plan), text(added or {}))
    return EndedRun(cluster_id, owner, team, settled, admitted_at, ended_at, decoded(accrued) or {})


def encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with everything that is not plain as JSON, as the database takes it."""
    return {
        name: json.dumps(value) if isinstance(value, (dict, list)) else value
        for name, value in values.items()
    }


def decoded(value: Any) -> Any:
    """What a JSON column says: some databases give it as text, some read it themselves."""
    return json.loads(value) if isinstance(value, str) else value


def text(value: Any) -> str:
    """A JSON column as text, however the database gives it."""
    return value if isinstance(value, str) else json.dumps(value)


# Scripts run where their user is: no record here has one.
FIELDS = tuple(field.name for field in fields(Cluster) if field.name != "run")
SELECTED = (*FIELDS, "plan_added", "reason_added")
ENDED = ("id", "owner", "team", "plan", "plan_added", "admitted_at", "ended_at", "accrued")


@lru_cache(maxsize=1024)
def _workload(text: str) -> Workload:
    return read(Workload, json.loads(text))


@lru_cache(maxsize=1024)
def _plan(text: str, added: str) -> Plan:
    return read(Plan, json.loads(text) | json.loads(added))
