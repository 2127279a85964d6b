"""A project whose target is a real kubelet, with a governor that runs, as alice uses it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster.clusters import Cluster as Kubernetes
from lightkube.config.kubeconfig import KubeConfig

from shoal.client.clusters import open_project
from shoal.homes.choose import open_home
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.manifests import cluster_wide, of_user, person
from shoal.homes.kubernetes.names import CLUSTER
from shoal.model.cluster import Reason
from shoal.model.workload import Via

from ..homes import index
from .installing import apply, left_of_clusters, put_project, remove

Eventually = Callable[..., Any]
# What an administrator adds to every pod; all of it fits the restricted profile, as the namespaces demand.
PLACE = (
    "pod: {metadata: {annotations: {example.com/place: node}}, "
    "spec: {tolerations: [{key: example.com/batch, operator: Exists}], "
    "containers: [{env: [{name: PLACE, value: node}, {name: PIP_INDEX_URL, value: 'INDEX-URL'}, "
    "{name: PIP_TRUSTED_HOST, value: INDEX-HOST}]}]}}"
)


@dataclass
class World:
    """A project whose target is the node, with a governor that runs, as alice uses it."""

    project: Path
    namespace: str
    system: str
    admin: Api
    alice: Api
    start: Callable[[], subprocess.Popen[bytes]]
    governor: subprocess.Popen[bytes]

    def left(self) -> list[str]:
        """What of clusters is there, by kind and name, but for their records."""
        return left_of_clusters(self.admin, self.namespace)


def api_of(kubeconfig: Path) -> Api:
    config = KubeConfig.from_file(kubeconfig).get()
    assert config is not None
    return Api(config)


@pytest.fixture(scope="module")
def governed(
    via: Via,
    kube_node: Kubernetes,
    kube_image: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
    small_project: Callable[[Path], Path],
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("kubernetes")
    project = small_project(folder / "project")
    mark = secrets.token_hex(3)
    namespace, system = f"alice-{mark}", f"system-{mark}"
    admin, alice = api_of(kube_node.kubeconfig), api_of(kube_node.kubeconfig_of("alice"))
    apply(admin, [*cluster_wide(system), *of_user("alice", namespace, [person("alice")], system, via=via)])
    image = kube_image("shoal-dask")
    assert kube_node.network is not None
    host = kube_node.network.host
    index.publish(folder / "index", "tide", "1")
    file = project / "shoal.yaml"
    block = (
        f"home: kubernetes\n    kubernetes: {{namespace: {namespace}, system: {system}, namespaces: [{namespace}], "
        f"via: {via}, {PLACE}}}\n    images: {{shoal-dask: {image!r}}}"
    )
    serving = index.served(folder / "index", host)
    block = block.replace("INDEX-URL", serving.__enter__()).replace("INDEX-HOST", host)
    text = file.read_text().replace("home: local", block, 1)
    file.write_text(text.replace("{cores: 1, memory: 500 MB}", "{cores: 0.2, memory: 700 MB}"))
    put_project(admin, project, system)
    environment = {**os.environ, "KUBECONFIG": str(kube_node.kubeconfig), "SHOAL_LOG": "debug"}
    log = folder / "governor.log"
    command = [sys.executable, "-m", "shoal", "governor", "--project", str(project)]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as said:
            return subprocess.Popen(command, env=environment, stdout=said, stderr=said)

    world = World(project, namespace, system, admin, alice, start, start())
    try:
        yield world
        assert world.governor.poll() is None, log.read_text()[-3000:]
    finally:
        world.governor.terminate()
        assert world.governor.wait(30) == 0, "told to end, it ends in good order"
        print(log.read_text()[-5000:])
        for each in admin.list(CLUSTER.path(namespace))[0]:
            admin.delete(CLUSTER.path(namespace, each["metadata"]["name"]))
        remove(admin, namespace, system)
        admin.close()
        alice.close()
        serving.__exit__(None, None, None)


@pytest.fixture
def world(
    governed: World,
    kube_node: Kubernetes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> Iterator[World]:
    """As alice, in a folder of her own; afterwards nothing but records is left."""
    monkeypatch.setenv("KUBECONFIG", str(kube_node.kubeconfig_of("alice")))
    monkeypatch.chdir(tmp_path)
    yield governed
    home = open_home(open_project(governed.project))
    for cluster in home.clusters():
        home.stop(cluster.id, Reason.STOPPED_BY_USER, "the test is over")
    eventually(lambda: governed.left() == [], 60, "nothing but records is left")


def listening() -> set[int]:
    """Ports that this process listens at: tunnels have some."""
    return {each.laddr.port for each in psutil.Process().net_connections() if each.status == "LISTEN"}
