"""The ledger's tables, and the way between a row and a record.

Why it exists: what is written down about clusters has one shape, with a version, in one place.

What it must not do: open databases or decide.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import JSON, Column, Float, Index, Integer, MetaData, String, Table, Text
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
    """A record from a row of :data:`clusters`."""
    known = {field.name: row[field.name] for field in fields(Cluster)}
    known.update(
        workload=Workload.from_json(row["workload"]),
        plan=Plan.from_json(row["plan"]),
        state=State(row["state"]),
        reason=Reason(row["reason"]),
    )
    return Cluster(**known)
