"""The ledger's tables, and the way between a row and a record.

Why it exists: what is written down about clusters has one shape, with a version, in one place.

What it must not do: open databases or decide.
"""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, Column, Float, Index, Integer, MetaData, String, Table, Text, cast
from sqlalchemy.engine import RowMapping

from shoal.records import Cluster, Reason, State
from shoal.workload import Plan, Workload

VERSION = 1  # raised when a change of the tables cannot be read by an older Shoal

metadata = MetaData()

meta = Table("shoal_meta", metadata, Column("key", String, primary_key=True), Column("value", String))

clusters = Table(
    "shoal_clusters",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("team", String),
    Column("workload", JSON, nullable=False),
    Column("plan", JSON, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("created", Float, nullable=False),
    Column("head", JSON, nullable=False),
    Column("admitted_at", Float),
    Column("ready_at", Float),
    Column("ended_at", Float),
    Column("renewed_at", Float),
    Column("workers", Integer, nullable=False),
    Column("report", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("project", String, nullable=False),
    # What the head is asked to do; it alone acts on them.
    Column("wanted", Integer),
    Column("stop_reason", String),
    Column("stop_message", Text),
    Column("longest", Float),
    Index("shoal_clusters_live", "ended_at"),
    Index("shoal_clusters_name", "owner", "name"),
)

accounts = Table(
    "shoal_accounts",
    metadata,
    Column("scope", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("account", JSON, nullable=False),
)

events = Table(
    "shoal_events",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("cluster", String, nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("message", Text, nullable=False),
)


# Read as text: most records are read again and again, and say the same.
_AS_TEXT = ("workload", "plan")
columns = [
    cast(column, Text).label(column.name) if column.name in _AS_TEXT else column
    for column in clusters.columns
]


def to_row(cluster: Cluster) -> dict[str, Any]:
    """A record as column values."""
    row = {field.name: getattr(cluster, field.name) for field in fields(cluster)}
    row.update(
        workload=cluster.workload.to_json(),
        plan=cluster.plan.to_json(),
        state=cluster.state.value,
        reason=cluster.reason.value,
    )
    return row


def from_row(row: RowMapping) -> Cluster:
    """A record from a row of :data:`columns`. Records of the same text share their workload and plan."""
    known = {name: row[name] for name in _FIELDS}
    known["workload"] = _workload(row["workload"])
    known["plan"] = _plan(row["plan"])
    known["state"] = State(row["state"])
    known["reason"] = Reason(row["reason"])
    return Cluster(**known)


_FIELDS = tuple(field.name for field in fields(Cluster))


@lru_cache(maxsize=1024)
def _workload(text: str) -> Workload:
    return Workload.from_json(json.loads(text))


@lru_cache(maxsize=1024)
def _plan(text: str) -> Plan:
    return Plan.from_json(json.loads(text))
