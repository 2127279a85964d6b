"""What clusters took is told when their objects are gone, in records that a place keeps a number of."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from shoal.client.clusters import open_project
from shoal.display.cost import charges, grouped
from shoal.homes.choose import open_home
from shoal.homes.kubernetes import history
from shoal.homes.kubernetes.names import (
    CLUSTER,
    RECORD,
)
from shoal.homes.kubernetes.periods import KUBERNETES
from shoal.model.cluster import Cluster, Reason, State
from shoal.units import Seconds

from .simulated import Simulated, ask

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(180)]
Eventually = Callable[..., Any]


def test_what_a_cluster_took_outlives_its_object(
    place: Simulated, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(history, "KUBERNETES", replace(KUBERNETES, ended=Seconds(6)))
    place.govern()

    def run(name: str, many: int) -> Cluster:
        """One after the other under the same name, the last without its object at the end."""
        home = open_home(open_project(place.project))
        for _ in range(many):
            cluster = ask(home, place.project, name, id=uuid4().hex)
            eventually(lambda: home.get(cluster.id).state is State.READY, 60, "it is Ready")  # noqa: B023
            home.stop(cluster.id, Reason.STOPPED_BY_USER, "no longer needed")
            eventually(lambda: home.get(cluster.id).state.ended, 60, "it ended")  # noqa: B023
            before = home.get(cluster.id), home.history(cluster.id), home.logs(cluster.id)
        objects = CLUSTER.path(place.namespace)
        eventually(lambda: place.admin.list(objects)[0] == [], 60, "its object is gone")
        fresh = open_home(open_project(place.project))
        assert (fresh.get(cluster.id), fresh.history(cluster.id), fresh.logs(cluster.id)) == before
        return cluster

    nonsense = {
        "apiVersion": "shoal.dev/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "refused"},
        "spec": {"workload": {"template": "nowhere"}},
    }
    place.admin.create(CLUSTER.path(place.namespace), nonsense)  # it goes as well, and costs nothing
    first, last = run("spent", 1), run("spent", 2)
    monkeypatch.setattr(history, "_TRIM", 0.0)
    monkeypatch.setattr(history, "MOST", 2)
    records = RECORD.path(place.namespace)
    eventually(lambda: len(place.admin.list(records)[0]) == 2, 60, "of too many the oldest goes")
    home = open_home(open_project(place.project))
    assert home.find("spent", "alice") == home.get(last.id)
    assert home.clusters() == []
    past = home.clusters(owner="alice", ended=True)
    assert [cluster.name for cluster in past] == ["spent"] * 2
    assert (past[0].id, first.id in [cluster.id for cluster in past]) == (last.id, False)
    [total] = grouped(charges(past, time.time()), ["user"])
    assert (total.runs, total.core_hours.total > 0) == (2, True)
    assert max(len(json.dumps(each)) for each in place.admin.list(records)[0]) < 3500, "a place keeps many"
