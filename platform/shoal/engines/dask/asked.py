"""Which workers were restarted because a client asked for it (``client.restart()``).

Why it exists: they are back a moment later, and nothing went wrong: such a restart is neither counted nor told as a
death.

What it must not do: change what is done.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from typing import Any

_KEPT = 60.0  # s: one that has not come back by then is told as any other


class AskedRestarts:
    """Notes what the clients of a Dask scheduler ask for. By the workers' names: addresses change."""

    def __init__(self, scheduler: Any) -> None:
        self._at: dict[str, float] = {}
        restart = scheduler.restart_workers

        @functools.wraps(restart)  # Dask looks at its signature
        async def noted(workers: Iterable[str] | None = None, **options: Any) -> Any:
            chosen = list(scheduler.workers if workers is None else workers)
            there = [scheduler.workers[address] for address in chosen if address in scheduler.workers]
            self._at |= {str(worker.name): time.monotonic() for worker in there}
            return await restart(workers, **options)

        scheduler.restart_workers = noted  # client.restart() goes through it, too
        scheduler.handlers["restart_workers"] = noted

    def take(self, name: str) -> bool:
        """Whether this worker's restart, seen now, was asked for."""
        return time.monotonic() - self._at.pop(name, -_KEPT) < _KEPT


def restart_note(name: str) -> str:
    """The sentence for it."""
    return f"worker {name} was restarted by its client"
