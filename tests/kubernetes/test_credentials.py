"""Who one is to a real API server: credentials of a program that expire, and a kubeconfig of another cluster."""

from __future__ import annotations

import asyncio
import base64
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.clusters import Cluster as Kubernetes
from cluster.namespaces import Namespace

from shoal.errors import InfrastructureError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.errors import RightsError
from shoal.homes.kubernetes.forwarding import opened
from shoal.homes.kubernetes.names import POD
from shoal.machine.certificate import make_certificate

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]
PODS = POD.path("default")


@pytest.fixture
def config(kube_fleet: Kubernetes) -> Any:
    return yaml.safe_load(kube_fleet.kubeconfig.read_text())


@pytest.fixture
def connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Api]:
    """By a kubeconfig of its own for each call: of one file a process keeps what it is connected to."""

    def by(config: Any, user: dict[str, Any] | None = None) -> Api:
        for each in config["users"]:
            each["user"] = user or each["user"]
        file = tmp_path / f"config{len(list(tmp_path.iterdir()))}"
        file.write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(file))
        return Api.of()

    return by


def test_a_program_gives_the_token_and_is_asked_again_when_it_has_expired(
    config: Any, connected: Callable[..., Api], fleet_admin: Api, tmp_path: Path
) -> None:
    """As the logins of clouds do, by the version that is written today."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    account = "/api/v1/namespaces/default/serviceaccounts/default/token"
    token = fleet_admin.create(account, request)["status"]["token"]
    answer = '{"kind": "ExecCredential", "status": {"token": "%s"}}'
    (tmp_path / "1").write_text(answer % "expired")
    (tmp_path / "2").write_text(answer % token)
    script = f"cd {tmp_path}; echo $KUBERNETES_EXEC_INFO > asked; cat 1; cp 2 1"
    said = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script]}
    api = connected(config, {"exec": said})
    with pytest.raises(RightsError, match="system:serviceaccount:default:default"):
        api.list(PODS)
    assert yaml.safe_load((tmp_path / "asked").read_text())["apiVersion"] == said["apiVersion"]

    said["args"] = ["-c", "echo your session is over >&2; exit 3"]
    with pytest.raises(RightsError, match="'sh', which gave none: exit code 3: your session is over"):
        connected(config, {"exec": said}).list(PODS)


def test_a_kubeconfig_of_another_cluster_is_told_at_once(config: Any, connected: Callable[..., Api]) -> None:
    other = base64.b64encode(make_certificate("other")[0].encode()).decode()
    for each in config["clusters"]:
        each["cluster"] = {"server": each["cluster"]["server"], "certificate-authority-data": other}
    api = connected(config)
    begin = time.monotonic()
    with pytest.raises(InfrastructureError, match="is not who the kubeconfig expects"):
        api.list(PODS)
    with pytest.raises(InfrastructureError, match="is not who the kubeconfig expects"):
        api.create(PODS, {})
    assert time.monotonic() - begin < 10, "a certificate stays as it is: nothing is tried again"


def test_a_tunnel_leaves_no_key_in_the_folder_for_temporary_files(
    kube_fleet: Kubernetes, fleet_namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each left the private key of its user's kubeconfig there, for good."""
    pod = fleet_namespace.pod("stays", "none")["metadata"]["name"]
    monkeypatch.setenv("KUBECONFIG", str(kube_fleet.kubeconfig))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def open_one() -> None:
        tunnel = await opened(None, fleet_namespace.name, pod, 8786)
        await tunnel.close()
        await tunnel._resource.api._session.aclose()

    asyncio.run(open_one())
    assert list(tmp_path.iterdir()) == []
