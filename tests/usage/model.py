"""What should be true of the clusters that were started: small and pure, it knows nothing of Shoal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

MINE = "mine"  # held by the person's process: ends with its handle, and with its process
NOBODYS = "nobody's"  # detached: lives until it is told to end


class Row(Protocol):
    """What is seen of a cluster in the ledger."""

    id: str
    state: str
    reason: str
    message: str
    workers: int
    planned: int
    longest: float
    head: int
    ended: bool


@dataclass
class Expected:
    """One cluster: what it should have, or (``ends``) for which reasons it may have ended.

    ``children``: processes that its tasks started, which have to be gone with it.
    """

    id: str
    name: str
    engine: str
    workers: int
    owner: str = MINE
    hours: float = 1.0
    ends: frozenset[str] = frozenset()
    children: set[int] = field(default_factory=set)

    @property
    def live(self) -> bool:
        return not self.ends

    def wrong(self, row: Row | None, processes: Iterable[int], heads: Mapping[int, bool]) -> list[str]:
        """What is not as it should be; ``heads``: whether the process of this pid lives."""
        if row is None:
            return [f"{self.name} ({self.id}) is not in the ledger any more"]
        seen = f"{self.name} ({self.id}) is {row.state} ({row.reason}: {row.message})"
        alive = [pid for pid in (row.head, *self.children, *processes) if heads.get(pid)]
        if self.live:
            found = [] if row.state == "Ready" else [f"{seen}; it should be Ready"]
            if not heads.get(row.head):
                found.append(f"the head of {self.name}, pid {row.head}, does not run; {seen}")
            if (row.workers, row.planned) != (self.workers, self.workers):
                found.append(
                    f"{self.name} has {row.workers} workers and counts with {row.planned}, not {self.workers}"
                )
            if self.engine == "dask" and len(alive) < 1 + self.workers:
                found.append(f"{self.name} runs as {sorted(alive)}: too few for {self.workers} workers")
            if row.longest != self.hours * 3600:
                found.append(f"{self.name} may live {row.longest:.0f} s, not {self.hours:.0f} h")
            return found
        found = [] if row.ended else [f"{seen}; it should have ended"]
        if row.ended and row.reason not in self.ends:
            found.append(f"{seen}; it should have ended by {' or '.join(sorted(self.ends))}")
        if alive:
            found.append(f"{self.name} has ended, and {sorted(alive)} of it run")
        return found


@dataclass
class Model:
    """All clusters of a home, in the order in which they were started; ``handles``: variable -> cluster id."""

    clusters: dict[str, Expected] = field(default_factory=dict)
    handles: dict[str, str] = field(default_factory=dict)

    def started(self, cluster: Expected) -> Expected:
        assert cluster.id not in self.clusters, f"{cluster.name} was given the id of another cluster"
        self.clusters[cluster.id] = cluster
        return cluster

    def live(self, owner: str | None = None) -> list[Expected]:
        return [each for each in self.clusters.values() if each.live and owner in (None, each.owner)]

    def ended(self, cluster: Expected, *reasons: str) -> None:
        assert cluster.live
        cluster.ends = frozenset(reasons)

    def wrong(
        self, rows: Mapping[str, Row], marked: Mapping[str, set[int]], alive: Mapping[int, bool]
    ) -> list[str]:
        """Everything that is not as it should be."""
        found = []
        for its_id, cluster in self.clusters.items():
            found += cluster.wrong(rows.get(its_id), marked.get(its_id, ()), alive)
        for its_id, row in rows.items():
            if its_id not in self.clusters and row.state != "Refused":
                found.append(
                    f"{its_id} is {row.state} ({row.reason}: {row.message}), and nobody asked for it"
                )
        for its_id in marked.keys() - self.clusters.keys():
            found.append(f"{sorted(marked[its_id])} carry the mark of {its_id}, and nobody asked for it")
        return found

    def wrong_handles(self, seen: Mapping[str, Any], rows: Mapping[str, Row]) -> list[str]:
        """``seen``: variable -> [cluster id, state, workers], as the person's process has them."""
        found = []
        for variable, its_id in self.handles.items():
            row = rows.get(its_id)
            if row is not None and seen.get(variable) != [its_id, row.state, row.workers]:
                found.append(
                    f"{variable} says {seen.get(variable)}; the ledger {its_id, row.state, row.workers}"
                )
        return found
