"""Home ``kubernetes`` by dask-kubernetes' operator, on a real kubelet: `via: operator` in a target."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cluster.clusters import Cluster as Kubernetes
from distributed.comm import CommClosedError

import shoal
from shoal.errors import ClusterEndedError
from shoal.homes.kubernetes.names import API_VERSION, CLUSTER, DASK_CLUSTER, DASK_WORKERS, DEPLOYMENT, POD
from shoal.model.cluster import Reason, State
from shoal.model.workload import Via

from .dask_operator import define, operator
from .installing import put_project
from .on_a_node import World, governed, world

__all__ = ["governed", "world"]  # fixtures
pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(600)]
Eventually = Callable[..., Any]
LONG = "nightly-" + 32 * "x"  # Kubernetes cuts its pods' names


@pytest.fixture(scope="module")
def via() -> Via:
    return Via.OPERATOR


def left(world: World) -> list[str]:
    """What is there of the operator's, and of ours."""
    kinds = (DASK_CLUSTER, DASK_WORKERS, DEPLOYMENT)
    listed = [
        (kind.plural, each) for kind in kinds for each in world.admin.list(kind.path(world.namespace))[0]
    ]
    return [f"{plural}/{each['metadata']['name']}" for plural, each in listed] + world.left()


def test_a_cluster_by_the_operator_computes_grows_shrinks_and_leaves_nothing(
    world: World, kube_node: Kubernetes, tmp_path: Path, eventually: Eventually
) -> None:
    define(world.admin)
    template = world.project / "clusters" / "mixed.yaml"
    template.write_text(
        """
        workers:
          - {name: cpu, min: 1, max: 1, cores: 1, memory: 600 MB}
          - {name: large, min: 1, max: 1, cores: 1, memory: 700 MB}
        head: {cores: 1, memory: 700 MB}
        """
    )
    images = world.project / "images" / "images.yaml"
    images.write_text(f"{images.read_text()}\nabsent: {{reference: registry.invalid/absent:1}}\n")
    small = (world.project / "clusters" / "small.yaml").read_text()
    (template.with_name("absent.yaml")).write_text(small.replace("image: shoal-dask", "image: absent"))
    put_project(world.admin, world.project, world.system)
    log = tmp_path / "operator.log"
    asked = {"project": world.project, "quiet": True, "workers": 1}
    path = CLUSTER.path(world.namespace)

    def request(name: str, template: str = "small") -> dict[str, Any]:
        spec = {"workload": {"template": template}}
        return {"apiVersion": API_VERSION, "kind": CLUSTER.name, "metadata": {"name": name}, "spec": spec}

    def said(name: str) -> str:
        return str(world.alice.get(f"{path}/{name}").get("status", {}))

    world.alice.create(path, request("away"))
    eventually(lambda: "operator made no pod" in said("away"), 60, lambda: said("away"))
    orphan = {"metadata": {"finalizers": ["kopf.zalando.org/KopfFinalizerMarker"]}}
    world.admin.patch(DASK_CLUSTER.path(world.namespace, "away"), orphan)  # as one has that an operator saw
    world.alice.delete(f"{path}/away")
    eventually(lambda: left(world) == [], 60, lambda: f"left: {left(world)}")
    with operator(kube_node.kubeconfig, world.namespace, log) as running:
        with shoal.dask("small", name=LONG, **asked) as cluster:
            client = cluster.client
            assert client.gather(client.map(lambda n: n * n, range(50))) == [n * n for n in range(50)]
            pods = world.admin.list(POD.path(world.namespace))[0]
            names = [pod["metadata"]["name"] for pod in pods]
            assert sorted(name.removeprefix(LONG)[:9] for name in names) == ["-default-", "-schedule"]
            cluster.scale(2)
            assert len(client.scheduler_info()["workers"]) == 2
            cluster.scale(1)
            eventually(
                lambda: len(world.admin.list(DEPLOYMENT.path(world.namespace))[0]) == 2, 90, "one is gone"
            )
            assert client.submit(sum, [2, 3]).result(60) == 5, "the one that stays computes"
            assert f"{LONG}-scheduler-" in cluster.logs()
        assert (cluster.record.state, cluster.record.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)
        eventually(lambda: left(world) == [], 60, lambda: f"left: {left(world)}")

        lost = shoal.dask("small", name="lost", **asked)
        with suppress(CommClosedError, ClusterEndedError):
            lost.client.run_on_scheduler(os._exit, 3)
        eventually(lambda: lost.record.state.ended, 120, lambda: str(lost.record))
        # As its pod tells, or its next head, whoever comes first.
        assert lost.record.reason in (Reason.HEAD_CRASHED, Reason.HEAD_LOST)
        with pytest.raises(ClusterEndedError, match=r"exited unexpectedly|started again"):
            lost.client.submit(sum, [1]).result(30)
        lost.close()

        world.alice.create(path, request("absent", "absent"))
        eventually(lambda: "cannot be pulled" in said("absent"), 90, lambda: said("absent"))
        world.alice.patch(f"{path}/absent", {"spec": {"stop": {}}})
        eventually(lambda: "'Stopped'" in said("absent"), 60, lambda: said("absent"))
        assert "was killed" not in said("absent"), "a head that never ran is not waited for"
        eventually(lambda: left(world) == [], 60, lambda: f"left: {left(world)}")

        last = shoal.dask("mixed", name="last", project=world.project, quiet=True)
        groups = [last.client.submit(os.getpid, resources={name: 1}) for name in ("cpu", "large")]
        assert len({each.result(60) for each in groups}) > 0
        running.kill()
        running.wait(30)
        last.close()
    begin = time.monotonic()
    eventually(lambda: left(world) == [], 60, lambda: f"left: {left(world)}")
    assert time.monotonic() - begin < 60
