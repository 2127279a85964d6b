"""What a Dask scheduler tells of its tasks, for whoever shows them.

Why it exists: only the scheduler knows all tasks of all clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

TASKS = "shoal_tasks"  # the operation
_OPEN = ("waiting", "no-worker", "queued", "processing")


def tasks(scheduler: Any, known: Iterable[str] = ()) -> list[tuple[str, str, int, int, bool]]:
    """Of a Dask scheduler, each group of tasks that is not done, or ``known``: its name, what it does, how many are
    done, how many there are, whether some are left."""
    names, found = set(known), []
    for group in scheduler.task_groups.values():
        left = sum(group.states[state] for state in _OPEN)
        if left or group.name in names:
            total = sum(group.states.values())
            found.append((group.name, group.prefix.name, total - left, total, bool(left)))
    return found


def tell(scheduler: Any) -> None:
    """Let a Dask scheduler answer :data:`TASKS`."""

    async def answer(known: Sequence[str] = ()) -> list[tuple[str, str, int, int, bool]]:
        return tasks(scheduler, known)

    scheduler.handlers[TASKS] = answer
