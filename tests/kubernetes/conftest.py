"""Fixtures of home ``kubernetes``'s tests, beside those of ``cluster.fixtures``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.clusters import Cluster as Kubernetes
from lightkube.config.kubeconfig import KubeConfig

from shoal.homes.kubernetes.api import Api
from shoal.model.workload import Via

from .simulated import Simulated, simulated


@pytest.fixture(scope="module")
def via() -> Via:
    """Who makes pods; a module of tests may say otherwise."""
    return Via.PODS


@pytest.fixture(scope="module")
def fleet_admin(kube_fleet: Kubernetes) -> Iterator[Api]:
    """The API server of the simulated nodes, as its administrator."""
    config = KubeConfig.from_file(kube_fleet.kubeconfig).get()
    assert config is not None
    api = Api(config)
    yield api
    api.close()


@pytest.fixture
def place(
    project: Path, kube_fleet: Kubernetes, fleet_admin: Api, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Simulated]:
    with simulated(kube_fleet, fleet_admin, project, monkeypatch) as found:
        file = project / "shoal.yaml"
        lines = [line for line in file.read_text().splitlines() if "machine:" not in line]
        file.write_text("\n".join(lines) + "\n")
        yield found
