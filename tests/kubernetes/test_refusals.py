"""A limit counts when a real API server refused: quota, policy and RBAC, for a user without other rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster import waiting
from cluster.api import Api, ApiError
from cluster.clusters import Cluster
from cluster.namespaces import Namespace

pytestmark = pytest.mark.kubernetes
_RBAC = "rbac.authorization.k8s.io"


def _pod(name: str, cpu: str = "1") -> dict[str, Any]:
    container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": cpu}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container]},
    }


@pytest.fixture
def alice(kube_fleet: Cluster, fleet_namespace: Namespace) -> Iterator[Api]:
    """alice, who may do everything with pods in this test's namespace, and nothing else."""
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}]
    fleet_namespace.create(
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": {"name": "pods"}, "rules": rules}
    )
    binding = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "alice"},
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": "pods"},
        "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": "alice"}],
    }
    fleet_namespace.create(binding)
    user = kube_fleet.user("alice")
    pods = fleet_namespace.path("pods")

    def may() -> bool:
        try:
            return user.items(pods) == []
        except ApiError:
            return False  # the authorizer follows the binding a moment later

    waiting.until("alice's rights are in force", may, seconds=10)
    yield user
    user.close()


def test_rbac_refuses_alice_outside_her_namespace(alice: Api, kube_fleet: Cluster) -> None:
    with pytest.raises(ApiError, match='User "alice" cannot create resource "pods"') as refused:
        alice.create(_pod("elsewhere"))
    assert (refused.value.status, refused.value.reason) == (403, "Forbidden")
    bob = kube_fleet.user("bob")
    with pytest.raises(ApiError, match='User "bob" cannot list'):
        bob.items("/api/v1/pods")
    bob.close()


def test_rbac_refuses_alice_other_kinds(alice: Api, fleet_namespace: Namespace) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "more"},
        "spec": {"hard": {"pods": "9"}},
    }
    with pytest.raises(ApiError, match=r"cannot (list|create) resource") as refused:
        alice.create(fleet_namespace.here(quota))
    assert refused.value.status == 403


def test_a_quota_refuses_what_exceeds_it(alice: Api, fleet_namespace: Namespace) -> None:
    hard = {"pods": "2", "requests.cpu": "3"}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "limit"},
        "spec": {"hard": hard},
    }
    fleet_namespace.create(quota)
    path = fleet_namespace.path("resourcequotas", "limit")
    waiting.until(
        "the quota is counted", lambda: fleet_namespace.admin.get(path)["status"].get("used"), seconds=20
    )
    fleet_namespace.create(_pod("first", "2"), alice)
    with pytest.raises(
        ApiError, match=r"exceeded quota: limit, requested: requests.cpu=2, used: requests.cpu=2"
    ):
        fleet_namespace.create(_pod("too-big", "2"), alice)
    fleet_namespace.create(_pod("second", "1"), alice)
    with pytest.raises(ApiError, match=r"exceeded quota: limit, requested: pods=1") as refused:
        fleet_namespace.create(_pod("third", "0"), alice)
    assert (refused.value.status, refused.value.reason) == (403, "Forbidden")
    assert {pod["metadata"]["name"] for pod in fleet_namespace.pods()} == {"first", "second"}


def test_an_admission_policy_refuses_with_our_own_sentence(
    alice: Api, fleet_namespace: Namespace, kube_fleet: Cluster
) -> None:
    group, name = "admissionregistration.k8s.io/v1", f"{fleet_namespace.name}-tight"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    limit = "int(namespaceObject.metadata.annotations['shoal.test/slots'])"
    validation = {
        "expression": f"int(object.metadata.name.substring(2)) < {limit}",
        "messageExpression": f"'slot ' + object.metadata.name + ' is beyond your ' + string({limit})",
        "reason": "Forbidden",
    }
    policy = {
        "apiVersion": group,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": rules}, "validations": [validation]},
    }
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": fleet_namespace.name}}}
    binding = {
        "apiVersion": group,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": here},
    }
    admin = fleet_namespace.admin
    admin.patch(
        f"/api/v1/namespaces/{fleet_namespace.name}", {"metadata": {"annotations": {"shoal.test/slots": "2"}}}
    )
    admin.apply(policy)
    admin.apply(binding)
    try:

        def refusal() -> str:
            try:
                alice.create(fleet_namespace.here(_pod("s-2")), dryRun="All")
            except ApiError as refused:
                return f"{refused.status} {refused.reason}: {refused.message}"
            return ""  # policies are compiled a moment after they are written

        said = waiting.until("the policy refuses", refusal, seconds=20)
        assert said.startswith("403 Forbidden")
        assert "slot s-2 is beyond your 2" in said
        fleet_namespace.create(_pod("s-1"), alice)
    finally:
        admin.delete(admin.path_of(binding))
        admin.delete(admin.path_of(policy))
