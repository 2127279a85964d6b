"""Counts what a Dask worker does that its scheduler does not know of: methods of actors, and ``client.run``.

Why it exists: a worker that waits in an actor's method uses no CPU and has no task, and yet is at work.

What it must not do: change what is called, or import anything heavy (it runs at every worker's start).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

METRIC = "shoal_calls"  # in the metrics of a worker's heartbeat: {"now": calls that run, "ever": all so far}


class Calls:
    """How many calls run now, and how many were made ever."""

    def __init__(self) -> None:
        self.now = 0
        self.ever = 0

    def counted(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The handler, counted while it runs."""

        @functools.wraps(handler)  # Dask looks at its signature
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.now += 1
            self.ever += 1
            try:
                result = handler(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result
            finally:
                self.now -= 1

        return call

    def tell(self, _worker: Any = None) -> Mapping[str, int]:
        """As a metric."""
        return {"now": self.now, "ever": self.ever}


def count(server: Any, *names: str) -> Calls:
    """Count these handlers of a Dask server from now on."""
    calls = Calls()
    for name in names:
        server.handlers[name] = calls.counted(server.handlers[name])
    return calls


def of_worker(worker: Any) -> None:
    """Have a worker tell its calls with each heartbeat."""
    worker.metrics[METRIC] = count(worker, "run", "actor_execute").tell
