"""Dask on a real kubelet from the project's image: by bare pods, and by dask-kubernetes' operator."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import waiting
from cluster.clusters import Cluster
from cluster.errors import ClusterError
from cluster.namespaces import Namespace
from distributed import Client

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # The image has Debian's Python 3.11; the patch of the one that runs the tests may differ.
    pytest.mark.filterwarnings(
        "ignore:Mismatched versions found:distributed.versions.VersionMismatchWarning"
    ),
]
Image = Callable[[str], str]
_SMALL = {"resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}}
_SCHEDULER_PROBE = {"tcpSocket": {"port": 8786}, "periodSeconds": 1, "failureThreshold": 60}


def _total(address: str, workers: int) -> tuple[int, set[str]]:
    """A sum that all workers computed parts of, and the names of the pods that did."""
    with Client(address, timeout=30) as client:
        client.wait_for_workers(workers, timeout=90)
        squares = client.map(lambda number: number**2, range(100), pure=False)
        pods = client.run(lambda: __import__("socket").gethostname())
        return client.submit(sum, squares).result(timeout=60), set(pods.values())


def test_dask_computes_on_bare_pods(node_namespace: Namespace, kube_image: Image) -> None:
    image = kube_image("shoal-dask")
    container: dict[str, Any] = {**_SMALL, "readinessProbe": _SCHEDULER_PROBE}
    container["args"] = ["dask", "scheduler", "--port", "8786", "--no-dashboard"]
    node_namespace.pod("scheduler", image, container=container)
    spec = {"selector": {"app": "scheduler"}, "ports": [{"port": 8786}]}
    node_namespace.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dask"}, "spec": spec})
    for number in range(2):
        words = [
            "dask",
            "worker",
            "tcp://dask:8786",
            "--nthreads",
            "1",
            "--no-dashboard",
            "--name",
            f"w-{number}",
        ]
        node_namespace.pod(f"w-{number}", image, container={**_SMALL, "args": words})
    node_namespace.wait_pod("scheduler", seconds=90)
    with node_namespace.forward("pod/scheduler", 8786) as port:
        assert _total(f"tcp://127.0.0.1:{port}", 2) == (328350, {"w-0", "w-1"})


@pytest.fixture(scope="module")
def operator(kube_node: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """dask-kubernetes' operator, outside the cluster, with its resource definitions from its own wheel."""
    admin = kube_node.admin
    package = Path(str(metadata.distribution("dask-kubernetes").locate_file("dask_kubernetes")))
    definitions = sorted(package.glob("operator/deployment/helm/*/crds/*.yaml"))
    kinds = []
    for file in definitions:
        for definition in yaml.safe_load_all(file.read_text()):
            admin.apply(definition)
            kinds.append(admin.path_of(definition))
    assert len(kinds) == 4

    def served() -> bool:
        groups = [group["name"] for group in admin.get("/apis")["groups"]]
        return (
            "kubernetes.dask.org" in groups
            and len(admin.get("/apis/kubernetes.dask.org/v1")["resources"]) >= 4
        )

    waiting.until("the API server serves Dask's kinds", served, seconds=30)
    log = tmp_path_factory.mktemp("operator") / "log"
    command = [sys.executable, "-m", "kopf", "run", "--module", "dask_kubernetes.operator.controller"]
    with log.open("w") as said:
        process = subprocess.Popen(
            [*command, "--all-namespaces", "--standalone", "--liveness", "http://127.0.0.1:0/healthz"],
            env={**os.environ, "KUBECONFIG": str(kube_node.kubeconfig)}, stdout=said, stderr=said,
        )  # fmt: skip

    def watches() -> bool:
        if process.poll() is not None:
            raise ClusterError(f"the operator ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        return "Initial authentication" in log.read_text()

    try:
        waiting.until("the operator is logged in", watches, seconds=60)
        yield
    finally:
        process.terminate()
        process.wait(30)
        for path in kinds:
            admin.delete(path)
        admin.close()


def test_dask_computes_by_the_operator(operator: None, node_namespace: Namespace, kube_image: Image) -> None:
    image = kube_image("shoal-dask")
    base = {"image": image, "imagePullPolicy": "IfNotPresent", **_SMALL}
    # dask-kubernetes' own specs call dask-scheduler and dask-worker, which distributed no longer has.
    scheduler = {
        **base,
        "name": "scheduler",
        "args": ["dask", "scheduler"],
        "ports": [
            {"name": "tcp-comm", "containerPort": 8786},
            {"name": "http-dashboard", "containerPort": 8787},
        ],
        # Its resource definition takes names of ports alone.
        "readinessProbe": {**_SCHEDULER_PROBE, "tcpSocket": {"port": "tcp-comm"}},
    }
    worker = {**base, "name": "worker", "args": ["dask", "worker", "--name", "$(DASK_WORKER_NAME)"]}
    selector = {"dask.org/cluster-name": "simple", "dask.org/component": "scheduler"}
    ports = [
        {"name": "tcp-comm", "port": 8786, "targetPort": "tcp-comm"},
        {"name": "http-dashboard", "port": 8787, "targetPort": "http-dashboard"},
    ]
    spec = {
        "worker": {"replicas": 2, "spec": {"containers": [worker], "terminationGracePeriodSeconds": 1}},
        "scheduler": {
            "spec": {"containers": [scheduler], "terminationGracePeriodSeconds": 1},
            "service": {"type": "ClusterIP", "selector": selector, "ports": ports},
        },
    }
    version, metadata_ = "kubernetes.dask.org/v1", {"name": "simple"}
    node_namespace.create({"apiVersion": version, "kind": "DaskCluster", "metadata": metadata_, "spec": spec})

    def ready() -> list[str]:
        pods = node_namespace.pods("dask.org/cluster-name=simple")
        return [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"]

    pods = waiting.until("scheduler and workers run", ready, lambda names: len(names) == 3, 120)
    (head,) = (pod for pod in pods if "scheduler" in pod)
    node_namespace.wait_pod(head)
    with node_namespace.forward("service/simple-scheduler", 8786) as port:
        assert _total(f"tcp://127.0.0.1:{port}", 2) == (328350, set(pods) - {head})
