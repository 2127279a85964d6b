"""Fixtures of home ``kubernetes``'s tests, beside those of ``cluster.fixtures``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster.clusters import Cluster as Kubernetes
from lightkube.config.kubeconfig import KubeConfig

from shoal.homes.kubernetes.api import Api


@pytest.fixture(scope="module")
def fleet_admin(kube_fleet: Kubernetes) -> Iterator[Api]:
    """The API server of the simulated nodes, as its administrator."""
    config = KubeConfig.from_file(kube_fleet.kubeconfig).get()
    assert config is not None
    api = Api(config)
    yield api
    api.close()
