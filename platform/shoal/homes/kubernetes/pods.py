"""The objects that a cluster is made of, as pure functions: its head's pod, its workers', and how they are reached.

Why it exists: what a pod may do and take is decided here, in one place, and is tested without a server. All pods fit
Pod Security's `restricted` profile.

What it must not do: import a client.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoal.homes.kubernetes.names import (
    ACCESS,
    CAPACITY,
    CONTAINERS,
    DASHBOARD_PORT,
    ENGINE_PORT,
    GROUP,
    HEAD,
    HEAD_ACCOUNT,
    OF_CLUSTER,
    OF_GROUP,
    ROLE,
    RUNNER,
    RUNNER_ACCOUNT,
    SLOT,
    STATUS_PORT,
    WORKER,
    Object,
    head_of,
    runner_of,
    worker_of,
)
from shoal.homes.kubernetes.objects import owned_by
from shoal.homes.kubernetes.tending import Slot
from shoal.machine.processes import MARK
from shoal.model.cluster import Cluster
from shoal.model.codec import plain
from shoal.model.workload import Group, Size
from shoal.quota.account import POD_SCRATCH

SCRATCH, PASS = "/scratch", "/etc/shoal/access"  # mounted in every pod of ours
_USER = 1000  # of the images
POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": _USER,
    "runAsGroup": _USER,
    "fsGroup": _USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_GRACE = 30  # s that a pod gets to end in good order
_LEAST_SCRATCH = f"{POD_SCRATCH // 2**30}Gi"
_LATE = 900  # s beyond its maximum lifetime, after which Kubernetes itself ends a pod, if nobody else did


@dataclass(frozen=True)
class Pass:
    """What lets in to one cluster: the secret of its servers, its certificate and its key (PEM)."""

    token: str
    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Pass()"

    def data(self, uid: str) -> dict[str, str]:
        """Its entries in the Secret of its namespace."""
        named = {"token": self.token, "crt": self.certificate, "key": self.key}
        return {f"{uid}.{name}": base64.b64encode(its.encode()).decode() for name, its in named.items()}

    @classmethod
    def of(cls, data: Mapping[str, str], uid: str) -> Pass | None:
        """From the entries of that Secret; None where it has none (any more)."""
        found = [data.get(f"{uid}.{name}") for name in ("token", "crt", "key")]
        return cls(*(base64.b64decode(its).decode() for its in found if its)) if all(found) else None


def head_pod(cluster: Cluster, owner: Object) -> Object:
    """The head's pod: the program that owns the cluster."""
    size = cluster.plan.head_there or cluster.plan.head
    command = ["python3", "-P", "-m", "shoal.head", cluster.id, cluster.plan.engine.value, "kubernetes"]
    ports = {"engine": ENGINE_PORT, "dashboard": DASHBOARD_PORT, "status": STATUS_PORT}
    container = _container(cluster, CONTAINERS[HEAD], command, size, {}, _LEAST_SCRATCH)
    container["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
    pod = _pod(cluster, owner, head_of(cluster.name), {ROLE: HEAD}, container, _LEAST_SCRATCH)
    # Its token lets its code read its own record and write its report, and nothing else.
    pod["spec"] |= {"serviceAccountName": HEAD_ACCOUNT, "automountServiceAccountToken": True}
    return pod


def worker_pod(cluster: Cluster, owner: Object, slot: Slot, left: float | None = None) -> Object:
    """The worker of this slot. ``left``: seconds that the cluster may still live (None: no limit)."""
    group = cluster.plan.group(slot.group)
    name = worker_of(cluster.name, slot.number)
    environment = {
        "SHOAL_SCHEDULER": _scheduler(cluster, owner),
        "SHOAL_WORKER_NAME": name,
        "SHOAL_WORKER_CORES": str(max(1, int(group.there.cores))),
        "SHOAL_WORKER_MEMORY": str(int(group.there.memory)),
        "SHOAL_WORKER_GPUS": str(group.gpus),
    }
    if len(cluster.plan.groups) > 1:
        environment["SHOAL_WORKER_GROUP"] = group.name
    command = ["python3", "-P", "-m", "shoal.engines.dask.worker"]
    scratch = str(int(group.scratch)) if group.scratch else _LEAST_SCRATCH
    container = _container(cluster, CONTAINERS[WORKER], command, group.there, environment, scratch, group)
    labels = {ROLE: WORKER, SLOT: str(slot.number), OF_GROUP: group.name, CAPACITY: slot.on.value}
    pod = _pod(cluster, owner, name, labels, container, scratch)
    if left is not None:
        pod["spec"]["activeDeadlineSeconds"] = max(1, math.ceil(left)) + _LATE
    return pod


def runner_pod(cluster: Cluster, owner: Object) -> Object:
    """The pod of its script, as large as the head's. It ends with the script, and never starts it again."""
    size = cluster.plan.head_there or cluster.plan.head
    environment = {
        "SHOAL_SCHEDULER": _scheduler(cluster, owner),
        "SHOAL_ATTACH": cluster.name,
        "SHOAL_RUN": json.dumps(plain(cluster.run)),
        "PYTHONUNBUFFERED": "1",
    }
    command = ["python3", "-P", "-m", "shoal.engines.dask.runner"]
    container = _container(cluster, CONTAINERS[RUNNER], command, size, environment, _LEAST_SCRATCH)
    container["env"].append(
        {"name": "SHOAL_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
    )
    pod = _pod(cluster, owner, runner_of(cluster.name), {ROLE: RUNNER}, container, _LEAST_SCRATCH)
    # Its token lets the script do with its user's clusters what they could, but make one.
    pod["spec"] |= {"serviceAccountName": RUNNER_ACCOUNT, "automountServiceAccountToken": True}
    return pod


def _scheduler(cluster: Cluster, owner: Object) -> str:
    return f"tls://{head_of(cluster.name)}.{owner['metadata']['namespace']}.svc:{ENGINE_PORT}"


def service(cluster: Cluster, owner: Object) -> Object:
    """By which name the head is reached inside of Kubernetes."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(cluster, owner, head_of(cluster.name), {}),
        "spec": {
            "selector": {OF_CLUSTER: cluster.id, ROLE: HEAD},
            "publishNotReadyAddresses": True,
            "ports": [
                {"name": "engine", "port": ENGINE_PORT, "targetPort": "engine"},
                {"name": "dashboard", "port": DASHBOARD_PORT, "targetPort": "dashboard"},
            ],
        },
    }


def _pod(
    cluster: Cluster, owner: Object, name: str, labels: Mapping[str, str], container: Object, scratch: str
) -> Object:
    entries = {"token": "token", "crt": "tls.crt", "key": "tls.key"}
    items = [{"key": f"{cluster.id}.{key}", "path": path} for key, path in entries.items()]
    spec: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": dict(POD_SECURITY),
        "containers": [container],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": scratch}},
            {"name": "access", "secret": {"secretName": ACCESS, "items": items, "defaultMode": 0o440}},
        ],
    }
    if (longest := cluster.plan.may_last) is not None:
        spec["activeDeadlineSeconds"] = math.ceil(longest) + _LATE
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(cluster, owner, name, labels),
        "spec": spec,
    }


def _container(
    cluster: Cluster,
    name: str,
    command: list[str],
    size: Size,
    environment: Mapping[str, str],
    scratch: str,
    group: Group | None = None,
) -> Object:
    amounts = {"cpu": f"{size.cores:g}", "memory": str(int(size.memory)), "ephemeral-storage": scratch}
    if group is not None and group.gpus:
        amounts["nvidia.com/gpu"] = str(group.gpus)
    set_: dict[str, str] = {
        MARK: cluster.id,
        "SHOAL_CLUSTER_NAME": cluster.name,
        "SHOAL_CERTIFICATE": PASS,
        "SHOAL_SCRATCH": SCRATCH,
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        **environment,
    }
    if cluster.plan.packages:  # a cache would take as much of the scratch folder once more
        set_ |= {"SHOAL_PACKAGES": "1", "PIP_NO_CACHE_DIR": "1"}
    variables: list[Object] = [{"name": key, "value": value} for key, value in set_.items()]
    variables += [
        {"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for key, path in (("SHOAL_POD_IP", "status.podIP"), ("SHOAL_NAMESPACE", "metadata.namespace"))
    ]
    return {
        "name": name,
        "image": cluster.plan.image,
        "imagePullPolicy": "IfNotPresent",
        "args": command,
        "env": variables,
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "securityContext": dict(CONTAINER_SECURITY),
        "volumeMounts": [
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "access", "mountPath": PASS, "readOnly": True},
        ],
    }


def _metadata(cluster: Cluster, owner: Object, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    ours = {
        "app.kubernetes.io/managed-by": "shoal",
        "app.kubernetes.io/instance": cluster.name,
        OF_CLUSTER: cluster.id,
        **labels,
    }
    return {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": ours,
        "annotations": {f"{GROUP}/owner": cluster.owner, f"{GROUP}/template": cluster.plan.template},
        "ownerReferences": [owned_by(owner)],
    }
