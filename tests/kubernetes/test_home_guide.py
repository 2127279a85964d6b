"""The how-to on Kubernetes, run as it stands: its files, its shell and its Python, on a real kubelet."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster.clusters import Cluster as Kubernetes

from shoal.project.loading import load
from shoal.project.targets import GovernorPod

from ..docs.test_examples import blocks

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(600)]
PAGE = "docs/how-to/kubernetes.md"
SYSTEM, NAMESPACE = "shoal-system", "shoal-alice"


def test_the_page_is_true(
    kube_node: Kubernetes,
    kube_image: Callable[[str], str],
    tmp_path: Path,
    small_project: Callable[[Path], Path],
) -> None:
    kubectl = Path(kube_node.kubectl()[0])
    tools = f"{Path(sys.executable).parent}{os.pathsep}{kubectl.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PATH": tools}
    admin = environment | {"KUBECONFIG": str(kube_node.kubeconfig)}
    alice = environment | {"KUBECONFIG": str(tmp_path / "config")}
    folder = tmp_path / "project"
    folder.mkdir()
    image = kube_image("shoal-dask")
    # Her kubeconfig, as an administrator hands it out: with her namespace in it.
    config = kube_node.kubeconfig_of("alice").read_text()
    (tmp_path / "config").write_text(config)

    def run(text: str, env: dict[str, str]) -> str:
        line = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(
            line, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    run(f"kubectl config set-context --current --namespace={NAMESPACE}", alice)
    said = ""
    try:
        for block in blocks(PAGE):
            if block.kind == "yaml":
                name = block.body.splitlines()[0].removeprefix("# ")
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(block.body.replace("shoal-dask:0.1.0", image))
                if name in ("place.yaml", "governor.yaml", "network.yaml"):
                    elsewhere = tmp_path / name.removesuffix(".yaml")
                    elsewhere.mkdir()
                    (folder / name).rename(elsewhere / "shoal.yaml")
                    place = load(elsewhere, "place")
                    assert place.mounts or name != "place.yaml"
                    assert place.target.kubernetes is not None
                    assert place.target.kubernetes.governor == GovernorPod(), "it is as where nothing is said"
            elif block.kind == "python":
                said += run(f"{sys.executable} - <<'END'\n{block.body}\nEND", alice)
            elif any(word in block.body for word in ("shoal apply", "shoal render", SYSTEM)):
                run(block.body.replace("/tmp", str(tmp_path)), admin)
            else:
                said += run(block.body, alice)
        assert "42" in said
        assert "nightly" in said
        assert "governor" in said
        deadline = time.monotonic() + 60
        while left := run(f"kubectl get pods,services --namespace {NAMESPACE} -o name", admin).split():
            assert time.monotonic() < deadline, left
            time.sleep(0.5)
    finally:
        print(
            run(
                f"kubectl logs deployment/shoal-governor -n {SYSTEM} --tail 50 --ignore-errors || true", admin
            )
        )
        print(run(f"kubectl get pods,events -n {SYSTEM} || true", admin))
        run(f"kubectl delete namespace {NAMESPACE} {SYSTEM} --ignore-not-found", admin)
        kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings"
        run(f"kubectl delete {kinds} --selector shoal.dev/system={SYSTEM} --ignore-not-found", admin)
        run(f"kubectl delete clusterrole,clusterrolebinding {SYSTEM}-governor --ignore-not-found", admin)
