"""A project at home ``kubernetes`` on simulated nodes: namespaces of its own, governors in threads, heads played."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cluster.clusters import Cluster as Kubernetes
from lightkube.config.models import User

from shoal.client.clusters import prepare
from shoal.errors import NotFoundError
from shoal.governor.rounds import RoundPoint
from shoal.homes.base import Home, Request
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.governing import GovernorProgram
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.manifests import cluster_wide, of_user, person
from shoal.homes.kubernetes.names import (
    ACCOUNT,
    ADMITTED,
    CLUSTER,
    GOVERNOR,
    POD,
    QUOTA,
    SERVICE_ACCOUNT,
    runner_of,
)
from shoal.model.cluster import Cluster
from shoal.model.workload import ScriptRun, Via

from .installing import apply, left_of_clusters, put_project, remove
from .played_heads import PlayedHeads


class Killed(BaseException):
    """A governor dies here; it has no time for anything else."""


@dataclass
class Simulated:
    """The place, and who governs it."""

    admin: Api
    project: Path
    namespace: str
    system: str
    governors: list[tuple[GovernorProgram, threading.Thread]] = field(default_factory=list)
    heads: PlayedHeads | None = None
    more: tuple[str, ...] = ()  # namespaces of others that are governed, too

    def put(self) -> None:
        """The project's files, as they are now, on the server."""
        put_project(self.admin, self.project, self.system)

    def govern(
        self, reached: Callable[[RoundPoint], None] | None = None, *, put: bool = True
    ) -> threading.Thread:
        """One governor more: its thread. ``reached`` is told every point after a write. ``put``: the project, first."""
        place = Location(
            namespace=self.namespace, system=self.system, namespaces=(self.namespace, *self.more)
        )
        if put:
            self.put()
        program = GovernorProgram(self.governors_own(), place, reached)

        def run() -> None:
            try:
                program.run()
            except Killed:
                program.stop()

        thread = threading.Thread(target=run, name="governor", daemon=True)
        self.heads = self.heads or PlayedHeads(self.admin, self.namespace)
        thread.start()
        self.governors.append((program, thread))
        return thread

    def governors_own(self) -> Api:
        """The API server as the governor's account sees it, with the rights that it has and no more."""
        path = SERVICE_ACCOUNT.path(self.system, GOVERNOR, "token")
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = self.admin.create(path, asked)["status"]["token"]
        return Api(self.admin.config._replace(user=User(token=token)))

    def script_ends(self, name: str, code: int) -> None:
        """The script beside this cluster ends, as its kubelet would tell it; NotFoundError before it started."""
        path = POD.path(self.namespace, runner_of(name))
        ended = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
        said = {
            "name": "script",
            "image": "",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": ended,
        }
        phase = "Failed" if code else "Succeeded"
        if "phase" in (found := self.admin.get(path))["status"] and found["status"]["phase"] == "Running":
            self.admin.patch(f"{path}/status", {"status": {"phase": phase, "containerStatuses": [said]}})
        else:
            raise NotFoundError(f"{name} has no script that runs")

    def stop(self) -> None:
        """End governors and heads, and delete what they governed."""
        if self.heads is not None:
            self.heads.stop()
        for program, thread in self.governors:
            program.stop()
            thread.join()
        with suppress(NotFoundError):  # our kinds are not there yet
            for each in self.admin.list(CLUSTER.path(self.namespace))[0]:
                self.admin.delete(CLUSTER.path(self.namespace, each["metadata"]["name"]))

    def left(self) -> list[str]:
        """What of clusters is there but for their records; what accounts hold, and what the quota gives."""
        found = left_of_clusters(self.admin, self.namespace)
        for account in self.admin.list(ACCOUNT.path(self.system))[0]:
            found += [f"account/{uid}" for uid in account.get("status", {}).get("admitted", {})]
        with suppress(NotFoundError):  # no governor has looked there yet
            given = self.admin.get(QUOTA.path(self.namespace, ADMITTED))["spec"]["hard"]
            found += [f"quota/{what}={its}" for what, its in given.items() if its != "0"]
        return found


@contextmanager
def simulated(
    kube_fleet: Kubernetes,
    admin: Api,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    via: Via = Via.PODS,
) -> Iterator[Simulated]:
    """Namespaces for alice and a governor, which the project's target names; heads are played until the end."""
    mark = secrets.token_hex(3)
    namespace, system = f"alice-{mark}", f"system-{mark}"
    apply(admin, [*cluster_wide(system), *of_user("alice", namespace, [person("alice")], system, via=via)])
    file = project / "shoal.yaml"
    block = f"home: kubernetes\n    kubernetes: {{via: {via}, namespace: {namespace}, system: {system}}}"
    file.write_text(file.read_text().replace("home: local", block, 1))
    monkeypatch.setenv("KUBECONFIG", str(kube_fleet.kubeconfig))
    place = Simulated(admin, project, namespace, system)
    try:
        yield place
    finally:
        place.stop()
        remove(admin, namespace, system)


def ask(
    home: Home,
    project: Path,
    name: str,
    workers: int = 1,
    run: ScriptRun | None = None,
    id: str | None = None,
    **more: Any,
) -> Cluster:
    settled = prepare("small", engine="dask", workers=workers, project=project, **more)
    return home.request(Request(name, home.user(), settled.workload, settled.plan, id=id, run=run))
