"""The fleet shape: simulated machines in numbers, under a real API server, scheduler and controllers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster import waiting
from cluster.clusters import Cluster
from cluster.namespaces import Namespace

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]


def test_hundreds_of_pods_run_on_simulated_nodes(kube_fleet: Cluster, fleet_namespace: Namespace) -> None:
    spec = {"containers": [{"name": "main", "image": "none", "resources": {"requests": {"cpu": "100m"}}}]}
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": spec}
        for number in range(200)
    ]
    with ThreadPoolExecutor(16) as writers:
        list(writers.map(fleet_namespace.create, pods))

    def count() -> int:
        return len(
            fleet_namespace.admin.items(fleet_namespace.path("pods"), fieldSelector="status.phase=Running")
        )

    assert waiting.until("200 pods run", count, lambda running: running >= 200, 120, 0.5) == 200
    nodes = {pod["spec"]["nodeName"] for pod in fleet_namespace.pods()}
    assert len(nodes) == 20  # the real scheduler spread them


def test_a_deployment_of_pods_comes_back_when_one_is_deleted(fleet_namespace: Namespace) -> None:
    labels = {"app": "kept"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    spec = {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}
    fleet_namespace.create(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "kept"}, "spec": spec}
    )

    def running() -> set[str]:
        pods = fleet_namespace.pods("app=kept")
        return {pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"}

    first = waiting.until("3 pods run", running, lambda names: len(names) == 3, 60)
    lost = sorted(first)[0]
    fleet_namespace.admin.delete(fleet_namespace.path("pods", lost))
    second = waiting.until("3 again", running, lambda names: len(names) == 3 and lost not in names, 60)
    assert len(second - first) == 1
