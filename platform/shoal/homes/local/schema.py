"""The ledger's tables, and the way between a row and a record.

Why it exists: what is written down about clusters has one shape, with a version, in one place.

What it must not do: open databases or decide.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import Plan, Workload

VERSION = 1  # raised when a change of the tables cannot be read by an older Shoal

# Column -> type. After those of a record come what a head is asked to do; it alone acts on them.
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


def tables(number: str) -> list[str]:
    """The statements that make the tables and indexes, where they are not there; ``number`` is the type of a
    primary key that counts by itself."""
    clusters = ", ".join(f"{name} {kind}" for name, kind in CLUSTERS.items())
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


def to_row(cluster: Cluster) -> dict[str, Any]:
    """A record as plain values by column."""
    row = {name: getattr(cluster, name) for name in FIELDS}
    row.update(
        workload=cluster.workload.to_json(),
        plan=cluster.plan.to_json(),
        state=cluster.state.value,
        reason=cluster.reason.value,
    )
    return row


def from_row(row: Sequence[Any]) -> Cluster:
    """A record from the values of :data:`FIELDS`. Records of the same text share their workload and plan."""
    known = dict(zip(FIELDS, row, strict=True))
    workload, plan = known["workload"], known["plan"]
    known.update(
        workload=_workload(workload) if isinstance(workload, str) else Workload.from_json(workload),
        plan=_plan(plan) if isinstance(plan, str) else Plan.from_json(plan),
        state=State(known["state"]),
        reason=Reason(known["reason"]),
        head=decoded(known["head"]),
        report=decoded(known["report"]),
        tags=decoded(known["tags"]),
    )
    return Cluster(**known)


def encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with everything that is not plain as JSON, as the database takes it."""
    return {
        name: json.dumps(value) if isinstance(value, (dict, list)) else value
        for name, value in values.items()
    }


def decoded(value: Any) -> Any:
    """What a JSON column says: some databases give it as text, some read it themselves."""
    return json.loads(value) if isinstance(value, str) else value


FIELDS = tuple(field.name for field in fields(Cluster))


@lru_cache(maxsize=1024)
def _workload(text: str) -> Workload:
    return Workload.from_json(json.loads(text))


@lru_cache(maxsize=1024)
def _plan(text: str) -> Plan:
    return Plan.from_json(json.loads(text))
