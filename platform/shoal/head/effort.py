"""What a cluster's processes really do, beside what its engine says.

Why it exists: a thread that a task started, a daemon, an actor or a plain ``client.run`` work where no scheduler
sees it; their CPU time is seen.

What it must not do: judge (``watch.Work`` does).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from shoal.engines.port import Sample
from shoal.engines.watch import Work
from shoal.machine.measure import Tree
from shoal.model.workload import Timeouts


class Effort:
    """The second sign of work, for one cluster."""

    def __init__(self, tree: Tree, timeouts: Timeouts, look: Sample, now: float) -> None:
        self._tree = tree
        self._elsewhere = look.elsewhere
        self._work = Work.begin(timeouts, self._cpu(), now)

    def added(self, look: Sample | None, now: float) -> Sample | None:
        """The engine's look, busy where a process of the cluster computes."""
        if look is not None:
            self._elsewhere = look.elsewhere
        if self._work.due(now):
            self._work = self._work.seen(self._cpu(), now)
        if look is None or look.busy or not self._work.computing:
            return look
        return replace(look, busy=True)

    def _cpu(self) -> Mapping[int | str, float]:
        head = os.getpid()
        used: dict[int | str, float] = {}
        used.update(self._elsewhere.items())
        used.update((pid, usage.cpu) for pid, usage in self._tree.look().items() if pid != head)
        return used
