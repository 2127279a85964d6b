"""What every home owes to handles and commands, by home ``kubernetes`` on a real API server with simulated nodes.

The tests are those of ``tests/homes/test_behaviour.py``; here is the world that they run in. Its heads are played:
they report through the real desk. Real heads are in ``test_home_on_a_node.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.clusters import Cluster as Kubernetes

from shoal.client.clusters import open_home, open_project
from shoal.homes.kubernetes.api import Api

from ..homes.gaps import GAPS
from ..homes.test_behaviour import *  # noqa: F403 - its tests are run here
from ..homes.worlds import World
from .simulated import simulated

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    project: Path,
    kube_fleet: Kubernetes,
    fleet_admin: Api,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    if reason := GAPS.get(("kubernetes", request.node.originalname)):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    with simulated(kube_fleet, fleet_admin, project, monkeypatch) as place:
        place.govern()
        home = open_home(open_project(project))
        ends = lambda cluster, code: place.script_ends(cluster.name, code)  # noqa: E731
        world = World(home, project, lambda: time.sleep(0.05), ends, place.put)
        world.patience = 3 if reason else world.patience  # what is known to be missing does not come
        yield world
        world.patience = World.patience
        for cluster in world.home.clusters():
            world.end(cluster)
        world.until(lambda: place.left() == [], "nothing but records is left")
