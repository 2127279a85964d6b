"""Records and accounts as objects of the API server, and back.

Why it exists: the rest of the home works on the values that everybody works on. On the server a cluster's object has
what a person asks for (``spec``), and what the governor says of it (``status``), which nobody else may write.

What it must not do: import a client, or decide.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shoal.governor.actions import Scope
from shoal.governor.ends import End
from shoal.homes.kubernetes.names import ACCOUNT, ASKED_AS, CLUSTER, REPORT, RUNNER, Json, Object, account_of
from shoal.homes.kubernetes.structure import read, written
from shoal.model.cluster import EXIT_CODE, Cluster, Reason, State
from shoal.model.codec import plain
from shoal.model.report import QueueStatus, Usage
from shoal.model.status import Event
from shoal.model.workload import Engine, Group, Plan, ScriptRun, Size, Timeouts, Workload
from shoal.quota.account import Account
from shoal.units import Bytes, Seconds

EVENTS = 48  # the most that a history keeps
LINES = 40  # the most of an ended head's log that its record keeps


@dataclass(frozen=True)
class EndWish:
    """That somebody asked for a cluster's end, and why."""

    reason: Reason = Reason.STOPPED_BY_USER
    message: str = "asked to stop"


@dataclass(frozen=True)
class Spec:
    """What a person asks for. ``replicas``, ``stop``, ``lifetime`` and ``exit_code`` may change later.

    ``id``: what the asker knows the cluster by. ``project``: the folder that was asked from. ``run``: the script that
    is to run beside it. ``replicas``: how many workers are wanted now in the first group, ``groups``: in others, by
    name; ``lifetime``: a maximum lifetime other than the planned one, in seconds; ``exit_code``: how a script ended
    that ran on it elsewhere; ``applied``: the project whose template is meant ("": the one that has it); ``template``:
    a whole template that nobody applied, under the workload's name for it.
    """

    workload: Workload
    id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    project: str = ""
    replicas: int | None = None
    stop: EndWish | None = None
    lifetime: float | None = None
    exit_code: int | None = None
    run: ScriptRun | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    applied: str = ""
    template: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Status:
    """What the governor says of a cluster. Times are seconds since the epoch.

    ``created``: when it was asked for, as the queue goes by it. ``log``: the last lines of its head, once that has
    ended: its pod is gone then; ``output``: the same of the script that ran beside it. ``runner``: the uid of that
    script's pod, once it was seen; ``exit_code``: how the script ended.
    """

    state: State
    reason: Reason
    message: str
    since: float
    owner: str = ""
    team: str | None = None
    plan: Plan | None = None
    created: float | None = None
    admitted_at: float | None = None
    ready_at: float | None = None
    ended_at: float | None = None
    workers: int = 0
    turn: QueueStatus | None = None
    usage: Usage | None = None
    history: tuple[Event, ...] = ()
    log: tuple[str, ...] = ()
    runner: str = ""
    exit_code: int | None = None
    output: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeadReport:
    """What a head says. It runs its user's code, so whoever reads this reads it as hostile input.

    ``wants``: the number of workers that it asks for in its first group. ``retired``: workers that hold nothing any
    more, by name. ``stop``: that it ends, and why. ``beat`` changes with every report. ``status``: what it tells of
    itself now.
    """

    state: str = ""
    reason: str = ""
    message: str = ""
    workers: int = 0
    wants: int | None = None
    retired: tuple[str, ...] = ()
    stop: EndWish | None = None
    usage: Usage | None = None
    beat: float = 0.0
    clients: int = 0
    busy: bool = False


def asked(name: str, namespace: str, spec: Spec) -> Object:
    """The object by which a cluster is asked for."""
    metadata: Object = {"name": name, "namespace": namespace}
    if spec.id:
        metadata["labels"] = {ASKED_AS: spec.id}
    return {
        "apiVersion": CLUSTER.group_version,
        "kind": CLUSTER.name,
        "metadata": metadata,
        "spec": written(spec),
    }


def spec_of(found: Json) -> Spec:
    """What was asked for; InfrastructureError where it cannot be read."""
    return read(Spec, found.get("spec", {}))


def status_of(found: Json) -> Status | None:
    """What the governor said; None where it has not run a round yet."""
    return read(Status, said) if (said := found.get("status")) else None


def cluster_of(found: Json, status: Status, spec: Spec, plan: Plan, cluster_id: str) -> Cluster:
    """The record of an object. ``cluster_id``: the object's uid for who governs, what it was asked as for others."""
    metadata = found["metadata"]
    part = status.turn if status.state is State.QUEUED else status.usage
    report: dict[str, Any] = plain(part) if part is not None else {}
    code = spec.exit_code if status.exit_code is None else status.exit_code
    if code is not None:
        report[EXIT_CODE] = code
    runner = {RUNNER: status.runner} if status.runner else {}
    return Cluster(
        id=cluster_id,
        name=metadata["name"],
        owner=status.owner,
        team=status.team,
        workload=spec.workload,
        plan=plan,
        state=status.state,
        reason=status.reason,
        message=status.message,
        since=status.since,
        created=status.created or created(found),
        head={"namespace": metadata["namespace"], **runner},
        admitted_at=status.admitted_at,
        ready_at=status.ready_at,
        ended_at=status.ended_at,
        workers=status.workers,
        report=report,
        tags=dict(spec.tags),
        project=spec.project,
        run=spec.run,
    )


def unplanned(spec: Spec) -> Plan:
    """A plan of nothing, for one that was refused, or not looked at, before it had any."""
    none, engine = Seconds(0), spec.workload.engine or Engine.DASK
    group = Group("default", 0, 0, 0, Size(0, Bytes(0)), Size(0, Bytes(0)))
    return Plan(spec.workload.template, engine, "", Size(0, Bytes(0)), (group,), Timeouts(none, none, none))


def status_from(
    cluster: Cluster,
    before: Status | None,
    log: tuple[str, ...] = (),
    output: tuple[str, ...] = (),
    *,
    now: float | None = None,
) -> Status:
    """What the object is to say of a record ``now``; the history goes on from ``before``."""
    history = before.history if before is not None else ()
    event = Event(cluster.state, cluster.reason, cluster.message, time.time() if now is None else now)
    if not history or (history[-1].state, history[-1].reason, history[-1].message) != (
        event.state,
        event.reason,
        event.message,
    ):
        history = (*history, event)
    if len(history) > EVENTS:  # its beginning tells more than its middle
        history = (*history[: EVENTS // 2], *history[-EVENTS // 2 :])
    waits = cluster.state is State.QUEUED
    return Status(
        state=cluster.state,
        reason=cluster.reason,
        message=cluster.message[:1024],
        since=cluster.since,
        owner=cluster.owner,
        team=cluster.team,
        plan=cluster.plan,
        created=cluster.created,
        admitted_at=cluster.admitted_at,
        ready_at=cluster.ready_at,
        ended_at=cluster.ended_at,
        workers=cluster.workers,
        turn=cluster.turn if waits else None,
        usage=None if waits else replace(cluster.usage, samples=()),
        history=history,
        log=log or (before.log if before is not None else ()),
        runner=cluster.head.get(RUNNER, ""),
        exit_code=cluster.exit_code if cluster.run is not None else None,
        output=output or (before.output if before is not None else ()),
    )


def last_lines(text: str) -> tuple[str, ...]:
    """Of a log: as many of the last lines as a record may keep."""
    return tuple(legible(line)[:200] for line in text.splitlines()[-LINES:])


def conditions(cluster: Cluster) -> list[Object]:
    """The status in the form that ``kubectl wait`` understands."""
    ready = cluster.state is State.READY
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(cluster.since))
    return [
        {
            "type": "Ready",
            "status": "True" if ready else "False",
            "reason": cluster.reason.value,
            "message": cluster.message[:1024],
            "lastTransitionTime": since,
        }
    ]


def account_read(found: Json) -> Account:
    """The account of an object."""
    return read(Account, found.get("status", {}))


def account_key(found: Json) -> tuple[Scope, str]:
    """Whose account it is."""
    return Scope(found["spec"]["scope"]), found["spec"]["holder"]


def account_object(scope: Scope, holder: str, namespace: str) -> Object:
    """An empty account."""
    return {
        "apiVersion": ACCOUNT.group_version,
        "kind": ACCOUNT.name,
        "metadata": {"name": account_of(scope, holder), "namespace": namespace},
        "spec": {"scope": scope.value, "holder": holder},
    }


def report_object(cluster: Json) -> Object:
    """The object in which the head of a cluster reports: it is made empty, and the head may fill it."""
    return {
        "apiVersion": REPORT.group_version,
        "kind": REPORT.name,
        "metadata": {"name": cluster["metadata"]["name"], "ownerReferences": [owned_by(cluster)]},
        "said": {},
    }


def owned_by(cluster: Json) -> Object:
    """The reference by which the API server deletes what belongs to a cluster after it."""
    metadata = cluster["metadata"]
    return {
        "apiVersion": CLUSTER.group_version,
        "kind": CLUSTER.name,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def created(found: Json) -> float:
    """When the object was made, by the API server's clock: seconds since the epoch.

    The server tells whole seconds; within one, the order is that of versions, which only rise.
    """
    metadata = found["metadata"]
    second = calendar.timegm(time.strptime(metadata["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ"))
    return second + int(metadata.get("resourceVersion", 0)) % 1_000_000 / 1_000_000


def end_of(stop: EndWish | None) -> End | None:
    """The wish as the governor reads it."""
    return None if stop is None else End(stop.reason, legible(stop.message))


def legible(text: str) -> str:
    """Text of somebody else's, fit to be shown: without control characters, and of bounded length."""
    return "".join(each if each.isprintable() else " " for each in text)[:500]
