"""A governor's view of its place: only what changed is looked at again, and all of it now and then."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from shoal.errors import NotFoundError, StaleRecordError
from shoal.homes.kubernetes import view as module
from shoal.homes.kubernetes.clock import ServerClock
from shoal.homes.kubernetes.in_force import InForce
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.names import CLUSTER, HEAD, OF_CLUSTER, POD, ROLE, WORKER, Object
from shoal.homes.kubernetes.objects import Spec, Status, asked, owned_by
from shoal.homes.kubernetes.refusals import Refusals
from shoal.homes.kubernetes.structure import written
from shoal.homes.kubernetes.view import View
from shoal.homes.kubernetes.watched import Watched
from shoal.model.cluster import Reason, State
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.units import Bytes, Seconds

SIZE = Size(1, Bytes(10**9))
GROUP = Group("default", 1, 1, 3, SIZE, SIZE)
PLAN = Plan(
    "small", Engine.DASK, "shoal-dask", SIZE, (GROUP,), Timeouts(Seconds(60), Seconds(60), Seconds(600))
)


@dataclass
class Server:
    """Objects as the API server has them, by path."""

    objects: dict[str, Object] = field(default_factory=dict)
    clock: ServerClock = field(default_factory=ServerClock)

    def get(self, path: str) -> Object:
        if path not in self.objects:
            raise NotFoundError(path)
        return self.objects[path]

    def list(self, path: str, **params: str) -> tuple[list[Object], str]:
        uid = params["labelSelector"].partition("=")[2]
        pods = [each for each in self.objects.values() if OF_CLUSTER in each["metadata"].get("labels", {})]
        return [each for each in pods if each["metadata"]["labels"][OF_CLUSTER] == uid], ""

    def pages(self, path: str) -> list[tuple[list[Object], str]]:
        return [([each for each in self.objects.values() if each.get("kind") == CLUSTER.name], "")]


@pytest.fixture
def watched() -> Watched:
    found = Watched(Location())
    for cache in (found.clusters, found.pods, found.reports):
        for part in cache._parts.values():
            part.listed.set()
    return found


def cluster(name: str, version: int, state: State = State.READY) -> Object:
    made = asked(name, "alice", Spec(Workload("small", engine=Engine.DASK)))
    made["metadata"] |= {"uid": name, "resourceVersion": str(version)}
    status = Status(state, Reason.SERVING, "", 1.0, "alice", plan=PLAN, created=1.0)
    return {**made, "status": written(status)}


def worker(of: Object, version: int) -> Object:
    return pod(of, version, WORKER, "-w-0")


def pod(of: Object, version: int, role: str, suffix: str) -> Object:
    name, uid = f"{of['metadata']['name']}{suffix}", of["metadata"]["uid"]
    labels = {OF_CLUSTER: uid, ROLE: role, "shoal.dev/slot": "0", "shoal.dev/group": "default"}
    metadata = {"name": name, "namespace": "alice", "uid": name, "resourceVersion": str(version)}
    metadata |= {"labels": labels, "ownerReferences": [owned_by(of)]}  # type: ignore[dict-item]
    return {"metadata": metadata, "status": {"phase": "Running"}}


def test_what_rests_is_looked_at_now_and_then(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    view, in_force = View(cast(Any, Server()), Location(), watched, Refusals()), InForce("shoal-system")
    time = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: time)

    def look(within: InForce = in_force) -> set[str]:
        view.look(within, time)
        view.acted()
        return set(view.looked)

    rests, moves = cluster("rests", 1), cluster("moves", 2, State.STARTING)
    for each in (rests, moves):
        watched.clusters.put(each)
    watched.pods.put(pod(rests, 3, HEAD, "-head"))
    assert look() == look() == {"rests", "moves"}, "its worker has to be made"
    watched.pods.put(worker(rests, 4))
    view.look(in_force, time)
    assert sorted(pod["metadata"]["name"] for pod in view.pods["rests"]) == ["rests-head", "rests-w-0"]
    assert look() == {"rests", "moves"}, "what followed from that was not done"
    assert (look(), view.quiet()) == ({"moves"}, {"rests"}), "what is on its way is always looked at"
    watched.clusters.put(cluster("rests", 5) | {"spec": rests["spec"] | {"replicas": 3}})
    assert look() == look() == {"rests", "moves"}, "it waits for room"
    watched.clusters.put(cluster("rests", 6))
    watched.clusters.put(cluster("moves", 7, State.STOPPED))
    assert look() == {"rests", "moves"}
    assert look() == set()
    assert look(replace(in_force)) == {"rests", "moves"}, "other limits are everybody's affair"
    time += 3600
    assert look() == {"rests", "moves"}, "time alone moves some on"


def test_what_is_confirmed_is_as_it_was(watched: Watched) -> None:
    server = Server()
    view = View(cast(Any, server), Location(), watched, Refusals())
    one = cluster("one", 1)
    path, pod_path = CLUSTER.path("alice", "one"), POD.path("alice", "one-w-0")
    server.objects = {path: one, pod_path: worker(one, 2)}
    watched.clusters.put(one)

    def stale(uid: str) -> bool:
        try:
            view.confirm(uid)
        except StaleRecordError:
            return True
        return False

    view.look(InForce("shoal-system"), 0.0)
    assert stale("one"), "it has a pod that was not seen yet"
    watched.pods.put(worker(one, 2))
    view.look(InForce("shoal-system"), 0.0)
    assert not stale("one")
    server.objects[pod_path] = worker(one, 3)
    assert stale("one"), "its pod changed"
    server.objects = {path: cluster("one", 4), pod_path: worker(one, 2)}
    assert stale("one"), "its record changed"
    del server.objects[path]
    assert stale("one"), "it was deleted"

    server.objects = {path: cluster("unseen", 5)}
    assert stale("unseen"), "its record was not seen yet"
    view.look(InForce("shoal-system"), 0.0)
    server.objects = {pod_path: worker(cluster("gone", 6), 7)}
    assert stale("gone"), "something of it runs"
    server.objects = {}
    assert not stale("gone")
