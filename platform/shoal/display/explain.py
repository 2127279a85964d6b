"""Why a cluster is where it is: its way from policy to health, one step after the other. Pure.

Why it exists: "why isn't it starting" is asked of six different parts; this asks them in the order in which
a cluster meets them, and stops where it stands.

What it must not do: look anything up (callers bring record, history and status), or guess: a step whose
outcome is not known says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from shoal.model.cluster import Cluster, Reason, State, script_end
from shoal.model.names import command
from shoal.model.status import Event, HeadStatus
from shoal.project.policy import Limits
from shoal.quota.account import Account, said, written
from shoal.units import Seconds
from shoal.words import count, listed


class Stage(StrEnum):
    """What a cluster has to pass, in this order."""

    POLICY = "policy"
    QUOTA = "quota"
    CAPACITY = "capacity"
    IMAGE = "image"
    START_UP = "start-up"
    HEALTH = "health"


class Outcome(StrEnum):
    """How a stage went."""

    PASSED = "passed"
    NOW = "now"  # it is here
    FAILED = "failed"
    ENDED = "ended"  # it ended, for a reason that is nobody's fault
    PENDING = "pending"  # not reached


@dataclass(frozen=True)
class Step:
    """One stage: how it went, a sentence, and what to do about it (empty when nothing is to be done)."""

    stage: Stage
    outcome: Outcome
    said: str
    fix: str = ""


# Where a cluster stands when it stopped for one of these reasons.
_STOPPED_AT = {
    Reason.OVER_LIMIT: Stage.POLICY,
    Reason.PLACE_REFUSED: Stage.START_UP,
    Reason.WAITING_FOR_QUOTA: Stage.QUOTA,
    Reason.WAITING_FOR_CAPACITY: Stage.CAPACITY,
    Reason.IMAGE_PULL_FAILED: Stage.IMAGE,
    Reason.PACKAGES_FAILED: Stage.IMAGE,
    Reason.START_FAILED: Stage.START_UP,
    Reason.HEAD_CRASHED: Stage.HEALTH,
    Reason.HEAD_LOST: Stage.HEALTH,
}
_STANDS = (State.QUEUED, State.ADMITTED, State.REFUSED, State.FAILED)
_FIXES = {
    Stage.POLICY: "ask for less (shoal quota shows your limits), or have them raised in policies/",
    Stage.QUOTA: "shoal quota shows who holds it; shoal down NAME frees it",
    Stage.CAPACITY: "shoal quota shows what runs on the machine; ask for fewer or smaller workers",
    Stage.IMAGE: "check the names and versions in --package",
    Stage.START_UP: "{logs}; shoal doctor",
    Stage.HEALTH: "{logs}",
}

# What is tried again until the place gives way: what its administrators can do.
_PLACES = {
    Reason.WAITING_FOR_QUOTA: "it is tried again as others end; an administrator can raise that quota "
    "(`kubectl describe resourcequota` shows it)",
    Reason.PLACE_REFUSED: "an administrator changes what refuses it; until then it is tried again",
}


def explain(
    cluster: Cluster,
    history: Sequence[Event],
    status: HeadStatus | None = None,
    limits: Limits | None = None,
    account: Account | None = None,
    unresponsive: str = "",
    *,
    in_pods: bool = False,
) -> tuple[Step, ...]:
    """The six steps of ``cluster``.

    ``history`` as a home tells it, ``status`` what its head says (None: not asked, or no answer); ``limits``
    and ``account`` are its owner's, for what they hold now; ``unresponsive`` is what is wrong with its head;
    ``in_pods``: whether its workers run in an image, and not as processes of this Python.
    """
    here = _standing(cluster)
    order = list(Stage)
    steps = []
    for stage in order:
        if order.index(stage) < order.index(here):
            steps.append(
                Step(stage, Outcome.PASSED, _passed(stage, cluster, history, limits, account, in_pods))
            )
        elif stage is here:
            steps.append(_now(stage, cluster, history, status, unresponsive))
        else:
            steps.append(Step(stage, Outcome.PENDING, "not reached"))
    return tuple(steps)


def _standing(cluster: Cluster) -> Stage:
    """The stage at which the cluster is, or at which it ended."""
    if cluster.reason in _STOPPED_AT and cluster.state in _STANDS:
        stage = _STOPPED_AT[cluster.reason]
        # A head that died before it served is a failed start.
        return Stage.START_UP if stage is Stage.HEALTH and cluster.ready_at is None else stage
    if cluster.state is State.QUEUED:
        return Stage.QUOTA if _judged(cluster) else Stage.POLICY
    return Stage.START_UP if cluster.ready_at is None else Stage.HEALTH


def _judged(cluster: Cluster) -> bool:
    """Whether anybody has settled what it is to be."""
    return any(group.size.memory for group in cluster.plan.groups)


def _passed(
    stage: Stage,
    cluster: Cluster,
    history: Sequence[Event],
    limits: Limits | None,
    account: Account | None,
    in_pods: bool,
) -> str:
    match stage:
        case Stage.POLICY:
            tier = f"tier {limits.tier} of {cluster.owner}" if limits else "the policy"
            groups = cluster.plan.groups
            if len(groups) > 1:
                return f"{tier} allows {listed(f'{each.count} {each.name} of {each.size.memory}' for each in groups)}"
            return f"{tier} allows {count(cluster.plan.workers, 'worker')} of {groups[0].size.memory}"
        case Stage.QUOTA if limits is not None and account is not None:
            held = account.held
            parts = [
                f"{written(what, held.of(what))} of {said(what, limit.value)}"
                for what, limit in limits.totals.items()
                if held.of(what) > 0
            ]
            return (
                f"{cluster.owner} holds {', '.join(parts)} now"
                if parts
                else f"{cluster.owner} currently holds nothing"
            )
        case Stage.QUOTA:
            return "it was within the limits"
        case Stage.CAPACITY:
            room = [
                f"{group.count} x {count(group.there.cores, 'core')}, {group.there.memory}"
                for group in cluster.plan.groups
                if group.count
            ]
            return f"there was room for {listed(room)}"
        case Stage.IMAGE:
            if cluster.plan.packages:
                return f"{', '.join(cluster.plan.packages)} installed for the workers"
            return (
                f"{cluster.plan.image} is available"
                if in_pods
                else "no image needed: workers use this Python"
            )
        case Stage.START_UP:
            return _start_up(cluster, history)
        case Stage.HEALTH:
            return ""


def _start_up(cluster: Cluster, history: Sequence[Event]) -> str:
    """Each phase until Ready, with how long it took."""
    parts = []
    for entry, following in pairwise(history):
        if entry.state in (State.ADMITTED, State.STARTING):
            took = Seconds(max(0.0, following.at - entry.at))
            parts.append(f"{entry.message} ({took})")
    return "; ".join(parts) or "started"


def _now(
    stage: Stage,
    cluster: Cluster,
    history: Sequence[Event],
    status: HeadStatus | None,
    unresponsive: str,
) -> Step:
    fix = _FIXES[stage].format(logs=command("logs", cluster.name))
    if cluster.reason is Reason.IMAGE_PULL_FAILED:
        fix = f"check images: of target {cluster.plan.target} in shoal.yaml, and that its nodes may pull from there"
    if unresponsive and not cluster.state.ended:
        said_ = (
            unresponsive
            if unresponsive.startswith(cluster.message)
            else f"{cluster.message}, but {unresponsive}"
        )
        return Step(stage, Outcome.FAILED, said_, command("down", cluster.name))
    if cluster.state in (State.REFUSED, State.FAILED):
        if cluster.reason is Reason.WAITING_FOR_QUOTA:
            fix += "; --queue waits for it"
        return Step(stage, Outcome.FAILED, f"{cluster.reason}: {cluster.message}", fix)
    if cluster.state is State.STOPPED and cluster.exit_code is not None:
        if cluster.exit_code == 0:
            return Step(stage, Outcome.ENDED, script_end(0))
        return Step(stage, Outcome.FAILED, script_end(cluster.exit_code), command("logs", cluster.name))
    if cluster.state is State.STOPPED:
        return Step(stage, Outcome.ENDED, f"{cluster.reason}: {cluster.message}")
    if cluster.state is State.READY:
        return Step(stage, Outcome.NOW, _health(cluster, status))
    if cluster.state is State.QUEUED:
        return Step(stage, Outcome.NOW, f"queued: {cluster.message}", fix)
    if cluster.reason in _PLACES:
        return Step(stage, Outcome.NOW, cluster.message, _PLACES[cluster.reason])
    before = _start_up(cluster, history) if len(history) > 1 else ""
    return Step(stage, Outcome.NOW, f"{before + '; then ' if before else ''}{cluster.message}")


def _health(cluster: Cluster, status: HeadStatus | None) -> str:
    several = f" ({cluster.plan.by_group})" if len(cluster.plan.groups) > 1 else ""
    said_ = [f"{cluster.workers} of {count(cluster.plan.workers, 'worker')} ready{several}"]
    if cluster.reason is Reason.WORKER_RESTARTED:
        said_.append(cluster.message)
    elif cluster.workers < cluster.plan.workers and (waits := cluster.message.partition("; ")[2]):
        said_.append(waits)
    if status is None:
        return "; ".join([*said_, "the head did not answer in time (it may be busy)"])
    said_.append("computes" if status.busy else "has nothing to compute")
    said_.append(count(status.clients, "client") + " connected")
    if status.limit:
        said_.append(f"peak worker memory {status.peak_memory} of {status.limit}")
    if (ends := status.ends_in) is not None:
        said_.append(f"ends in {Seconds(round(ends.seconds))} if nothing changes ({ends.reason})")
    return "; ".join(said_)
