"""What a worker on another machine than its head's uses: told with its heartbeats, for its head cannot look.

Why it exists: a head measures its own workers by their pids; those in other pods are known by what they tell.

What it must not do: import anything heavy (it runs at every worker's start).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from shoal.machine import measure

METRIC = "shoal_usage"  # in the metrics of a worker's heartbeat
ROOT = "SHOAL_WORKER_ROOT"  # in a worker's environment: the pid below which everything there is its cluster's
_PROCESSES = 32  # those that used most are told


def of_worker(worker: Any, root: int, cluster_id: str) -> None:
    """Have a worker tell what it and the processes of its tasks use, with each heartbeat.

    ``peak``: the most memory that it had, in bytes; ``cpu``: its core-seconds so far; ``processes``: the same of
    each process there, by pid.
    """
    worker.metrics[METRIC] = _teller(measure.Tree(cluster_id, root))


def _teller(tree: measure.Tree) -> Callable[[Any], Mapping[str, Any]]:
    pid = os.getpid()

    def tell(_worker: Any) -> Mapping[str, Any]:
        below = sorted(tree.look().items(), key=lambda item: item[1].cpu, reverse=True)[:_PROCESSES]
        return {
            "peak": measure.peak_resident(pid),
            "cpu": measure.cpu_seconds(pid),
            "processes": {str(each): usage.cpu for each, usage in below},
        }

    return tell
