"""A Dask cluster by dask-kubernetes' operator: the objects that it makes pods of, and how many workers these have.

Why it exists: teams that run the operator see our clusters among their DaskClusters. The pods are the same as ours;
they are made by the operator's Deployments, so they have names of its own and start again by themselves. That no more
of them run than were admitted is held by the operator, and by the quota of the namespace.

What it must not do: import a client, or decide how many workers there are to be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from shoal.homes.kubernetes.containers import over, role
from shoal.homes.kubernetes.names import (
    CAPACITY,
    DASHBOARD_PORT,
    DASK_CLUSTER,
    DASK_PART,
    DASK_WORKERS,
    ENGINE_PORT,
    OF_GROUP,
    POD_HASH,
    REPLICA_SET,
    ROLE,
    SLOT,
    WORKER,
    Json,
    Object,
)
from shoal.homes.kubernetes.objects import HeadReport, owned_by
from shoal.homes.kubernetes.sight import going
from shoal.homes.kubernetes.tending import group_of
from shoal.model.workload import Group, Plan

# A Deployment's pods have no deadline, and start again.
_NOT_THERE = ("restartPolicy", "activeDeadlineSeconds")
_PARTS = (ROLE, SLOT, OF_GROUP, CAPACITY)


@dataclass(frozen=True)
class Operation:
    """What a cluster's workers need: Deployments to delete; by group, how many replicas are to be asked for, where that
    can be said now; and the groups that have fewer.
    """

    end: tuple[str, ...] = ()
    replicas: Mapping[str, int] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()


def dask_cluster(owner: Object, plan: Plan, head: Object, worker: Object) -> Object:
    """The cluster with the workers of its first group. ``head``, ``worker``: their pods, as we would make them."""
    metadata, name = head["metadata"], owner["metadata"]["name"]
    ports = {"tcp-comm": ("engine", ENGINE_PORT), "http-dashboard": ("dashboard", DASHBOARD_PORT)}
    service = {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": name, DASK_PART: "scheduler"},
        # By name: the operator's schema takes no number there.
        "ports": [{"name": its, "port": port, "targetPort": to} for its, (to, port) in ports.items()],
    }
    return {
        "apiVersion": DASK_CLUSTER.group_version,
        "kind": DASK_CLUSTER.name,
        "metadata": _metadata(name, owner, metadata),
        "spec": {
            "scheduler": {**_template(head), "service": service},
            "worker": {"replicas": plan.groups[0].count, **_template(worker)},
        },
    }


def dask_workers(owner: Object, plan: Plan, group: Group, worker: Object) -> Object:
    """The workers of another group than the first."""
    name = owner["metadata"]["name"]
    return {
        "apiVersion": DASK_WORKERS.group_version,
        "kind": DASK_WORKERS.name,
        "metadata": _metadata(workers_of(owner, plan)[group.name], owner, worker["metadata"]),
        "spec": {"cluster": name, "worker": {"replicas": group.count, **_template(worker)}},
    }


def workers_of(owner: Object, plan: Plan) -> dict[str, str]:
    """By group, the name of its DaskWorkerGroup."""
    first, name = plan.groups[0].name, owner["metadata"]["name"]
    # The operator calls the first one so, whatever its name is here.
    return {
        its.name: f"{name}-default"
        if its.name == first
        else f"{name}-{its.name}{'-group' if its.name == 'default' else ''}"
        for its in plan.groups
    }


def operate(plan: Plan, pods: Collection[Json], report: HeadReport | None) -> Operation:
    """What to do so that each group comes to as many workers as the plan has.

    The operator would choose whom to end by asking the scheduler, which speaks to nobody without its certificate. So
    fewer are asked of it only when those that the head has retired are gone: it has nobody to choose then.
    """
    end: list[str] = []
    replicas: dict[str, int] = {}
    missing: set[str] = set()
    for group in plan.groups:
        its = [
            pod
            for pod in pods
            if role(pod) == WORKER and group_of(pod, plan) == group.name and not over(pod) and not going(pod)
        ]
        more = len(its) - group.count
        if more < 0:
            missing.add(group.name)
        if more <= 0:
            replicas[group.name] = group.count
        elif report is not None:
            told = [pod for pod in its if pod["metadata"]["name"] in report.retired]
            end += [name for pod in told[:more] if (name := deployment_of(pod))]
    return Operation(tuple(end), replicas, frozenset(missing))


def deployment_of(pod: Json) -> str:
    """The Deployment that made a pod; empty where none did. The ReplicaSet between tells: a pod's own name is cut."""
    metadata = pod["metadata"]
    mark = f"-{metadata['labels'].get(POD_HASH)}"
    for each in metadata.get("ownerReferences", ()):
        if each.get("kind") == REPLICA_SET.name and str(each.get("name", "")).endswith(mark):
            return str(each["name"]).removesuffix(mark)
    return ""


def _metadata(name: str, owner: Object, of_pod: Json) -> Object:
    # The operator gives these to all that it makes; what differs from part to part is said there.
    kept = ("labels", "annotations")
    shared = {key: {k: v for k, v in of_pod[key].items() if k not in _PARTS} for key in kept}
    namespace = owner["metadata"]["namespace"]
    return {"name": name, "namespace": namespace, **shared, "ownerReferences": [owned_by(owner)]}


def _template(pod: Object) -> Object:
    labels = {key: its for key, its in pod["metadata"]["labels"].items() if key != SLOT}
    spec = {key: its for key, its in pod["spec"].items() if key not in _NOT_THERE}
    (container,) = spec["containers"]
    named = {"name": "SHOAL_WORKER_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    variables = [named if each["name"] == named["name"] else each for each in container["env"]]
    return {
        "metadata": {"labels": labels, "annotations": pod["metadata"]["annotations"]},
        "spec": spec | {"containers": [container | {"env": variables}]},
    }
