"""What every home owes to handles and commands, by home ``kubernetes`` on a real API server with simulated nodes.

The tests are those of ``tests/homes/test_behaviour.py``; here is the world that they run in. Its heads are played:
they report through the real desk. Real heads are in ``test_home_on_a_node.py``.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.clusters import Cluster as Kubernetes
from lightkube.config.kubeconfig import KubeConfig

from shoal.client.clusters import open_home, open_project
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.governing import Files, GovernorProgram
from shoal.homes.kubernetes.manifests import cluster_wide, of_user, person
from shoal.homes.kubernetes.names import CLUSTER, POD
from shoal.homes.kubernetes.place import Location

from ..homes.gaps import GAPS
from ..homes.test_behaviour import *  # noqa: F403 - its tests are run here
from ..homes.test_behaviour import World
from .installing import apply, remove
from .played_heads import PlayedHeads

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def admin(kube_fleet: Kubernetes) -> Iterator[Api]:
    config = KubeConfig.from_file(kube_fleet.kubeconfig).get()
    assert config is not None
    api = Api(config)
    yield api
    api.close()


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    project: Path,
    kube_fleet: Kubernetes,
    admin: Api,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    if reason := GAPS.get(("kubernetes", request.node.originalname)):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    mark = secrets.token_hex(3)
    namespace, system = f"alice-{mark}", f"system-{mark}"
    apply(admin, [*cluster_wide(system), *of_user("alice", namespace, [person("alice")], system)])
    file = project / "shoal.yaml"
    block = f"home: kubernetes\n    kubernetes: {{namespace: {namespace}, system: {system}}}"
    file.write_text(file.read_text().replace("home: local", block, 1))
    monkeypatch.setenv("KUBECONFIG", str(kube_fleet.kubeconfig))
    target = open_project(project).target.name
    place = Location(namespace=namespace, system=system, namespaces=(namespace,))
    governing = GovernorProgram(admin, place, Files(project, target))
    thread = threading.Thread(target=governing.run, name="governor", daemon=True)
    thread.start()
    heads = PlayedHeads(admin, namespace)
    world = World(open_home(open_project(project)), project, lambda: time.sleep(0.05))
    try:
        yield world
        for cluster in world.home.clusters():
            world.end(cluster)
        assert admin.list(POD.path(namespace))[0] == []
    finally:
        heads.stop()
        governing.stop()
        thread.join()
        for each in admin.list(CLUSTER.path(namespace))[0]:
            admin.delete(CLUSTER.path(namespace, each["metadata"]["name"]))
        remove(admin, namespace, system)
