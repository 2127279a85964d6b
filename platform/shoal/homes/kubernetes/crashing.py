"""For how long workers that crashed are not replaced, where they crash again and again.

Why it exists: a worker that crashes at once, for want of memory or of a module, would be made again each second, at
the expense of everybody's API server and nodes. During a pause its pod stays, and says why.

What it must not do: import a client, or read a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import ceil
from typing import NamedTuple

from shoal.homes.kubernetes.containers import ended, over, role, taken_away
from shoal.homes.kubernetes.names import WORKER, Json
from shoal.homes.kubernetes.sight import going
from shoal.homes.kubernetes.tending import group_of
from shoal.model.workload import Plan

# As Kubernetes does it with containers (CrashLoopBackOff) and with a Job's pods: at once, then after 10 s, twice as
# long each time, 5 min at most, and from the beginning after 10 min without a crash.
_FIRST, _LONGEST, _WELL = 10.0, 300.0, 600.0


class Crashes(NamedTuple):
    """Of one group of workers: whose pods are still there, how many there were, and when the last one was seen."""

    uids: frozenset[str] = frozenset()
    times: int = 0
    at: float = 0.0

    def pause(self, workers: int) -> float:
        """Seconds from the last one on. Each of its ``workers`` may crash once before there is one."""
        rounds = ceil(self.times / max(1, workers))
        return min(_FIRST * 2.0 ** min(rounds - 2, 10), _LONGEST) if rounds > 1 else 0.0


def crashes(
    plan: Plan, pods: Collection[Json], before: Mapping[str, Crashes], now: float
) -> dict[str, Crashes]:
    """By group, what has crashed now or ``before``. ``now``: of any clock that only grows."""
    crashed = [pod for pod in pods if _crashed(pod)]
    if not crashed and not before:
        return {}
    found: dict[str, Crashes] = {}
    for group in plan.groups:
        known = before.get(group.name, Crashes())
        uids = frozenset(pod["metadata"]["uid"] for pod in crashed if group_of(pod, plan) == group.name)
        if new := uids - known.uids:
            again = now - known.at < known.pause(group.count) + _WELL
            found[group.name] = Crashes(uids, len(new) + (known.times if again else 0), now)
        elif known.times:
            found[group.name] = known._replace(uids=uids)
    return found


def paused(plan: Plan, found: Mapping[str, Crashes], now: float) -> frozenset[str]:
    """The uids of the pods that are not replaced yet."""
    return frozenset[str]().union(
        *(
            its.uids
            for group in plan.groups
            if (its := found.get(group.name)) is not None and now - its.at < its.pause(group.count)
        )
    )


def _crashed(pod: Json) -> bool:
    """By itself: whoever is evicted is taken elsewhere at once, and whoever was told to end is not missed."""
    if role(pod) != WORKER or not over(pod) or going(pod) or taken_away(pod):
        return False
    return bool((ended(pod) or {"exitCode": 1}).get("exitCode"))
