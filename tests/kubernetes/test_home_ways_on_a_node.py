"""Home ``kubernetes`` on a real kubelet: pods that are evicted, and an API server behind a proxy and another name."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from cluster.clusters import Cluster as Kubernetes

import shoal
from shoal.errors import ClusterEndedError
from shoal.homes.kubernetes.names import POD, ROLE, WORKER
from shoal.model.cluster import Reason, State

from ..servers.connect_proxy import connect_proxy
from .on_a_node import World, governed, world

__all__ = ["governed", "world"]  # fixtures
pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(600)]
Eventually = Callable[..., Any]
EVICTED = "EvictionByEvictionAPI: Eviction API: evicting"


def evict(world: World, name: str) -> None:
    """As a drain does, and an autoscaler that empties a node."""
    metadata = {"name": name, "namespace": world.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    world.admin.create(POD.path(world.namespace, name, "eviction"), body)


def workers(world: World) -> dict[str, bool]:
    """By name, whether it takes room: of one that ended, the pod may still be there."""
    found, _ = world.admin.list(POD.path(world.namespace), labelSelector=f"{ROLE}={WORKER}")

    def over(pod: dict[str, Any]) -> bool:
        stands = pod["status"].get("containerStatuses", ())
        return any("terminated" in each["state"] for each in stands)

    return {each["metadata"]["name"]: not over(each) for each in found}


def test_a_worker_that_is_evicted_is_replaced_and_told_and_a_head_is_the_end(
    world: World, eventually: Eventually
) -> None:
    with closing(shoal.dask("small", workers=2, name="moved", project=world.project, quiet=True)) as cluster:

        def slow(number: int) -> int:
            time.sleep(0.3)
            return number

        futures = cluster.client.map(slow, range(60))
        evict(world, "moved-w-0")
        most = 0
        begin = time.monotonic()
        while "moved-w-0" in (there := workers(world)) or len(there) < 2:
            most = max(most, sum(there.values()))
            assert time.monotonic() - begin < 60, there
            time.sleep(0.05)
        assert most <= 2, "never more than were admitted"
        assert cluster.client.gather(futures) == list(range(60)), "the work goes on"
        told = f"lost: moved-w-0 ({EVICTED})"
        eventually(lambda: told in cluster.record.message, 30, lambda: cluster.record.message)

        def counted() -> bool:
            status = cluster._home.status(cluster.id, 10)
            return status is not None and status.restarts == 1

        eventually(counted, 30, "it is counted")
        words = ["why", "moved", "--project", str(world.project), "-o", "json"]
        answer = subprocess.run(
            [sys.executable, "-m", "shoal", *words], capture_output=True, timeout=120, check=True
        )
        assert told in {each["stage"]: each["said"] for each in json.loads(answer.stdout)["steps"]}["health"]

        evict(world, "moved-head")
        eventually(lambda: cluster.record.state.ended, 60, lambda: str(cluster.record))
        assert (cluster.record.state, cluster.record.reason) == (State.FAILED, Reason.HEAD_LOST)
        assert cluster.record.message == f"its head's pod was ended ({EVICTED})"
        with pytest.raises(ClusterEndedError, match="EvictionByEvictionAPI"):
            cluster.raise_if_ended()
    eventually(lambda: world.left() == [], 60, "nothing of it is left")


def test_everything_goes_by_a_proxy_to_another_name_with_a_certificate_of_a_program(
    world: World, kube_node: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tunnel, too: the name that is asked for is nobody's but the proxy's."""
    said = yaml.safe_load(kube_node.kubeconfig_of("alice").read_text())
    (cluster,), (user,) = said["clusters"], said["users"]
    server = urlsplit(cluster["cluster"]["server"])
    names = {"client-certificate-data": "clientCertificateData", "client-key-data": "clientKeyData"}
    status = {name: base64.b64decode(user["user"][key]).decode() for key, name in names.items()}
    given = tmp_path / "credential.json"
    given.write_text(json.dumps({"kind": "ExecCredential", "status": status}))
    program = {"apiVersion": "client.authentication.k8s.io/v1", "command": "cat", "args": [str(given)]}
    with connect_proxy(str(server.hostname), int(server.port or 443)) as proxy:
        cluster["cluster"] |= {"server": "https://only-there.invalid:6443", "proxy-url": proxy.url}
        cluster["cluster"]["tls-server-name"] = "kubernetes.default.svc"
        user["user"] = {"exec": program}
        file = tmp_path / "kubeconfig"
        file.write_text(yaml.safe_dump(said))
        monkeypatch.setenv("KUBECONFIG", str(file))
        with shoal.dask("small", workers=1, name="proxied", project=world.project, quiet=True) as its:
            assert its.client.submit(sum, [1, 2]).result(60) == 3
        assert set(proxy.asked) == {"only-there.invalid:6443"}
        monkeypatch.setenv("KUBECONFIG", str(kube_node.kubeconfig_of("alice")))
