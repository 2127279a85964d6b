"""What the head asks of an engine, and what an engine tells it.

Why it exists: the head's life (timeouts, lease, status) is the same for Dask and Spark; this is the seam.

What it must not do: know either engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from shoal.machine.measure import Tree
from shoal.model.cluster import Reason
from shoal.model.endpoint import Endpoint
from shoal.model.stand import Stand
from shoal.model.workload import Plan

Say = Callable[[Reason, str], None]  # how a phase is told while a cluster starts


@dataclass(frozen=True)
class Sample:
    """One look at a running engine. Memory in bytes.

    ``busy``: something is being computed, or waits for a worker. ``memory`` is the sum over workers now,
    ``peak_memory`` the largest any single worker reached, ``limit`` what one worker may use.
    ``clients``: connections of processes outside of the cluster. ``restarts`` counts workers restarted or
    replaced, ``note`` says why the last one was. ``retired`` names the workers that were retired and may be
    ended, ``elsewhere`` tells the core-seconds so far of each process of workers on other machines: both only
    where the home starts the workers. ``groups``: workers by group, and ``room``: what all of them may use, where
    there are several groups.
    """

    clients: int = 0
    busy: bool = False
    workers: int = 0
    memory: int = 0
    peak_memory: int = 0
    limit: int = 0
    spilled: int = 0
    cpu_seconds: float = 0.0
    restarts: int = 0
    note: str = ""
    worker_pids: tuple[int, ...] = ()
    retired: tuple[str, ...] = ()
    elsewhere: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    room: int = 0


class EngineHost(Protocol):
    """Runs one engine inside, or as a child of, the head."""

    def start(self, say: Say, deadline: float) -> Endpoint:
        """Bring it up by ``deadline`` (monotonic seconds); raises a ShoalError that says why not."""
        ...

    def observe(self) -> Sample | None:
        """A look, or None: it did not answer in time (unknown is not failed)."""
        ...

    def failure(self) -> str | None:
        """Why the engine is dead, or None while it lives."""
        ...

    def closed(self) -> str | None:
        """That a client told the engine itself to end, in a sentence; None while it goes on."""
        ...

    def scale(self, workers: int, group: str = "") -> None:
        """Towards this many workers in a group (empty: the first one); returns at once."""
        ...

    def desired(self) -> int | None:
        """How many workers the work at hand could use; None: cannot tell, or it cannot change."""
        ...

    def stop(self) -> None:
        """End it, within some seconds."""
        ...


@dataclass(frozen=True)
class Site:
    """Where an engine is to run: the plan, its own folder, its mark and its secret; its guard's pid; its stand; what
    of ``packages=`` was installed for it.
    """

    cluster_id: str
    plan: Plan
    folder: Path
    token: str
    guard: int | None = None
    stand: Stand = Stand()
    packages: tuple[str, ...] = ()

    def tree(self) -> Tree:
        """The cluster's processes but its guard: below that, or below its head where there is none."""
        return Tree(self.cluster_id, self.guard or os.getpid())

    def __repr__(self) -> str:
        return f"Site({self.cluster_id!r}, {str(self.folder)!r})"
