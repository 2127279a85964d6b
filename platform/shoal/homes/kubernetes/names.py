"""What things are called on Kubernetes: the group and its kinds, labels, and the names of a cluster's objects.

Why it exists: names are what is dear to change once clusters run, so each stands in one place.

What it must not do: import a client.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]  # as the API server has it, to be written
Json = Mapping[str, Any]  # the same, to be read

GROUP = "shoal.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


@dataclass(frozen=True)
class Kind:
    """A kind of object: what it is called, in the plural, and where the API server has it ("" for the core)."""

    name: str
    plural: str
    group_version: str = "v1"
    short: str = ""

    def path(self, namespace: str | None = None, name: str = "", sub: str = "") -> str:
        """Its path: of all, of those in a namespace, or of one (``sub``: its subresource)."""
        root = f"/apis/{self.group_version}" if "/" in self.group_version else f"/api/{self.group_version}"
        parts = [root, *(["namespaces", namespace] if namespace else []), self.plural, name, sub]
        return "/".join(part for part in parts if part)


# `clusters` would collide with Cluster API and CloudNativePG in `kubectl get clusters`.
CLUSTER = Kind("Cluster", "shoalclusters", API_VERSION, "shc")
ACCOUNT = Kind("Account", "shoalaccounts", API_VERSION, "sha")
REPORT = Kind("Report", "shoalreports", API_VERSION, "shr")
PROJECT = Kind("Project", "shoalprojects", API_VERSION, "shp")
RECORD = Kind("Record", "shoalrecords", API_VERSION, "shrec")
OURS = (CLUSTER, ACCOUNT, REPORT, PROJECT, RECORD)

POD = Kind("Pod", "pods")
SECRET = Kind("Secret", "secrets")
SERVICE = Kind("Service", "services")
NAMESPACE = Kind("Namespace", "namespaces")
LEASE = Kind("Lease", "leases", "coordination.k8s.io/v1")
SERVICE_ACCOUNT = Kind("ServiceAccount", "serviceaccounts")
QUOTA = Kind("ResourceQuota", "resourcequotas")
NETWORK = Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io/v1")
RBAC = "rbac.authorization.k8s.io"
CLUSTER_ROLE = Kind("ClusterRole", "clusterroles", f"{RBAC}/v1")
CLUSTER_BINDING = Kind("ClusterRoleBinding", "clusterrolebindings", f"{RBAC}/v1")
ROLE_OF = Kind("Role", "roles", f"{RBAC}/v1")
BINDING = Kind("RoleBinding", "rolebindings", f"{RBAC}/v1")
DEPLOYMENT = Kind("Deployment", "deployments", "apps/v1")
REPLICA_SET = Kind("ReplicaSet", "replicasets", "apps/v1")
DEFINITION = Kind("CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io/v1")
_ADMISSION = "admissionregistration.k8s.io/v1"
ADMISSION = Kind("ValidatingAdmissionPolicy", "validatingadmissionpolicies", _ADMISSION)
ADMISSION_BINDING = Kind("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", _ADMISSION)

# dask-kubernetes', where its operator makes the pods. It marks them by labels of its own.
DASK = "kubernetes.dask.org"
DASK_CLUSTER = Kind("DaskCluster", "daskclusters", f"{DASK}/v1")
DASK_WORKERS = Kind("DaskWorkerGroup", "daskworkergroups", f"{DASK}/v1")
DASK_PART, POD_HASH = "dask.org/component", "pod-template-hash"

# Labels. The cluster's uid marks all that is its own; a pod's role says which part it is.
OF_CLUSTER = f"{GROUP}/cluster"
ROLE = f"{GROUP}/role"
SLOT = f"{GROUP}/slot"
ASKED_AS = f"{GROUP}/asked-as"
OF_GROUP = f"{GROUP}/group"  # on a worker's pod: its group of workers
CAPACITY = f"{GROUP}/capacity"  # on a worker's pod: on what machine it is to be
NAMED = f"{GROUP}/name"  # on a record: the cluster's name
OVER = f"{GROUP}/over"  # on a record: whether its cluster has ended
USER = f"{GROUP}/user"  # on a namespace: whose it is (the annotation says it in full, the label as far as one can)
OF_PROJECT = f"{GROUP}/project"  # on what a project put on the server: which one
OF_SYSTEM = f"{GROUP}/system"  # and in which governor's namespace that is
MANAGED = "app.kubernetes.io/managed-by"
RELEASE = "app.kubernetes.io/version"  # on our definitions: which Shoal they are of
HEAD, WORKER, RUNNER = "head", "worker", "runner"
CONTAINERS = {HEAD: "head", WORKER: "worker", RUNNER: "script"}  # by role: ours in its pod

ADMITTED = "shoal-admitted"  # the ResourceQuota of a namespace that follows what is admitted there
# NetworkPolicies of a namespace: of all pods, of those that ask the API server, and who reaches heads.
REACHES_OWN, REACHES_API, HEADS_REACHED = "shoal", "shoal-api", "shoal-heads"
ISOLATION = f"policies.{GROUP}/network"  # on the governor's Lease: whether the network goes by them
ACCESS = "shoal-access"  # the Secret of a namespace: one key per cluster
HEAD_ACCOUNT = "shoal-head"  # the service account of heads
RUNNER_ACCOUNT = "shoal-runner"  # of scripts that run beside their clusters
SYSTEM = "shoal-system"  # where accounts are, and the governor
GOVERNOR = "shoal-governor"

ENGINE_PORT, DASHBOARD_PORT, STATUS_PORT = 8786, 8787, 8788


def head_of(cluster: str) -> str:
    """The head's pod and its Service."""
    return f"{cluster}-head"


def worker_of(cluster: str, slot: int) -> str:
    """A worker's pod. A name exists once, so a slot is never taken twice."""
    return f"{cluster}-w-{slot}"


def runner_of(cluster: str) -> str:
    """The pod of the script that runs beside the cluster."""
    return f"{cluster}-run"


def account_of(scope: str, holder: str) -> str:
    """The object of an account: readable where it can be, unique by a hash (users may have any name)."""
    plain = re.sub("[^a-z0-9]+", "-", holder.lower()).strip("-")[:30].strip("-")
    mark = hashlib.sha256(f"{scope}/{holder}".encode()).hexdigest()[:10]
    return "-".join(part for part in (scope, plain, mark) if part)
