"""Which workers of a Dask scheduler are of which group of the plan.

Why it exists: a worker of one of several groups offers a Dask resource that is called like its group, as often as it
has threads: so work can be sent to a group, and a worker can be told from others wherever it was started.

What it must not do: start or end workers.
"""

from __future__ import annotations

from typing import Any

from shoal.model.workload import Plan


def offered(group: str, threads: int, gpus: int) -> dict[str, float]:
    """The Dask resources of a worker. ``group``: empty where there is one alone."""
    return ({"GPU": float(gpus)} if gpus else {}) | ({group: float(threads)} if group else {})


class Kinds:
    """The groups of a plan, and who of the scheduler's workers is in which."""

    def __init__(self, plan: Plan, scheduler: Any) -> None:
        self._groups = {group.name: group for group in plan.groups}
        self._first = plan.groups[0].name
        self._scheduler = scheduler

    @property
    def several(self) -> bool:
        """Whether there is more than one group."""
        return len(self._groups) > 1

    def of(self, worker: Any) -> str:
        """The group of a worker, as the scheduler knows it."""
        for name in self._groups:
            if self.several and name in worker.resources:
                return name
        return self._first

    def there(self) -> dict[str, list[Any]]:
        """Who is there, by group."""
        found: dict[str, list[Any]] = {name: [] for name in self._groups}
        for worker in self._scheduler.workers.values():
            found[self.of(worker)].append(worker)
        return found

    def memory(self, group: str) -> int:
        """What a worker of it may use, in bytes."""
        return int(self._groups[group].there.memory)

    async def retire(self, group: str, many: int, *, close: bool) -> list[str]:
        """Retire so many of a group, those with the least to do; the names of those who left."""
        chosen: dict[str, Any] = {"n": many}
        if self.several:
            idle = sorted(self.there()[group], key=lambda worker: (len(worker.processing), worker.nbytes))
            chosen = {"workers": [worker.address for worker in idle[:many]]}
        gone = await self._scheduler.retire_workers(**chosen, remove=True, close_workers=close)
        return [str(worker["name"]) for worker in gone.values()]
