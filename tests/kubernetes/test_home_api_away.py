"""The API server is restarted under clusters that start and that work, and then its database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import clusters
from cluster.clusters import Cluster as Kubernetes
from lightkube.config.kubeconfig import KubeConfig

from shoal.client.clusters import open_project, prepare
from shoal.homes.base import Request
from shoal.homes.choose import open_home
from shoal.homes.kubernetes.api import Api
from shoal.model.cluster import Cluster, Reason, State

from .simulated import Simulated, simulated

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(400)]
Eventually = Callable[..., Any]


@pytest.fixture
def place(
    project: Path, kube_fleet_alone: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Simulated]:
    config = KubeConfig.from_file(kube_fleet_alone.kubeconfig).get()
    assert config is not None
    admin = Api(config)
    with simulated(kube_fleet_alone, admin, project, monkeypatch) as found:
        yield found
    admin.close()


def test_clusters_go_on_when_the_api_server_or_its_database_is_away(
    place: Simulated, kube_fleet_alone: Kubernetes, eventually: Eventually
) -> None:
    place.govern()
    home = open_home(open_project(place.project))

    def ask(name: str) -> Cluster:
        settled = prepare("small", engine="dask", workers=1, project=place.project)
        return home.request(Request(name, home.user(), settled.workload, settled.plan))

    works = ask("works")
    eventually(lambda: home.get(works.id).state is State.READY, 60, "it works")

    away = threading.Thread(
        target=lambda: clusters.restart(kube_fleet_alone, "kube-apiserver", away=2.0), name="restart"
    )
    starts = ask("starts")
    away.start()
    away.join(60)
    eventually(lambda: home.get(starts.id).state is State.READY, 90, "what was starting works, too")
    assert home.get(works.id).state is State.READY
    assert home.scale(works.id, 2).plan.workers == 2, "its governor goes on"
    eventually(lambda: home.get(works.id).workers == 2, 60, "so does its head")

    clusters.restart(kube_fleet_alone, "etcd", away=20.0)
    eventually(lambda: home.get(works.id).state is State.READY, 60, "its record is read again")
    assert home.scale(works.id, 1).plan.workers == 1
    for cluster in (works, starts):
        home.stop(cluster.id, Reason.STOPPED_BY_USER, "enough")
        eventually(lambda cluster=cluster: home.get(cluster.id).state is State.STOPPED, 60, "it ends")  # type: ignore[misc]
    eventually(lambda: place.left() == [], 60, "nothing is left")
