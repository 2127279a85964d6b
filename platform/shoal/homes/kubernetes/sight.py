"""What is seen of a cluster's pods, and what its head says, in the words of the governor.

Why it exists: everything that is concluded from pods is concluded here, from plain objects, without a server.

What it must not do: import a client, or read a clock.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from shoal.governor.actions import Seen
from shoal.governor.ends import End, Phase, Pulse, Sentence
from shoal.governor.ports import Sight, UserWishes
from shoal.homes.kubernetes.containers import ended, over, own, role, taken_away, with_losses
from shoal.homes.kubernetes.names import (
    DASK_PART,
    HEAD,
    OF_CLUSTER,
    POD_HASH,
    REPLICA_SET,
    RUNNER,
    SLOT,
    WORKER,
    Json,
)
from shoal.homes.kubernetes.objects import HeadReport, Spec, end_of, legible
from shoal.homes.kubernetes.refusals import END, Refusal
from shoal.homes.kubernetes.running import exit_of, script_seen
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.codec import plain
from shoal.model.report import Usage
from shoal.model.workload import Via
from shoal.words import count

_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
_NEVER_IMAGE = ("ErrImageNeverPull", "InvalidImageName")
# Between two tries a kubelet says the same in other words: what is before the cause.
_AROUND_CAUSE = re.compile(
    r"(Back-off pulling image \"[^\"]*\"|ErrImagePull|rpc error: code = \w+ desc = "
    r"|failed to pull and unpack image \"[^\"]*\"|failed to resolve (reference|image) \"[^\"]*\"|failed to do request)"
    r"(: )*"
)
_HEAD_ENDED, _HEAD_GONE = "its head's pod was ended", "its head's pod is gone: it was deleted, or its node is"
_OPERATOR = 15  # s that dask-kubernetes' operator may take until it is asked after
_PREEMPTION = re.compile(r"\.? *(no new claims to deallocate, *)?preemption: .*", re.DOTALL)


def cluster_of_pod(pod: Json) -> str | None:
    """The uid of the cluster that it is a part of; None where its label says so alone, which anybody may write.

    What dask-kubernetes' operator made for it is owned by a ReplicaSet.
    """
    metadata = pod["metadata"]
    labels = metadata.get("labels", {})
    uid = labels.get(OF_CLUSTER)
    if DASK_PART in labels and POD_HASH in labels:
        made = any(each.get("kind") == REPLICA_SET.name for each in metadata.get("ownerReferences", ()))
        return str(uid) if made and uid is not None else None
    owners = [each.get("uid") for each in metadata.get("ownerReferences", ())]
    return str(uid) if uid in owners and (role(pod) != WORKER or slot_of(pod) is not None) else None


def slot_of(pod: Json) -> int | None:
    """The number of a worker's pod in its cluster."""
    text = str(pod["metadata"].get("labels", {}).get(SLOT, ""))
    return int(text) if text.isascii() and text.isdigit() else None


def started_again(pod: Json) -> bool:
    """Whether Kubernetes started its head again: what the first one wrote is a log of its own."""
    return any(each.get("restartCount") for each in own(pod))


def going(pod: Json) -> bool:
    """Whether it was told to end."""
    return "deletionTimestamp" in pod["metadata"]


def goes_within(pod: Json, seconds: int) -> bool:
    """Whether it was told to end, and had no more time than that left for it."""
    its = pod["metadata"]
    return "deletionTimestamp" in its and its.get("deletionGracePeriodSeconds", seconds + 1) <= seconds


def sight(
    cluster: Cluster,
    pods: Collection[Json],
    report: HeadReport | None,
    pull: float,
    now: float,
    refused: Mapping[str, Refusal] | None = None,
) -> Sight:
    """What is seen of a cluster. ``pull``: seconds that an image may fail to be pulled; ``refused``: by role of a pod,
    why the API server does not take it, or its end."""
    refused = refused or {}
    found = _sight(cluster, pods, report, pull, now, refused)
    return replace(found, refused=refused[END].message) if END in refused else found


def _sight(
    cluster: Cluster,
    pods: Collection[Json],
    report: HeadReport | None,
    pull: float,
    now: float,
    refused: Mapping[str, Refusal],
) -> Sight:
    heads = [pod for pod in pods if role(pod) == HEAD]
    said = report or HeadReport()
    end = _its_end(said, heads)
    if not heads:
        began = cluster.state not in (State.QUEUED, State.ADMITTED)
        if not began and HEAD not in refused and cluster.plan.via is Via.OPERATOR:
            return Sight(Seen.NEVER, bool(pods), pulse=_unoperated(cluster, now))
        if began or HEAD not in refused:
            gone = End(Reason.HEAD_LOST, _HEAD_GONE) if began else None
            return Sight(Seen.GONE if began else Seen.NEVER, bool(pods), last=end or gone)
        no = refused[HEAD]
        return Sight(Seen.NEVER, bool(pods), pulse=Pulse(phase=Phase(State.ADMITTED, no.reason, no.message)))
    head = heads[0]
    if over(head):
        crash = _crash(head)
        if crash is not None and started_again(head) and end is not None and end.reason is Reason.HEAD_LOST:
            end = crash  # the next head knows only that it had one before
        return Sight(Seen.GONE, True, last=end or crash)
    if end is None and going(head):
        end = End(Reason.HEAD_LOST, f"{_HEAD_ENDED} ({taken_away(head) or 'deleted'})")
    runner = next((pod for pod in pods if role(pod) == RUNNER), None)
    phase = _phase(said)
    if (why := waits_for(head)) is not None:
        said_ = f"its head is waiting: {why}"
        if cluster.message.startswith(
            f"{said_}: "
        ):  # an older kubelet leaves the cause out between two tries
            said_ = cluster.message
        phase = Phase(State.STARTING, Reason.HEAD_STARTING, said_)
        if end is None and (failed := _no_image(head, now - cluster.since, pull)) is not None:
            end = End(Reason.IMAGE_PULL_FAILED, failed)
    elif phase is not None:
        again = phase.reason is Reason.WORKER_RESTARTED
        lost = with_losses(phase.message, cluster.message, pods, said.retired, goes_on=again)
        phase = phase._replace(message=lost)
        waiting = [why for pod in pods if role(pod) == WORKER and (why := waits_for(pod)) is not None]
        if waiting:
            wait = count(len(waiting), "worker")
            phase = phase._replace(message=f"{phase.message}; {wait} not started: {waiting[0]}"[:1000])
        if runner is not None and (why := waits_for(runner)) is not None:
            phase = phase._replace(message=f"{phase.message}; its script has not started: {why}"[:1000])
        for part in (WORKER, RUNNER, END):
            if part in refused:
                phase = phase._replace(message=f"{phase.message}; {refused[part].message}"[:1000])
        bad = [each for pod in pods if (each := _no_image(pod, now - cluster.since, pull)) is not None]
        if end is None and bad and phase.state is State.STARTING:
            end = End(Reason.IMAGE_PULL_FAILED, bad[0])
    elif cluster.state is State.ADMITTED and cluster.reason is not Reason.ADMITTED:
        phase = Phase(State.STARTING, Reason.HEAD_STARTING, "its head is starting")  # it was refused before
    seen = Seen.UNKNOWN if head.get("status", {}).get("phase") == "Unknown" else Seen.ALIVE
    script = script_seen(cluster, runner)
    return Sight(seen, True, pulse=Pulse(said=end, phase=phase), script=script, exit=exit_of(cluster, runner))


def wishes_for(found: Json, spec: Spec, cluster: Cluster, report: HeadReport | None) -> UserWishes:
    """What people, and its head, ask of a cluster."""
    stop = end_of(spec.stop)
    if "deletionTimestamp" in found["metadata"]:
        stop = stop or End(Reason.STOPPED_BY_USER, "its object was deleted")
    workers = spec.replicas
    if workers is None and report is not None and report.wants is not None:
        workers = max(1, min(report.wants, cluster.plan.groups[0].maximum))
    return UserWishes(stop, workers, spec.groups)


def seen_in(cluster: Cluster, pods: Collection[Json], surplus: int, report: HeadReport | None) -> Cluster:
    """The record with what its head says of workers and use, as far as that can be.

    ``surplus``: how many workers more than planned there are, in all groups that have too many.
    """
    if cluster.state not in (State.ADMITTED, State.STARTING, State.READY, State.STOPPING):
        return cluster
    for pod in pods:
        if role(pod) == RUNNER:
            cluster = replace(cluster, head={**cluster.head, RUNNER: pod["metadata"]["uid"]})
    if report is None:
        return cluster
    most = sum(group.maximum for group in cluster.plan.groups)
    workers = max(0, min(report.workers, most))
    if surplus:  # what is being retired still holds its share
        workers = max(workers, min(cluster.plan.workers + surplus, most))
    usage = replace(report.usage or Usage(), samples=(), exit_code=cluster.exit_code)
    kept = {key: its for key, its in plain(usage).items() if its is not None}
    return replace(cluster, workers=workers, report=kept, renewed_at=report.beat)


def nowhere(pod: Json) -> bool:
    """Whether no node takes it."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == "PodScheduled" and each["status"] == "False" for each in conditions)


def lost_since(pods: Iterable[Collection[Json]], before: Mapping[str, float], now: float) -> dict[str, float]:
    """Since when no node takes a pod, by uid and this process's own clock: a node's, or the server's, may be off."""
    lost = {pod["metadata"]["uid"] for its in pods for pod in its if nowhere(pod)}
    return {uid: before.get(uid, now) for uid in lost}


def waits_for(pod: Json) -> str | None:
    """Why a pod does not run yet, in a sentence; None where it does, or is just being started."""
    status = pod.get("status", {})
    if status.get("phase") not in (None, "Pending"):
        return None
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            why = _PREEMPTION.sub("", condition.get("message", "")) or condition.get("reason", "")
            return f"no node takes it: {why}"
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in _NO_IMAGE:
            return _unpulled(container)
        if waiting.get("reason") in ("CreateContainerConfigError", "CreateContainerError"):
            return f"{waiting['reason']}: {waiting.get('message', container['image'])}"
    return None


def _no_image(pod: Json, since: float, pull: float) -> str | None:
    for container in pod.get("status", {}).get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        failed = waiting.get("reason")
        if failed in _NEVER_IMAGE or (failed in _NO_IMAGE and since > pull):
            return _unpulled(container)
    return None


def _unpulled(container: Json) -> str:
    """The cause alone, in the same words at each try."""
    waiting, cause = container["state"]["waiting"], ""
    rest = str(waiting.get("message") or waiting["reason"])
    while cause != rest:
        cause, rest = rest, _AROUND_CAUSE.sub("", rest, count=1) if _AROUND_CAUSE.match(rest) else rest
    sentence = f"image {container['image']!r} cannot be pulled"
    return f"{sentence}: {cause}" if cause else sentence


def _phase(said: HeadReport) -> Phase | None:
    known = {state.value: state for state in (State.STARTING, State.READY)}
    if said.state not in known:
        return None
    return Phase(known[said.state], Reason(said.reason), legible(said.message))


def _unoperated(cluster: Cluster, now: float) -> Pulse | None:
    if now - (cluster.admitted_at or now) < _OPERATOR:
        return None
    where = cluster.head.get("namespace", "")
    said = (
        f"dask-kubernetes' operator made no pod of its head. It may not run, or not look at namespace {where}; "
        f"or the pod was refused (`kubectl describe replicasets --namespace {where}`)"
    )
    return Pulse(phase=Phase(State.ADMITTED, Reason.PLACE_REFUSED, said))


def _crash(head: Json) -> End | None:
    """How a head's container ended, where its own report does not say why."""
    if taken := taken_away(head):
        return End(Reason.HEAD_LOST, f"{_HEAD_ENDED} ({taken})")
    if (how := ended(head)) is None:
        return None
    name = head["metadata"]["labels"].get("app.kubernetes.io/instance", "")
    told = f"{how.get('reason', 'ended')}, exit code {how.get('exitCode')}"
    return End(Reason.HEAD_CRASHED, f"{Sentence.CRASHED.format(pid='', name=name)} ({told})")


def _its_end(report: HeadReport, heads: Collection[Json]) -> End | None:
    """Why a head ends, by its own words. A signal is not its user's: it comes from whoever ends the pod."""
    end = end_of(report.stop)
    if end is None or (end.reason, end.message) != (Reason.STOPPED_BY_USER, Sentence.SIGNALLED):
        return end
    taken = next((why for head in heads if (why := taken_away(head))), "deleted, or its node is shut down")
    return End(Reason.HEAD_LOST, f"{_HEAD_ENDED} ({taken})")
