"""What every home owes, where dask-kubernetes' operator makes the pods, on a real API server with simulated nodes.

Six of the suite's tests; all of them with SHOAL_SOAK_OPERATOR=1. Real pods are in ``test_home_operator.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.clusters import Cluster as Kubernetes

from shoal.client.clusters import open_home, open_project
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.names import DASK_CLUSTER, DEPLOYMENT
from shoal.model.workload import Via

from ..homes import test_behaviour
from ..homes.worlds import World
from .dask_operator import define, operator
from .simulated import simulated

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(180)]
SIX = (
    "test_a_request_within_every_limit_becomes_ready_and_ends_when_told",
    "test_its_history_tells_every_state_with_reason_sentence_and_time",
    "test_asking_again_under_a_live_name_gives_the_same_cluster_and_no_other",
    "test_a_queued_request_says_what_it_waits_for_and_starts_when_that_is_freed",
    "test_a_cluster_ends_with_the_script_beside_it_whose_exit_code_it_tells",
    "test_growing_goes_through_admission_and_shrinking_gives_back",
)
_ALL = (name for name in vars(test_behaviour) if name.startswith("test_"))
globals().update(
    {name: getattr(test_behaviour, name) for name in (_ALL if os.environ.get("SHOAL_SOAK_OPERATOR") else SIX)}
)


@pytest.fixture(scope="module", autouse=True)
def _operator(
    kube_fleet: Kubernetes, fleet_admin: Api, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """One for the namespaces of all tests."""
    define(fleet_admin)
    with operator(kube_fleet.kubeconfig, "alice-*", tmp_path_factory.mktemp("operator") / "log"):
        yield


@pytest.fixture
def world(
    project: Path, kube_fleet: Kubernetes, fleet_admin: Api, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    with simulated(kube_fleet, fleet_admin, project, monkeypatch, Via.OPERATOR) as place:
        place.govern()
        home = open_home(open_project(project))
        ends = lambda cluster, code: place.script_ends(cluster.name, code)  # noqa: E731
        world = World(home, project, lambda: time.sleep(0.05), ends, place.put)
        world.patience = 90  # of two programs, and of the controllers that make a pod of a Deployment
        yield world
        for cluster in world.home.clusters():
            world.end(cluster)
        world.until(lambda: place.left() == [], "nothing but records is left")
        for kind in (DASK_CLUSTER, DEPLOYMENT):
            assert place.admin.list(kind.path(place.namespace))[0] == []
