"""Which worker pods a cluster needs, and which have to go: by group, on spot machines or not.

Why it exists: that a cluster never has one worker more than was admitted, whatever a head says and whatever dies, is
decided here, from plain objects, without a server.

What it must not do: import a client, or read a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from shoal.homes.kubernetes.containers import over, role
from shoal.homes.kubernetes.names import CAPACITY, HEAD, OF_GROUP, WORKER, Json
from shoal.homes.kubernetes.objects import HeadReport
from shoal.homes.kubernetes.sight import going, slot_of
from shoal.model.cluster import Cluster, State
from shoal.model.workload import Group, Plan


class On(StrEnum):
    """On what machine a worker is to be. FALLBACK: on any, since no spot machine was found for it."""

    ANY = "any"
    SPOT = "spot"
    FALLBACK = "fallback"


@dataclass(frozen=True)
class Slot:
    """A place for a worker: its number in the cluster, its group, and on what machine."""

    number: int
    group: str
    on: On = On.ANY


@dataclass(frozen=True)
class Tending:
    """What a cluster's workers need: pods to end first (name, uid), then slots to fill."""

    make: tuple[Slot, ...] = ()
    end: tuple[tuple[str, str], ...] = ()


def group_of(pod: Json, plan: Plan) -> str:
    """The group of a worker's pod; the first one's where it does not say."""
    return str(pod["metadata"]["labels"].get(OF_GROUP) or plan.groups[0].name)


def surplus(plan: Plan, pods: Collection[Json]) -> dict[str, int]:
    """By group, how many more workers are there than planned; below 0: how many are missing."""
    there = [group_of(pod, plan) for pod in pods if role(pod) == WORKER and not over(pod)]
    return {group.name: there.count(group.name) - group.count for group in plan.groups}


def tend(
    cluster: Cluster,
    pods: Collection[Json],
    report: HeadReport | None,
    nowhere: Mapping[str, float] | None = None,
    paused: Collection[str] = (),
) -> Tending:
    """What to do so that as many workers are there as the plan has: never one more, whatever a head says.

    ``nowhere``: pods that no node takes, by uid, and for how many seconds that has been so. ``paused``: pods that
    crashed and are not replaced yet, by uid.
    """
    if cluster.state not in (State.ADMITTED, State.STARTING, State.READY):
        return Tending()
    if not any(role(pod) == HEAD and not over(pod) and not going(pod) for pod in pods):
        return Tending()  # it has none yet, or they end with it
    plan = cluster.plan
    workers = {slot: pod for pod in pods if role(pod) == WORKER and (slot := slot_of(pod)) is not None}
    alive = {slot: pod for slot, pod in workers.items() if not over(pod)}
    dead = [pod for pod in workers.values() if over(pod)]
    waiting = [pod for pod in dead if pod["metadata"]["uid"] in paused]
    end = [pod for pod in dead if not going(pod) and pod["metadata"]["uid"] not in paused]
    more = surplus(plan, pods)
    if report is not None:
        end += _retired(plan, list(alive.values()), report, more)
    fallen = {slot: pod for slot, pod in alive.items() if _has_waited(pod, plan, nowhere or {})}
    make = [Slot(slot, group_of(pod, plan), On.FALLBACK) for slot, pod in fallen.items()]
    if not any(many > 0 for many in more.values()):
        # Else what is being retired holds the room that was admitted for those that are missing.
        free = (slot for slot in range(len(workers) + plan.workers) if slot not in workers)
        for group in plan.groups:
            its = [pod for pod in alive.values() if group_of(pod, plan) == group.name]
            later = sum(group_of(pod, plan) == group.name for pod in waiting)
            kinds = _kinds(group, its, -more[group.name] - later)
            make += [Slot(slot, group.name, on) for on, slot in zip(kinds, free, strict=False)]
    end += fallen.values()
    return Tending(tuple(make), tuple((pod["metadata"]["name"], pod["metadata"]["uid"]) for pod in end))


def _retired(plan: Plan, alive: list[Json], report: HeadReport, more: Mapping[str, int]) -> list[Json]:
    """Whom the head has retired, of what is more than planned."""
    found: list[Json] = []
    for group, many in more.items():
        its = [pod for pod in alive if group_of(pod, plan) == group]
        told = [pod for pod in its if pod["metadata"]["name"] in report.retired and not going(pod)]
        found += told[: max(0, many - sum(going(pod) for pod in its))]
    return found


def _kinds(group: Group, there: Collection[Json], missing: int) -> list[On]:
    """On what machines those that are missing go: the share on spot machines is rounded down."""
    spots = sum(_on(pod) in (On.SPOT, On.FALLBACK) for pod in there)
    more = max(0, int(group.count * group.spot) - spots)
    return [On.SPOT if index < more else On.ANY for index in range(missing)]


def _has_waited(pod: Json, plan: Plan, nowhere: Mapping[str, float]) -> bool:
    """Whether it has waited for a spot machine for as long as its group lets it."""
    wait = plan.fallbacks.get(group_of(pod, plan))
    if wait is None or _on(pod) is not On.SPOT or going(pod):
        return False
    return nowhere.get(pod["metadata"]["uid"], -1.0) >= wait


def _on(pod: Json) -> On:
    kind = pod["metadata"]["labels"].get(CAPACITY)
    return On(kind) if kind in tuple(On) else On.ANY
