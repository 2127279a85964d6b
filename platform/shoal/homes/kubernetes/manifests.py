"""All that a Kubernetes needs before clusters can be asked for, as objects: definitions, namespaces, accounts, rights.

Why it exists: one source for ``shoal apply``, ``shoal render`` and the tests. Rights are the least that each part
needs: a user makes no pods and reads no Secret but the one that lets in to their clusters; a head reads its record and
writes its report; workers may nothing.

What it must not do: speak to a server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version

from shoal.homes.kubernetes import native_clusters, native_pods
from shoal.homes.kubernetes.applied import Applied, name_of, project_object
from shoal.homes.kubernetes.definitions import definitions
from shoal.homes.kubernetes.deployment import governor
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.names import (
    ACCESS,
    ACCOUNT,
    ADMISSION,
    ADMISSION_BINDING,
    ADMITTED,
    CLUSTER,
    DASK,
    DASK_CLUSTER,
    DASK_WORKERS,
    DEPLOYMENT,
    GOVERNOR,
    GROUP,
    HEAD_ACCOUNT,
    MANAGED,
    OF_PROJECT,
    OF_SYSTEM,
    PROJECT,
    QUOTA,
    RBAC,
    RECORD,
    RELEASE,
    REPLICA_SET,
    REPORT,
    RUNNER_ACCOUNT,
    USER,
    Object,
    account_of,
)
from shoal.homes.kubernetes.native import compiled
from shoal.homes.kubernetes.network import network_policies
from shoal.homes.kubernetes.quantities import spelled
from shoal.model.resource import Resource
from shoal.model.workload import Via
from shoal.project.loading import Project
from shoal.project.policy import Limits, Policy, Subject
from shoal.project.targets import Beside, Cloud, GovernorPod, Target
from shoal.project.yamlfile import Fault, raise_faults

Whom = Mapping[str, str]
RIGHTS = "shoal-user"  # the Role of a user in their namespace


def cluster_wide(system: str) -> list[Object]:
    """What there is once: our definitions, the governor's namespace and account, and its rights to look."""
    release = {RELEASE: version("shoal")}
    return [
        *(
            each | {"metadata": each["metadata"] | {"labels": {MANAGED: "shoal"} | release}}
            for each in definitions()
        ),
        _namespace(system, {}),
        _named("v1", "ServiceAccount", GOVERNOR, system),
        _role(
            f"{system}-governor",
            None,
            [
                _rule([GROUP], [CLUSTER.plural, REPORT.plural], ["get", "list", "watch"]),
                _rule([GROUP], [RECORD.plural], ["list"]),
                _rule([""], ["pods", "namespaces"], ["get", "list", "watch"]),
                _rule([""], ["resourcequotas"], ["get", "list", "watch"], [ADMITTED]),
                _rule(["coordination.k8s.io"], ["leases"], ["list"]),
                # Whether the network goes by policies, and whether somebody changed what was applied.
                _rule(["networking.k8s.io"], ["networkpolicies"], ["get", "list"]),
                _rule([""], ["resourcequotas"], ["list"]),
                _rule([RBAC], ["roles", "rolebindings"], ["list"]),
                _rule(
                    [ADMISSION.group_version.partition("/")[0]],
                    [ADMISSION.plural, ADMISSION_BINDING.plural],
                    ["list"],
                ),
            ],
        ),
        _binding(f"{system}-governor", None, [_account(GOVERNOR, system)]),
        _role(
            GOVERNOR,
            system,
            [
                _rule([GROUP], [ACCOUNT.plural], ["get", "list", "watch", "create"]),
                _rule([GROUP], [f"{ACCOUNT.plural}/status", f"{PROJECT.plural}/status"], ["update"]),
                _rule([GROUP], [PROJECT.plural], ["get", "list", "watch"]),
                _rule(["coordination.k8s.io"], ["leases"], ["get", "create", "patch"]),
            ],
        ),
        _binding(GOVERNOR, system, [_account(GOVERNOR, system)]),
    ]


def of_user(
    user: str,
    namespace: str,
    subjects: Iterable[Whom],
    system: str,
    team: str | None = None,
    via: Via = Via.PODS,
    notes: Whom | None = None,
) -> list[Object]:
    """A user's namespace, and who may do what in it. ``subjects``: whom of Kubernetes' the user is; ``notes``: what the
    namespace says of their limits."""
    people = list(subjects)
    accounts = [
        account_of("user", user),
        *([account_of("team", team)] if team else []),
        account_of("place", ""),
    ]
    return [
        _namespace(
            namespace,
            {USER: _label(user), OF_SYSTEM: system, "pod-security.kubernetes.io/enforce": "restricted"},
            {USER: user, **(notes or {})},
        ),
        _named("v1", "Secret", ACCESS, namespace),
        _named("v1", "ServiceAccount", HEAD_ACCOUNT, namespace),
        _named("v1", "ServiceAccount", RUNNER_ACCOUNT, namespace),
        _role(
            RIGHTS,
            namespace,
            [
                _rule(
                    [GROUP],
                    [CLUSTER.plural, f"{CLUSTER.plural}/scale"],
                    ["create", "get", "list", "watch", "patch", "delete"],
                ),
                _rule([GROUP], [REPORT.plural], ["get", "list", "watch"]),
                _rule([GROUP], [RECORD.plural], ["get", "list"]),
                _rule([""], ["secrets"], ["get"], [ACCESS]),
                _rule([""], ["namespaces"], ["get"]),  # their own: whose it is
                _rule([""], ["pods", "pods/log", "events", "resourcequotas"], ["get", "list", "watch"]),
                _rule([""], ["pods/portforward"], ["create", "get"]),
                _rule(
                    ["coordination.k8s.io"], ["leases"], ["create", "patch"]
                ),  # that they wait for a cluster
            ],
        ),
        _binding(RIGHTS, namespace, people),
        # What is held of their limits, and whether somebody governs.
        _role(
            f"shoal-user-{namespace}",
            system,
            [
                _rule([GROUP], [ACCOUNT.plural], ["get"], accounts),
                _rule([GROUP], [PROJECT.plural], ["get", "list"]),  # by what they are planned and admitted
                _rule(["coordination.k8s.io"], ["leases"], ["get"], [GOVERNOR]),
            ],
        ),
        _binding(f"shoal-user-{namespace}", system, people),
        _role(
            HEAD_ACCOUNT,
            namespace,
            [
                _rule([GROUP], [CLUSTER.plural], ["get", "list", "watch"]),
                _rule([GROUP], [REPORT.plural], ["get", "patch"]),
            ],
        ),
        _binding(HEAD_ACCOUNT, namespace, [_account(HEAD_ACCOUNT, namespace)]),
        # A script is its user's, and does with its cluster what they could: scale it, extend it, end it.
        _role(
            RUNNER_ACCOUNT,
            namespace,
            [
                _rule([GROUP], [CLUSTER.plural], ["get", "list", "watch", "patch"]),
                _rule([GROUP], [RECORD.plural], ["get", "list"]),
                _rule([""], ["namespaces"], ["get"]),
            ],
        ),
        _binding(RUNNER_ACCOUNT, namespace, [_account(RUNNER_ACCOUNT, namespace)]),
        _role(
            GOVERNOR,
            namespace,
            [
                _rule([GROUP], [CLUSTER.plural], ["delete"]),
                _rule([GROUP], [f"{CLUSTER.plural}/status"], ["update"]),
                _rule([GROUP], [REPORT.plural], ["create", "delete"]),
                _rule([GROUP], [RECORD.plural], ["create", "patch", "delete"]),
                _rule([""], ["pods", "services"], ["create", "delete"]),
                _rule([""], ["services", "pods/log"], ["get"]),
                _rule([""], ["secrets"], ["get", "patch"], [ACCESS]),
                _rule([""], ["resourcequotas"], ["create", "patch", "update"], [ADMITTED]),
                *(_BY_OPERATOR if via is Via.OPERATOR else ()),
            ],
        ),
        _binding(GOVERNOR, namespace, [_account(GOVERNOR, system)]),
    ]


def _label(name: str) -> str:
    """As much of a name as a label takes; the annotation has it in full."""
    return re.sub("[^A-Za-z0-9_.-]+", "_", name)[:63].strip("-_.")


def _namespace(name: str, labels: Mapping[str, str], notes: Mapping[str, str] | None = None) -> Object:
    metadata: Object = {"name": name, "labels": {MANAGED: "shoal", **labels}}
    if notes:
        metadata["annotations"] = dict(notes)
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _named(version: str, kind: str, name: str, namespace: str) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}


def _metadata(name: str, namespace: str | None) -> Object:
    return {"name": name} | ({"namespace": namespace} if namespace else {})


def _role(name: str, namespace: str | None, rules: list[Object]) -> Object:
    kind = "Role" if namespace else "ClusterRole"
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": kind,
        "metadata": _metadata(name, namespace),
        "rules": rules,
    }


def _binding(name: str, namespace: str | None, subjects: list[Whom]) -> Object:
    kind = "Role" if namespace else "ClusterRole"
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": _metadata(name, namespace),
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
        "subjects": [dict(subject) for subject in subjects],
    }


def _rule(
    groups: list[str], resources: list[str], verbs: list[str], names: list[str] | None = None
) -> Object:
    rule: Object = {"apiGroups": groups, "resources": resources, "verbs": verbs}
    return rule | ({"resourceNames": names} if names else {})


def _account(name: str, namespace: str) -> Whom:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def person(name: str) -> Whom:
    """A user as the API server knows them."""
    return {"kind": "User", "name": name, "apiGroup": RBAC}


def whom(user: str, subjects: Iterable[Subject]) -> list[Whom]:
    """Whom of Kubernetes' a user of the policies is; without subjects, the one of that name."""
    found: list[Whom] = []
    for each in subjects:
        if each.service_account is not None:
            namespace, _, name = each.service_account.partition("/")
            found.append(_account(name, namespace))
        elif each.group is not None:
            found.append({"kind": "Group", "name": each.group, "apiGroup": RBAC})
        else:
            found.append(person(each.user or user))
    return found or [person(user)]


def quota(limits: Limits, namespace: str, beside: Beside | None = None) -> Object:
    """The most that a user's pods may take, whoever made them: the policy's totals, a head and a runner per cluster,
    and what pods of no cluster may take."""
    clusters, other = int(limits.totals[Resource.CLUSTERS].value), beside or Beside()
    heads = 2 * clusters
    pods = heads + clusters * int(limits.per_cluster[Resource.WORKERS].value) + other.pods
    taken = limits.totals[Resource.MEMORY].value + heads * limits.per_cluster[Resource.HEAD].value
    memory = spelled(taken + other.memory)
    hard = {"pods": spelled(pods), "requests.memory": memory, "limits.memory": memory}
    hard |= {"services.nodeports": "0", "services.loadbalancers": "0"}
    if (gpus := limits.totals.get(Resource.GPUS)) is not None:
        hard["requests.nvidia.com/gpu"] = spelled(gpus.value)
    metadata = {"name": "shoal", "namespace": namespace}
    return {
        "apiVersion": QUOTA.group_version,
        "kind": QUOTA.name,
        "metadata": metadata,
        "spec": {"hard": hard},
    }


def held(target: Target) -> list[Object]:
    """What the API server itself refuses in users' namespaces."""
    system = Location.of(target).system
    cloud = target.kubernetes or Cloud()
    return compiled(system, [*native_pods.concerns(system, cloud), *native_clusters.concerns(system, cloud)])


def of_project(project: Project, users: Iterable[str] | None = None) -> list[Object]:
    """What a project puts on the server, and takes away again: itself, and its users' namespaces with their rights.

    ``users``: these alone (None: all that its policies name). A project without policies of its own has no users, and
    brings no governor.

    Raises:
        ConfigError: two users would have one namespace; the governor's image is not known.
    """
    system, name = Location.of(project.target).system, name_of(project)
    applied, cloud = Applied.of(project), project.target.kubernetes or Cloud()
    found: list[Object] = [
        _marked(project_object(name, system, applied), name, system),
        *limiting(name, system, applied, project.policy, users),
    ]
    if applied.policies is not None and cloud.governor.deployed:
        found.append(_marked(governor(project.target), name, system))
    return found


def limiting(
    name: str,
    system: str,
    applied: Applied,
    policy: Policy | None = None,
    users: Iterable[str] | None = None,
) -> list[Object]:
    """All of a project but itself and who governs: what holds its limits, and users' namespaces with their rights.

    ``policy``: what it has (None: what was applied); ``users``: as in :func:`of_project`.

    Raises:
        ConfigError: two users would have one namespace.
    """
    ours = applied.policies
    policy = policy or (ours.policy if ours is not None else Policy({}))
    said = applied.kubernetes or Cloud()
    cloud = said.model_copy(update={"system": system, "governor": GovernorPod(deployed=applied.deployed)})
    target = applied.there.model_copy(update={"kubernetes": cloud})
    found: list[Object] = held(target) if ours is not None else []
    named = tuple(policy.users if ours is not None else ()) if users is None else tuple(users)
    _refuse_one_namespace_for_two(policy, named)
    for user in named:
        limits, its = policy.limits_of(user), policy.user(user)
        namespace = namespace_of(user)
        subjects = its.subjects if user in policy.users else ()
        notes = native_clusters.notes(limits)
        found += of_user(user, namespace, whom(user, subjects), system, limits.team, cloud.via, notes)
        found.append(quota(limits, namespace, cloud.beside))
        found += network_policies(namespace, system, cloud, applied.addresses, subjects)
    return [_marked(each, name, system) for each in found]


def rendered(project: Project, users: Iterable[str] | None = None) -> list[Object]:
    """All that a project's target needs before clusters can be asked for."""
    return [*cluster_wide(Location.of(project.target).system), *of_project(project, users)]


def _marked(each: Object, project: str, system: str) -> Object:
    metadata = each["metadata"]
    labels = {MANAGED: "shoal", OF_PROJECT: project, OF_SYSTEM: system} | metadata.get("labels", {})
    return each | {"metadata": metadata | {"labels": labels}}


def _refuse_one_namespace_for_two(policy: Policy, users: Iterable[str]) -> None:
    faults, taken = [], dict[str, str]()
    for user in users:
        if (other := taken.setdefault(namespace_of(user), user)) != user:
            file, _, line = policy.where.get(f"users.{user}", "policies/users.yaml:1").rpartition(":")
            wrong = f"would have the namespace of {other!r} ({namespace_of(user)})"
            faults.append(
                Fault(file, int(line), user, wrong, "give one of them another name, with `subjects:`")
            )
    raise_faults(faults)


# What the governor asks of dask-kubernetes' operator, and that it ends what that made.
_BY_OPERATOR = (
    _rule([DASK], [DASK_CLUSTER.plural, DASK_WORKERS.plural], ["create", "get", "list", "patch", "delete"]),
    _rule(["apps"], [DEPLOYMENT.plural, REPLICA_SET.plural], ["list", "delete"]),
)


def namespace_of(user: str) -> str:
    """The namespace of a user."""
    plain = re.sub("[^a-z0-9]+", "-", user.lower()).strip("-")
    return f"shoal-{plain}"[:63].strip("-")
