"""What is asked of dask-kubernetes' operator and ended again, on objects that are kept in memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from shoal.errors import NotFoundError, StaleRecordError
from shoal.homes.kubernetes import operating
from shoal.homes.kubernetes.errors import ObjectRefusedError
from shoal.homes.kubernetes.names import (
    DASK_CLUSTER,
    DASK_WORKERS,
    DEPLOYMENT,
    OF_CLUSTER,
    OF_GROUP,
    REPLICA_SET,
)
from shoal.homes.kubernetes.operating import Operated
from shoal.homes.kubernetes.pods import head_pod, worker_pod
from shoal.homes.kubernetes.tending import Slot
from shoal.model.cluster import Cluster
from shoal.model.workload import Via

from .test_kubernetes_objects import OWNER, record
from .test_kubernetes_operated import workers

PLAN = replace(record().plan, via=Via.OPERATOR)
CLUSTER = replace(record(), plan=PLAN)
AT = DASK_CLUSTER.path("shoal-alice", "nightly")
GROUP = DASK_WORKERS.path("shoal-alice", "nightly-default")


class Objects:
    """An API server's objects by path, as far as this asks for them."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {}
        self.asked: list[int] = []
        self._uids = count()

    def put(self, path: str, labels: dict[str, str] | None = None, **more: Any) -> None:
        name = path.rpartition("/")[2]
        metadata = {
            "name": name,
            "namespace": "shoal-alice",
            "uid": f"of {name} {next(self._uids)}",
            "labels": labels or {},
            **more,
        }
        self.there[path] = {"metadata": metadata}

    def get(self, path: str) -> dict[str, Any]:
        if path not in self.there:
            raise NotFoundError(f"{path} not found")
        return self.there[path]

    def list(self, path: str, labelSelector: str) -> tuple[list[dict[str, Any]], str]:
        key, one, value = labelSelector.partition("=")
        its = [each for at, each in self.there.items() if at.rpartition("/")[0] == path]
        labels = [(each, each["metadata"]["labels"].get(key)) for each in its]
        return [each for each, its in labels if (its == value if one else its is not None)], "1"

    def create(self, path: str, item: dict[str, Any]) -> None:
        at = f"{path}/{item['metadata']['name']}"
        if at in self.there:
            raise StaleRecordError("it is there")
        self.put(
            at,
            item["metadata"]["labels"],
            finalizers=["kopf.zalando.org/KopfFinalizerMarker", "theirs"],
            ownerReferences=item["metadata"]["ownerReferences"],
        )

    def patch(self, path: str, body: dict[str, Any]) -> None:
        its = self.get(path)
        if "spec" in body:
            self.asked.append(body["spec"]["worker"]["replicas"])
        its["metadata"] |= body.get("metadata", {})
        if its["metadata"].get("deleting") and not its["metadata"].get("finalizers"):
            del self.there[path]

    def delete(self, path: str, uid: str) -> None:
        its = self.get(path)
        assert its["metadata"]["uid"] == uid
        if its["metadata"].get("finalizers"):
            its["metadata"]["deleting"] = True
        else:
            del self.there[path]


@pytest.fixture
def place() -> tuple[Objects, Any, Operated]:
    objects = Objects()
    view = SimpleNamespace(pods={}, reports={}, released=set(), confirm=lambda uid: None)
    quotas = SimpleNamespace(wait_for=lambda namespace: None)
    return objects, view, Operated(objects, view, quotas)  # type: ignore[arg-type]


def start(operated: Operated, cluster: Cluster = CLUSTER) -> None:
    pods = [worker_pod(cluster, OWNER, Slot(0, group.name)) for group in cluster.plan.groups]
    operated.start(OWNER, cluster, head_pod(cluster, OWNER), pods)


def test_what_was_asked_for_and_made_is_ended_and_nothing_of_anybody_else(
    place: tuple[Objects, Any, Operated],
) -> None:
    objects, view, operated = place
    start(operated)
    ours = {OF_CLUSTER: "u-1"}
    objects.put(GROUP, ours)
    objects.put(DEPLOYMENT.path("shoal-alice", "nightly-scheduler"), ours)
    objects.put(REPLICA_SET.path("shoal-alice", "nightly-scheduler-67d4f"), ours)
    others = DEPLOYMENT.path("shoal-alice", "theirs"), DASK_WORKERS.path("shoal-alice", "theirs-default")
    for path in others:
        objects.put(path, {OF_CLUSTER: "u-2"})
    operated.release(OWNER, CLUSTER)
    assert set(objects.there) == {AT, *others}, (
        "it stays for as long as another finalizer than the operator's holds it"
    )
    assert objects.there[AT]["metadata"]["finalizers"] == ["theirs"]
    assert view.released == set()
    del objects.there[AT]
    operated.release(OWNER, CLUSTER)
    assert view.released == {"u-1"}


def test_a_persons_own_dask_cluster_of_that_name_stays_as_it_is(place: tuple[Objects, Any, Operated]) -> None:
    objects, _, operated = place
    objects.put(AT)
    objects.put(GROUP)
    before = dict(objects.there)
    with pytest.raises(ObjectRefusedError, match=r"somebody else's.*ask for a cluster of another name"):
        start(operated)
    operated.release(OWNER, CLUSTER)
    assert objects.there == before
    objects.put(AT, {OF_CLUSTER: "u-0"})
    with pytest.raises(StaleRecordError):  # an earlier cluster's goes by itself
        start(operated)


def test_what_was_asked_for_a_cluster_whose_object_is_gone_ends_though_no_operator_runs(
    place: tuple[Objects, Any, Operated],
) -> None:
    """Kubernetes deleted it, and waits for a finalizer of the operator; its pods would run on for good."""
    objects, _, operated = place
    start(operated)
    kopf = ["kopf.zalando.org/KopfFinalizerMarker"]
    objects.there[AT]["metadata"] |= {"finalizers": kopf, "deleting": True}
    ours, owned = {OF_CLUSTER: "u-1"}, objects.there[AT]["metadata"]["ownerReferences"]
    objects.put(GROUP, ours, finalizers=kopf, ownerReferences=owned, deleting=True)
    objects.put(DEPLOYMENT.path("shoal-alice", "nightly-scheduler"), ours)
    persons = DASK_CLUSTER.path("shoal-alice", "of-a-person")
    objects.put(persons, ours, finalizers=kopf)  # anybody may write a label
    before = dict(objects.there)

    def confirm(uid: str) -> None:
        raise StaleRecordError(f"{uid} is there")

    operated.reap("shoal-alice", {"u-1"}, confirm)
    with pytest.raises(StaleRecordError):
        operated.reap("shoal-alice", {"u-2"}, confirm)
    assert objects.there == before
    operated.reap("shoal-alice", {"u-2"}, lambda uid: None)
    assert set(objects.there) == {persons}
    assert objects.there[persons]["metadata"]["finalizers"] == kopf


def test_a_worker_that_is_lost_with_its_deployment_is_asked_for_again(
    place: tuple[Objects, Any, Operated], monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, view, operated = place
    now = [0.0]
    monkeypatch.setattr(operating.time, "monotonic", lambda: now[0])
    start(operated)
    operated.tend(OWNER, CLUSTER)
    assert objects.asked == [], "the operator has not made the group yet"
    objects.put(GROUP, {OF_CLUSTER: "u-1"})
    operated.tend(OWNER, CLUSTER)
    operated.tend(OWNER, CLUSTER)
    assert objects.asked == [3]
    view.pods = {"u-1": workers("a", "b")}
    for name in ("a", "b"):
        at = DEPLOYMENT.path("shoal-alice", f"nightly-default-worker-{name}")
        objects.put(at, {OF_CLUSTER: "u-1", OF_GROUP: "default"})
    operated.tend(OWNER, CLUSTER)
    assert objects.asked == [3], "it gets some time"
    now[0] = 60.0
    operated.tend(OWNER, CLUSTER)
    operated.tend(OWNER, CLUSTER)
    assert objects.asked == [3, 2, 3], "it acts on a change alone"
