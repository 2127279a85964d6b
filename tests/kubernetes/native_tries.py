"""Ways past limits in a user's namespace, each with the policy that refuses it: for a user who may do all with pods."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from shoal.homes.kubernetes.names import OF_CLUSTER, ROLE
from shoal.homes.kubernetes.pods import CONTAINER_SECURITY, POD_SECURITY

Json = dict[str, Any]
MERGE, STEPS = "application/merge-patch+json", "application/json-patch+json"
OWNER = {"apiVersion": "shoal.dev/v1alpha1", "kind": "Cluster", "name": "one", "uid": "u-1"}
DAY = 86_400


class Try(NamedTuple):
    """A request in a user's namespace, and the policy that refuses it with these words."""

    name: str
    policy: str
    says: str
    method: str
    path: str
    body: Any
    params: Mapping[str, Any] = MappingProxyType({})


def pod(name: str = "mine", metadata: Json | None = None, resources: Json | None = None, **spec: Any) -> Json:
    container = {"name": "main", "image": "none", "securityContext": dict(CONTAINER_SECURITY)}
    container["resources"] = resources or {"requests": {"cpu": "1m"}}
    fits = {"containers": [container], "securityContext": dict(POD_SECURITY)}
    metadata = {"name": name, **(metadata or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": fits | spec}


def makes(name: str, policy: str, says: str, body: Json) -> Try:
    return Try(f"make a pod with {name}", policy, says, "POST", "pods", body)


def changes(name: str, policy: str, says: str, body: Json | list[Json]) -> Try:
    return Try(f"change a pod: {name}", policy, says, "PATCH", "pods/there", body)


def ends(name: str, path: str, **more: Any) -> Try:
    # Where options are sent the server looks at no others, so it is told here that this is only tried.
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"], **more}
    return Try(f"end a pod {name}", "ends", "at most 120 s", "DELETE", path, options)


MARKS, STANDS = "is said by Shoal's governor alone", "tolerates the taints that shoal.yaml names"
COUNTS, KEEPS, SCHEDULER = "no quota counts other resources", "a finalizer keeps", "passes by the scheduler"
CRITICAL = "would end others as"
GPU = {"requests": {"amd.com/gpu": "1"}, "limits": {"amd.com/gpu": "1"}}
HUGE = {"hugepages-2Mi": "2Mi", "memory": "4Mi", "cpu": "1m"}
WHOLE = pod()
WHOLE["spec"]["resources"] = {"requests": HUGE, "limits": HUGE}
TARGET = {"apiVersion": "v1", "kind": "Node", "name": "node-0000"}
BINDING = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "waits"}, "target": TARGET}
DEBUGGER = {"name": "more", "image": "none", "securityContext": dict(CONTAINER_SECURITY)}
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "there"}}
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "mine"}}
TOKEN = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
TRIES = [
    makes(
        "a cluster's label",
        "marks",
        MARKS,
        pod(metadata={"labels": {OF_CLUSTER: "u-1"}}, activeDeadlineSeconds=DAY),
    ),
    makes("a role", "marks", MARKS, pod(metadata={"labels": {ROLE: "worker"}})),
    makes("an owner's annotation", "marks", MARKS, pod(metadata={"annotations": {"shoal.dev/owner": "bob"}})),
    makes("a cluster as owner", "marks", MARKS, pod(metadata={"ownerReferences": [OWNER]})),
    changes("another cluster's", "marks", MARKS, {"metadata": {"labels": {OF_CLUSTER: "u-2"}}}),
    changes("no cluster's any more", "marks", MARKS, {"metadata": {"labels": {OF_CLUSTER: None}}}),
    changes("a role more", "marks", MARKS, {"metadata": {"labels": {ROLE: "head"}}}),
    changes("of a cluster as owner", "marks", MARKS, {"metadata": {"ownerReferences": [OWNER]}}),
    makes("a node's name", "nodes", "a pod with a nodeName passes by", pod(nodeName=TARGET["name"])),
    makes("a toleration of everything", "nodes", STANDS, pod(tolerations=[{"operator": "Exists"}])),
    makes(
        "a toleration of control planes",
        "nodes",
        STANDS,
        pod(tolerations=[{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]),
    ),
    changes(
        "tolerates everything",
        "nodes",
        STANDS,
        [{"op": "add", "path": "/spec/tolerations/-", "value": {"operator": "Exists"}}],
    ),
    makes("a system's priority", "priority", CRITICAL, pod(priorityClassName="system-cluster-critical")),
    makes("a node's priority", "priority", CRITICAL, pod(priorityClassName="system-node-critical")),
    makes("another maker's GPU", "amounts", COUNTS, pod(resources=GPU)),
    makes("huge pages", "amounts", COUNTS, pod(resources={"requests": HUGE, "limits": HUGE})),
    makes(
        "a part of a GPU, to begin with",
        "amounts",
        COUNTS,
        pod(
            initContainers=[
                {
                    "name": "first",
                    "image": "none",
                    "securityContext": dict(CONTAINER_SECURITY),
                    "resources": {"limits": {"nvidia.com/mig-1g.5gb": "1"}},
                }
            ]
        ),
    ),
    makes("huge pages for the whole", "amounts", COUNTS, WHOLE),
    makes(
        "a claim of devices",
        "amounts",
        COUNTS,
        pod(resourceClaims=[{"name": "gpus", "resourceClaimName": "gpus"}]),
    ),
    makes("a finalizer", "ends", KEEPS, pod(metadata={"finalizers": ["example.com/stay"]})),
    changes("stays", "ends", KEEPS, {"metadata": {"finalizers": ["example.com/stay"]}}),
    makes("a day to end", "ends", "at most 120 s", pod(terminationGracePeriodSeconds=DAY)),
    ends("in months", "pods/there", gracePeriodSeconds=9_000_000),
    Try(
        "end a pod in months, said in the address",
        "ends",
        "at most 120 s",
        "DELETE",
        "pods/there",
        None,
        {"gracePeriodSeconds": 9_000_000},
    ),
    ends("and all others in months", "pods", gracePeriodSeconds=9_000_000),
    Try(
        "evict a pod in months",
        "ends",
        "at most 120 s",
        "POST",
        "pods/there/eviction",
        EVICTION | {"deleteOptions": {"gracePeriodSeconds": 9_000_000}},
    ),
    Try("bind a pod", "parts", SCHEDULER, "POST", "pods/waits/binding", BINDING),
    Try("bind a pod the old way", "parts", SCHEDULER, "POST", "bindings", BINDING),
    Try(
        "add a container that no quota counts",
        "parts",
        SCHEDULER,
        "PATCH",
        "pods/there/ephemeralcontainers",
        {"spec": {"ephemeralContainers": [DEBUGGER]}},
    ),
    Try(
        "call a pod done, so that no quota counts it",
        "parts",
        SCHEDULER,
        "PATCH",
        "pods/there/status",
        {"status": {"phase": "Succeeded"}},
    ),
    Try(
        "lead a name elsewhere",
        "access",
        "of type ExternalName",
        "POST",
        "services",
        SERVICE | {"spec": {"type": "ExternalName", "externalName": "example.com"}},
    ),
    Try(
        "take an address",
        "access",
        "externalIPs",
        "POST",
        "services",
        SERVICE | {"spec": {"ports": [{"port": 1}], "externalIPs": ["203.0.113.9"]}},
    ),
    Try(
        "a token for ten years",
        "access",
        "lives for at most 24 h",
        "POST",
        "serviceaccounts/default/token",
        TOKEN | {"spec": {"expirationSeconds": 3650 * DAY}},
    ),
]
