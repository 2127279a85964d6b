"""A fleet of many users' clusters on simulated nodes: nobody is over a limit at any moment, and nothing is left.

``SHOAL_FLEET=200x1000x10`` (users, clusters, workers of each) makes it as large as that, measures what the governor
takes and how long it all takes, and prints the numbers.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from cluster.clusters import Cluster as Kubernetes

from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.manifests import cluster_wide, of_user, person
from shoal.homes.kubernetes.names import (
    ACCOUNT,
    ADMITTED,
    CLUSTER,
    GOVERNOR,
    NAMESPACE,
    POD,
    QUOTA,
    REPORT,
    SERVICE,
    SERVICE_ACCOUNT,
)
from shoal.homes.kubernetes.objects import EndWish, Spec, asked
from shoal.homes.kubernetes.pods import CONTAINER_SECURITY, POD_SECURITY
from shoal.homes.kubernetes.structure import written
from shoal.model.cluster import State
from shoal.model.workload import Engine, Workload

from .fleet_of_users import FleetHeads, Follower, Watcher
from .installing import apply, put_project, remove

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]
SIZE = os.environ.get("SHOAL_FLEET", "")
USERS, CLUSTERS, WORKERS = (int(each) for each in (SIZE or "10x50x5").split("x"))
EACH = CLUSTERS // USERS  # clusters of each user at once
LONG = 120 + CLUSTERS * WORKERS / 5  # s that anything may take
Eventually = Callable[..., Any]


@dataclass
class Fleet:
    """The place: a namespace for each user, and a governor that is a process."""

    admin: Api
    project: Path
    system: str
    namespaces: frozenset[str]
    environment: dict[str, str]
    log: Path
    governor: subprocess.Popen[bytes] | None = None
    spent: list[float] = field(default_factory=list)  # CPU seconds of governors that are gone

    def govern(self) -> None:
        """Start it."""
        words = ["governor", "--project", str(self.project), "--system", self.system]
        line = [sys.executable, "-P", "-m", "shoal", *words]
        with self.log.open("ab") as log:
            self.governor = subprocess.Popen(line, env=self.environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """It has no time for anything."""
        assert self.governor is not None
        assert self.governor.poll() is None, self.log.read_text()[-2000:]
        self.spent.append(sum(psutil.Process(self.governor.pid).cpu_times()[:2]))
        self.governor.send_signal(signal.SIGKILL)
        self.governor.wait()

    def each(self, do: Callable[[str, str], object], names: list[str]) -> None:
        """``do(namespace, name)`` for the cluster of each of these names of every user."""
        with ThreadPoolExecutor(8) as pool:
            todo = [pool.submit(do, where, name) for name in names for where in sorted(self.namespaces)]
            for each in todo:
                each.result()

    def ask(self, namespace: str, name: str) -> None:
        workload = Workload("small", engine=Engine.DASK, workers=WORKERS, queue=True)
        self.admin.create(CLUSTER.path(namespace), asked(name, namespace, Spec(workload)))

    def end(self, namespace: str, name: str) -> None:
        stop = {"spec": {"stop": written(EndWish(message="enough"))}}
        self.admin.patch(CLUSTER.path(namespace, name), stop)

    def of(self, path: str, **params: str) -> list[dict[str, Any]]:
        found, _ = self.admin.list(path, **params)
        return [each for each in found if each["metadata"]["namespace"] in self.namespaces]

    def left(self) -> list[str]:
        """What of clusters is there, what accounts hold and what quotas give."""
        found = [
            f"{kind.plural}/{each['metadata']['name']}"
            for kind in (POD, SERVICE, REPORT)
            for each in self.of(kind.path())
        ]
        for account in self.admin.list(ACCOUNT.path(self.system))[0]:
            found += [f"account/{uid}" for uid in account.get("status", {}).get("admitted", {})]
        for quota in self.of(QUOTA.path(), fieldSelector=f"metadata.name={ADMITTED}"):
            its = quota["metadata"]["namespace"]
            found += [f"{its}: {what}={many}" for what, many in quota["spec"]["hard"].items() if many != "0"]
        return found


class Measures:
    """What the governor takes, and the API server beside it; said as lines."""

    def __init__(self, fleet: Fleet, kubernetes: Kubernetes) -> None:
        self.said: list[str] = []
        self._fleet = fleet
        every = (its.info for its in psutil.process_iter(["name", "cmdline", "pid"]))
        folder = f"{kubernetes.folder}/"
        self._servers = [
            psutil.Process(its["pid"])
            for its in every
            if its["name"] == "kube-apiserver" and any(folder in word for word in its["cmdline"] or ())
        ]

    def begin(self) -> None:
        """From now on."""
        self._at, self._before = time.monotonic(), self._now()

    def end(self, what: str) -> None:
        """What it took since then."""
        took, now = time.monotonic() - self._at, self._now()
        governor, server, requests = (after - before for after, before in zip(now, self._before, strict=True))
        assert self._fleet.governor is not None
        size = psutil.Process(self._fleet.governor.pid).memory_info().rss / 1e6
        self.said.append(
            f"{what}: {took:.1f} s; governor {governor:.1f} CPU s ({100 * governor / took:.0f} % of a core), "
            f"{size:.0f} MB; API server {server:.1f} CPU s, {requests} requests "
            f"({requests / CLUSTERS:.0f} per cluster)"
        )

    def settled(self, seconds: float = 30.0) -> None:
        """While nothing but reports comes."""
        time.sleep(5)
        self.begin()
        time.sleep(seconds)
        self.end("settled")

    def changes(self, many: int = 100) -> None:
        """Ten times a second a worker's pod stops, until its cluster's record says so."""
        fleet, told = self._fleet, dict[str, float]()
        clusters = fleet.of(CLUSTER.path())
        ready = [each for each in clusters if each["status"]["state"] == State.READY.value][:many]

        def seen(found: dict[str, Any], there: bool) -> None:
            if "cannot be pulled" in found.get("status", {}).get("message", ""):
                told.setdefault(found["metadata"]["uid"], time.monotonic())

        follower = Follower(fleet.admin, {CLUSTER.path(): ({}, seen)})
        stands = {"name": "worker", "image": "gone", "imageID": "", "ready": False, "restartCount": 0}
        stands["state"] = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
        begun: dict[str, float] = {}
        self.begin()
        for each in ready:
            metadata = each["metadata"]
            path = POD.path(metadata["namespace"], f"{metadata['name']}-w-0", "status")
            begun[metadata["uid"]] = time.monotonic()
            fleet.admin.patch(path, {"status": {"phase": "Pending", "containerStatuses": [stands]}})
            time.sleep(max(0.0, begun[metadata["uid"]] + 0.1 - time.monotonic()))
        deadline = time.monotonic() + 60
        while len(told) < len(begun) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.end("at ten changes a second")
        follower.stop()
        late = sorted(told.get(uid, deadline) - at for uid, at in begun.items())
        self.said.append(
            f"from a pod's change to its cluster's status: p50 {late[len(late) // 2]:.2f} s, "
            f"p99 {late[int(len(late) * 0.99)]:.2f} s"
        )

    def bare(self, eventually: Eventually) -> None:
        """As many pods of the same namespaces, with a quota each, made by 16 writers."""
        fleet = self._fleet
        given = {"hard": {"pods": "100k", "limits.cpu": "100k", "limits.memory": "100T"}}
        for namespace in fleet.namespaces:  # the governor that would set it back is gone
            fleet.admin.delete(QUOTA.path(namespace, ADMITTED))
            body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "bare"}, "spec": given}
            fleet.admin.create(QUOTA.path(namespace), body)
        amounts = {"cpu": "100m", "memory": "100M"}
        container = {"name": "main", "image": "none", "securityContext": CONTAINER_SECURITY}
        container["resources"] = {"requests": amounts, "limits": amounts}
        spec = {"containers": [container], "securityContext": POD_SECURITY}
        where = sorted(fleet.namespaces)
        many = CLUSTERS * (WORKERS + 1)

        def make(number: int) -> None:
            pod = {"metadata": {"name": f"bare-{number}", "labels": {"bare": "yes"}}, "spec": spec}
            fleet.admin.create(
                POD.path(where[number % len(where)]), {"apiVersion": "v1", "kind": "Pod"} | pod
            )

        def run() -> bool:
            selected = {"labelSelector": "bare=yes", "fieldSelector": "status.phase=Running"}
            time.sleep(0.5)
            return len(fleet.of(POD.path(), **selected)) == many

        begin, before = time.monotonic(), self._served()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(make, range(many)))
        eventually(run, LONG, "all run")
        self.said.append(
            f"the same pods made bare: {time.monotonic() - begin:.1f} s; API server {self._served() - before:.1f} CPU s"
        )

    def _now(self) -> tuple[float, float, int]:
        assert self._fleet.governor is not None
        governor = sum(self._fleet.spent) + sum(psutil.Process(self._fleet.governor.pid).cpu_times()[:2])
        lines = self._fleet.admin.text("/metrics").splitlines()
        counted = (
            float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("apiserver_request_total")
        )
        return governor, self._served(), int(sum(counted))

    def _served(self) -> float:
        return sum(sum(each.cpu_times()[:2]) for each in self._servers)


def _kubeconfig(admin: Path, token: str, to: Path) -> Path:
    """The same server as another account."""
    said = yaml.safe_load(admin.read_text())
    said["users"] = [{"name": each["name"], "user": {"token": token}} for each in said["users"]]
    to.write_text(yaml.safe_dump(said))
    return to


@pytest.fixture
def fleet(
    kube_fleet: Kubernetes,
    fleet_admin: Api,
    small_project: Callable[[Path], Path],
    tmp_path: Path,
    home_environment: Callable[[Path], dict[str, str]],
) -> Iterator[Fleet]:
    mark = secrets.token_hex(3)
    system, users = f"system-{mark}", [f"user-{number}" for number in range(USERS)]
    namespaces = {user: f"{user}-{mark}" for user in users}
    project = small_project(tmp_path / "project")
    (project / "shoal.yaml").write_text(
        "default_target: place\ntargets:\n  place:\n    home: kubernetes\n"
        f"    kubernetes: {{system: {system}}}\n    worker: {{cores: 0.1, memory: 100 MB}}\n"
        "    head: {cores: 0.1, memory: 100 MB}\n"
    )
    small = project / "clusters" / "small.yaml"
    small.write_text(small.read_text().replace("max: 3,", f"max: {WORKERS},"))
    (project / "policies" / "tiers.yaml").write_text(
        f"standard: {{concurrent_clusters: {EACH}, workers_per_cluster: {WORKERS}, "
        f"memory: {EACH * WORKERS} GB, max_duration: 4 h, head: 2 GB}}\n"
    )
    apply(fleet_admin, cluster_wide(system))
    with ThreadPoolExecutor(8) as pool:
        made = (of_user(user, where, [person(user)], system) for user, where in namespaces.items())
        list(pool.map(lambda objects: apply(fleet_admin, objects), made))
    put_project(fleet_admin, project, system)
    path = SERVICE_ACCOUNT.path(system, GOVERNOR, "token")
    token = fleet_admin.create(path, {"spec": {"expirationSeconds": 86400}})["status"]["token"]
    config = _kubeconfig(kube_fleet.kubeconfig, token, tmp_path / "kubeconfig")
    environment = home_environment(tmp_path / "home") | {"KUBECONFIG": str(config)}
    every = frozenset(namespaces.values())
    place = Fleet(fleet_admin, project, system, every, environment, tmp_path / "governor.log")
    try:
        yield place
    finally:
        if place.governor is not None and place.governor.poll() is None:
            place.governor.kill()
            place.governor.wait()
        for where in every:
            fleet_admin.delete(NAMESPACE.path(name=where))
        remove(fleet_admin, sorted(every)[0], system)


def test_a_fleet_of_users_is_never_over_a_limit(
    fleet: Fleet,
    kube_fleet: Kubernetes,
    eventually: Eventually,
    record_property: Callable[[str, object], None],
) -> None:
    """Its governor is killed twice on the way. One cluster of each user more than it may have waits until one ends."""
    heads = FleetHeads(fleet.admin, fleet.namespaces)
    watcher = Watcher(fleet.admin, fleet.system, fleet.namespaces, EACH, EACH * WORKERS)
    measures = Measures(fleet, kube_fleet)
    first, more = [f"c-{number}" for number in range(EACH)], [f"c-{EACH}"]

    def come(what: str, is_so: Callable[[], bool]) -> None:
        eventually(is_so, LONG, lambda: f"{what}: {watcher.states()}; {fleet.log.read_text()[-2000:]}")

    def many(state: State) -> int:
        return watcher.states()[state.value]

    try:
        fleet.govern()
        measures.begin()
        fleet.each(fleet.ask, first + more)
        if not SIZE:
            come("some are on their way", lambda: CLUSTERS + USERS - many(State.QUEUED) > CLUSTERS // 4)
            fleet.kill()
            fleet.govern()
        come("all that may are Ready", lambda: many(State.READY) == CLUSTERS)
        assert many(State.QUEUED) == USERS
        measures.end("all are Ready")
        if SIZE:
            measures.settled()
            measures.changes()
            measures.begin()
        fleet.each(fleet.end, first)
        come("some have ended", lambda: many(State.STOPPED) > CLUSTERS // 4)
        fleet.kill()
        fleet.govern()
        come("those that waited are Ready", lambda: many(State.READY) == USERS)
        fleet.each(fleet.end, more)
        come("all have ended", lambda: many(State.STOPPED) == CLUSTERS + USERS)
        eventually(lambda: fleet.left() == [], LONG, lambda: f"{fleet.left()} is left")
        measures.end("all have ended")
    finally:
        watcher.stop()
        heads.stop()
    assert watcher.over == []
    assert watcher.events > CLUSTERS * WORKERS
    if SIZE:
        fleet.kill()
        measures.bare(eventually)
        print(f"\n{USERS} users, {CLUSTERS} clusters of {WORKERS} workers", *measures.said, sep="\n  ")
        record_property("n", CLUSTERS)
        record_property("measured", "; ".join(measures.said))
