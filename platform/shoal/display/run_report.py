"""What a run with several clusters took: one line per phase, and the whole. Pure: values in, text out.

Why it exists: a flow is a sequence of clusters, and people ask what the whole cost, which phase took long,
and how much of their quota it held.

What it must not do: measure, look up records, or print.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from shoal.display.report import Report
from shoal.model.cluster import Cluster, Reason
from shoal.model.codec import plain
from shoal.model.resource import Resource
from shoal.project.policy import Limits
from shoal.quota.account import Amounts, amounts, said, written
from shoal.units import Bytes, Money, Seconds
from shoal.words import count

COLUMNS = (
    "phase",
    "took",
    "of it starting",
    "peak worker memory",
    "held",
    "price or hours",
    "quota used",
)


def quota_used(held: Amounts, limits: Limits) -> str:
    """How much of what the user may have is held: ``"28 GB of 42 GB of memory, 1 of 3 clusters"``.

    Only what is limited, and what the cluster holds any of; workers are a limit per cluster.
    """
    parts = [
        f"{written(what, held.of(what))} of {said(what, limit.value)}"
        for what, limit in limits.totals.items()
        if held.of(what)
    ]
    if (limit := limits.per_cluster.get(Resource.WORKERS)) is not None:
        parts.append(f"{held.workers} of {said(Resource.WORKERS, limit.value)}")
    if (limit := limits.per_cluster.get(Resource.HEAD)) is not None:
        parts.append(f"{held.heads} of {Bytes(limit.value)} for its head")
    return ", ".join(parts)


@dataclass(frozen=True)
class RunCluster:
    """One cluster of a run. ``starting``: from its admission until it was Ready."""

    role: str
    report: Report
    starting: Seconds
    held: Amounts
    quota: str

    @classmethod
    def of(cls, cluster: Cluster, report: Report, limits: Limits) -> RunCluster:
        """From the cluster's record. The role is its name without the digits that tell runs apart."""
        admitted = cluster.admitted_at or cluster.created
        ready = cluster.ready_at if cluster.ready_at is not None else cluster.ended_at or admitted
        held = amounts(cluster.plan)
        role = cluster.name.rpartition("-")[0] or cluster.name
        return cls(role, report, Seconds(max(0.0, ready - admitted)), held, quota_used(held, limits))

    @property
    def cost(self) -> str:
        """The price; hours of worker time where no prices are known."""
        if self.report.price is not None:
            return str(self.report.price)
        return f"{self.report.worker_hours:.3f} worker-hours"

    def cells(self) -> tuple[str, ...]:
        """What :data:`COLUMNS` head."""
        report = self.report
        peak = f"{report.peak_memory} ({report.memory_share:.0%})"
        held = f"{count(report.workers, 'worker')}, {count(self.held.cores, 'core')}, {self.held.memory}"
        ended = "" if report.reason == Reason.STOPPED_BY_USER else f" ({report.reason})"
        return (
            f"{self.role}, {report.engine}{ended}",
            str(report.lived),
            str(self.starting),
            peak,
            held,
            self.cost,
            self.quota,
        )


@dataclass(frozen=True)
class RunReport:
    """All phases of a run, oldest first."""

    title: str
    phases: Sequence[RunCluster]

    @property
    def price(self) -> Money | None:
        """The sum; None where a phase's price is not known, for half a sum would be a wrong one."""
        prices = [phase.report.price for phase in self.phases]
        known = [price for price in prices if price is not None]
        if not known or len(known) < len(prices) or len({price.currency for price in known}) > 1:
            return None
        return Money(sum((price.amount for price in known), Decimal(0)), known[0].currency)

    def total(self) -> str:
        """The whole run in one sentence."""
        lived = Seconds(sum(phase.report.lived for phase in self.phases))
        hours = sum(phase.report.worker_hours for phase in self.phases)
        cost = str(self.price) if self.price is not None else f"{hours:.3f} worker-hours"
        peak = max((phase.report.peak_memory for phase in self.phases), default=Bytes(0))
        return f"{count(len(self.phases), 'cluster')}, {lived} in all · {cost} · peak memory {peak}"

    def markdown(self) -> str:
        """As a table for a Prefect artifact or a notebook."""
        rows = [COLUMNS, ("---",) * len(COLUMNS), *(phase.cells() for phase in self.phases)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return f"## {self.title}\n\n{table}\n\n{self.total()}\n"

    def to_json(self) -> dict[str, Any]:
        """Plain values: times in seconds, sizes in bytes, prices as text."""
        return {
            "title": self.title,
            "price": str(self.price) if self.price is not None else None,
            "phases": [
                {
                    "role": phase.role,
                    "starting": round(float(phase.starting), 3),
                    "held": plain(phase.held),
                    "quota": phase.quota,
                    **phase.report.to_json(),
                }
                for phase in self.phases
            ],
        }
