"""What is told of a Dask cluster's workers, whoever starts them.

Why it exists: ``workers`` starts them on this machine, ``arriving`` takes those that a home starts; who watches a
cluster asks both the same.

What it must not do: know where they run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

from shoal.engines.dask.asked import AskedRestarts
from shoal.engines.dask.kinds import Kinds
from shoal.engines.port import Site

MEMORY_TOPIC = "worker-restart-memory"  # what nannies log when they end a worker over its limit
TRY_EVERY = 2.0  # s: a worker whose results have nowhere to go is not retired at the first try


class Counted:
    """The workers of one scheduler: how many are wanted, what they used, and what became of them."""

    def __init__(self, site: Site, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.kinds = Kinds(site.plan, scheduler)
        self._wanted = {group.name: group.count for group in site.plan.groups}
        self._changing = asyncio.Lock()
        self._work: asyncio.Task[None] | None = None
        self._next_try = 0.0
        self._asked = AskedRestarts(scheduler)
        self._restarts = 0
        self._note = ""
        self._cpu: dict[Hashable, float] = {}
        self._peak = 0

    @property
    def restarts(self) -> tuple[int, str]:
        """How often a worker was restarted or replaced, and why the last one was."""
        return self._restarts, self._note

    @property
    def cpu_seconds(self) -> float:
        """Of all that were ever there."""
        return sum(self._cpu.values())

    @property
    def peak(self) -> int:
        """The most memory that one of them had, in bytes."""
        return self._peak

    def _tell(self, note: str, *, more: bool = False) -> None:
        """``more``: of what was told already."""
        self._restarts += not more
        self._note = f"{self._note}; {note}" if more else note
