"""All that a Kubernetes needs before clusters can be asked for, as objects: definitions, namespaces, accounts, rights.

Why it exists: one source for ``shoal render`` and for the tests. Rights are the least that each part needs: a user
makes no pods and reads no Secret but the one that lets in to their clusters; a head reads its record and writes its
report; workers may nothing.

What it must not do: speak to a server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from shoal.homes.kubernetes.definitions import definitions
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.names import (
    ACCESS,
    ACCOUNT,
    CLUSTER,
    GOVERNOR,
    GROUP,
    HEAD_ACCOUNT,
    REPORT,
    RUNNER_ACCOUNT,
    USER,
    account_of,
)
from shoal.project.loading import Project

Object = dict[str, Any]
_RBAC = "rbac.authorization.k8s.io"
Subject = Mapping[str, str]


def cluster_wide(system: str) -> list[Object]:
    """What there is once: our definitions, the governor's namespace and account, and its rights to look."""
    return [
        *definitions(),
        _namespace(system, {}),
        _named("v1", "ServiceAccount", GOVERNOR, system),
        _role(
            f"{system}-governor",
            None,
            [
                _rule([GROUP], [CLUSTER.plural, REPORT.plural], ["get", "list", "watch"]),
                _rule([""], ["pods", "namespaces"], ["get", "list", "watch"]),
            ],
        ),
        _binding(f"{system}-governor", None, [_account(GOVERNOR, system)]),
        _role(
            GOVERNOR,
            system,
            [
                _rule([GROUP], [ACCOUNT.plural], ["get", "list", "watch", "create"]),
                _rule([GROUP], [f"{ACCOUNT.plural}/status"], ["update"]),
                _rule(["coordination.k8s.io"], ["leases"], ["get", "create", "patch"]),
            ],
        ),
        _binding(GOVERNOR, system, [_account(GOVERNOR, system)]),
    ]


def of_user(
    user: str, namespace: str, subjects: Iterable[Subject], system: str, team: str | None = None
) -> list[Object]:
    """A user's namespace, and who may do what in it. ``subjects``: whom of Kubernetes' the user is."""
    people = list(subjects)
    accounts = [
        account_of("user", user),
        *([account_of("team", team)] if team else []),
        account_of("place", ""),
    ]
    return [
        _namespace(
            namespace,
            {USER: user, "pod-security.kubernetes.io/enforce": "restricted"},
        ),
        _named("v1", "Secret", ACCESS, namespace),
        _named("v1", "ServiceAccount", HEAD_ACCOUNT, namespace),
        _named("v1", "ServiceAccount", RUNNER_ACCOUNT, namespace),
        _role(
            "shoal-user",
            namespace,
            [
                _rule(
                    [GROUP],
                    [CLUSTER.plural, f"{CLUSTER.plural}/scale"],
                    ["create", "get", "list", "watch", "patch", "delete"],
                ),
                _rule([GROUP], [REPORT.plural], ["get", "list", "watch"]),
                _rule([""], ["secrets"], ["get"], [ACCESS]),
                _rule([""], ["namespaces"], ["get"]),  # their own: whose it is
                _rule([""], ["pods", "pods/log", "events", "resourcequotas"], ["get", "list", "watch"]),
                _rule([""], ["pods/portforward"], ["create", "get"]),
            ],
        ),
        _binding("shoal-user", namespace, people),
        # What is held of their limits, and whether somebody governs.
        _role(
            f"shoal-user-{namespace}",
            system,
            [
                _rule([GROUP], [ACCOUNT.plural], ["get"], accounts),
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
                _rule([""], ["pods", "services"], ["create", "delete"]),
                _rule([""], ["services", "pods/log"], ["get"]),
                _rule([""], ["secrets"], ["get", "patch"], [ACCESS]),
            ],
        ),
        _binding(GOVERNOR, namespace, [_account(GOVERNOR, system)]),
    ]


def _namespace(name: str, labels: Mapping[str, str]) -> Object:
    metadata: Object = {"name": name, "labels": {"app.kubernetes.io/managed-by": "shoal", **labels}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _named(version: str, kind: str, name: str, namespace: str) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}


def _metadata(name: str, namespace: str | None) -> Object:
    return {"name": name} | ({"namespace": namespace} if namespace else {})


def _role(name: str, namespace: str | None, rules: list[Object]) -> Object:
    kind = "Role" if namespace else "ClusterRole"
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": _metadata(name, namespace),
        "rules": rules,
    }


def _binding(name: str, namespace: str | None, subjects: list[Subject]) -> Object:
    kind = "Role" if namespace else "ClusterRole"
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": _metadata(name, namespace),
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": name},
        "subjects": [dict(subject) for subject in subjects],
    }


def _rule(
    groups: list[str], resources: list[str], verbs: list[str], names: list[str] | None = None
) -> Object:
    rule: Object = {"apiGroups": groups, "resources": resources, "verbs": verbs}
    return rule | ({"resourceNames": names} if names else {})


def _account(name: str, namespace: str) -> Subject:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def person(name: str) -> Subject:
    """A user as the API server knows them."""
    return {"kind": "User", "name": name, "apiGroup": _RBAC}


def rendered(project: Project, users: Iterable[str]) -> list[Object]:
    """All of it for a project's target, with a namespace for each user (``shoal-NAME``)."""
    system = Location.of(project.target).system
    found = cluster_wide(system)
    for user in users:
        team = project.policy.limits_of(user).team
        found += of_user(user, namespace_of(user), [person(user)], system, team)
    return found


def namespace_of(user: str) -> str:
    """The namespace of a user."""
    plain = re.sub("[^a-z0-9]+", "-", user.lower()).strip("-")
    return f"shoal-{plain}"[:63].strip("-")
