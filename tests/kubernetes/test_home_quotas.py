"""A namespace's quota on a real API server: what was admitted there may run, and no pod more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cluster.clusters import Cluster as Kubernetes
from lightkube.config.kubeconfig import KubeConfig

from shoal.client.clusters import open_project
from shoal.errors import ShoalError, StaleRecordError
from shoal.governor.actions import Scope
from shoal.homes.choose import open_home
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.names import (
    ADMISSION_BINDING,
    ADMITTED,
    BINDING,
    CLUSTER,
    POD,
    QUOTA,
    RBAC,
    ROLE,
    ROLE_OF,
    WORKER,
)
from shoal.homes.kubernetes.pods import CONTAINER_SECURITY, POD_SECURITY
from shoal.homes.kubernetes.quotas import Quotas
from shoal.model.cluster import Reason, State
from shoal.quota.account import Account, Amounts

from .simulated import Simulated, ask

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(180)]
Eventually = Callable[..., Any]
POD_KIND = {"apiVersion": "v1", "kind": "Pod"}


def test_nobody_runs_more_in_a_namespace_than_was_admitted_there(
    place: Simulated, kube_fleet: Kubernetes, eventually: Eventually
) -> None:
    """Not by pods of their own making either, whatever these say of themselves, and also while nobody governs."""
    roles = {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "patch"]}
    who = {"kind": "User", "name": "alice", "apiGroup": RBAC}
    to = {"apiGroup": RBAC, "kind": "Role", "name": "pods"}
    for kind, said in ((ROLE_OF, {"rules": [roles]}), (BINDING, {"subjects": [who], "roleRef": to})):
        made = {"apiVersion": kind.group_version, "kind": kind.name, "metadata": {"name": "pods"}}
        place.admin.create(kind.path(place.namespace), made | said)
    config = KubeConfig.from_file(kube_fleet.kubeconfig_of("alice")).get()
    assert config is not None
    alice, path = Api(config), QUOTA.path(place.namespace, ADMITTED)

    def refused(like: dict[str, Any] | None = None) -> str:
        amounts = {"cpu": "1m", "memory": "1M"}
        container = {"name": "main", "image": "none", "securityContext": CONTAINER_SECURITY}
        container["resources"] = {"requests": amounts, "limits": amounts}
        spec = {"containers": [container], "securityContext": POD_SECURITY}
        pod: dict[str, Any] = {"metadata": {"name": "mine"}, "spec": spec}
        if like is not None:
            labels, owners = like["metadata"]["labels"], like["metadata"]["ownerReferences"]
            pod = {
                "metadata": {"name": "mine", "labels": labels, "ownerReferences": owners},
                "spec": {name: its for name, its in like["spec"].items() if name != "nodeName"},
            }
        try:
            alice.patch(
                POD.path(place.namespace, "mine"), POD_KIND | pod, "apply", fieldManager="alice", dryRun="All"
            )
        except ShoalError as error:
            return error.message
        return ""

    def given() -> str:
        return str(place.admin.get(path)["spec"]["hard"]["pods"])

    place.govern()
    # What a pod says of itself is refused before its quota is asked: here the quota is.
    place.admin.delete(ADMISSION_BINDING.path(name=f"{place.system}-marks"))
    eventually(lambda: f"exceeded quota: {ADMITTED}, requested: " in refused(), 20, refused)
    home = open_home(open_project(place.project))
    cluster = ask(home, place.project, "one")
    eventually(lambda: home.get(cluster.id).state is State.READY, 60, "its own pods all come")
    assert given() == "2"
    home.scale(cluster.id, 2)
    eventually(lambda: home.get(cluster.id).workers == 2, 60, "so do those of more workers")

    def no_more() -> None:
        workers, _ = place.admin.list(POD.path(place.namespace), labelSelector=f"{ROLE}={WORKER}")
        for like in (None, workers[0]):
            assert f"exceeded quota: {ADMITTED}, requested: " in refused(like), refused(like)
            assert "limited: limits.cpu=" in refused(like) or "pods=3" in refused(like)

    no_more()
    place.admin.patch(path, {"spec": {"hard": {"pods": "50", "limits.memory": None}}})
    eventually(lambda: given() == "3", 30, "one that was edited gives again what was admitted")
    place.admin.delete(path)
    place.admin.delete(POD.path(place.namespace, "one-w-0"))
    place.admin.delete(POD.path(place.namespace, "one-w-1"))
    place.admin.patch(CLUSTER.path(place.namespace, "one"), {"metadata": {"labels": {"a": "b"}}})

    def whole_again() -> bool:
        pods, _ = place.admin.list(POD.path(place.namespace))
        there, _ = place.admin.list(QUOTA.path(place.namespace), fieldSelector=f"metadata.name={ADMITTED}")
        used = [each.get("status", {}).get("used", {}).get("pods") for each in there]
        return (len(pods), used) == (3, ["3"])

    eventually(whole_again, 60, "one that was deleted is there again")
    for program, thread in place.governors:
        program.stop()
        thread.join()
    no_more()
    place.govern()
    home.stop(cluster.id, Reason.STOPPED_BY_USER, "done")
    eventually(lambda: place.left() == [], 60, lambda: f"{place.left()} is left")
    assert given() == "0"
    alice.close()


def test_of_two_that_write_a_quota_one_fails(place: Simulated) -> None:
    """Also where there is none yet; and that pods were counted meanwhile fails nobody."""
    named = f"metadata.name={ADMITTED}"
    there = lambda: place.admin.list(QUOTA.path(place.namespace), fieldSelector=named)[0]  # noqa: E731
    first, second = (
        Quotas(place.governors_own(), place.system, there, lambda written: None) for _ in range(2)
    )
    one, other = Account({"a": Amounts(workers=2)}), Account({"b": Amounts(workers=3)})
    key, path = (Scope.QUOTA, place.namespace), QUOTA.path(place.namespace, ADMITTED)
    for version in (0, 1):
        for quotas in (first, second):
            seen = quotas.look().get(key, (Account(), 0))
            assert seen == ((one, 1) if version else (Account(), 0))
        place.admin.patch(f"{path}/status", {"status": {"used": {"pods": "1"}}}) if version else None
        assert first.write(place.namespace, one, version) == version + 1
        with pytest.raises(StaleRecordError):
            second.write(place.namespace, other, version)
        assert second.has(place.namespace)
    assert first.look() == {key: (one, 2)}
