"""Pods that crash, or come too late, on a real API server with simulated nodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from shoal.client.clusters import open_project
from shoal.errors import NotFoundError
from shoal.homes.choose import open_home
from shoal.homes.kubernetes.desk import KubernetesDesk
from shoal.homes.kubernetes.names import API_VERSION, CLUSTER, POD, ROLE, WORKER
from shoal.model.cluster import Reason, State

from .simulated import Simulated, ask

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(180)]
Eventually = Callable[..., Any]


def test_a_worker_that_crashes_at_once_is_not_made_again_without_a_pause(
    place: Simulated, eventually: Eventually
) -> None:
    """Its pod stays during the pause, and whoever asks reads why."""
    place.govern()
    home = open_home(open_project(place.project))
    cluster = ask(home, place.project, "crashing", workers=1)
    eventually(lambda: home.get(cluster.id).state is State.READY, 60, "it is Ready")
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "no module named x"}}
    status = {"phase": "Failed", "containerStatuses": [{"name": "worker", "image": "x", "imageID": "x"}]}
    status["containerStatuses"][0] |= {"ready": False, "restartCount": 0, "state": ended}  # type: ignore[index]
    made, since = set[str](), time.monotonic()
    while time.monotonic() - since < 12:
        found, _ = place.admin.list(POD.path(place.namespace), labelSelector=f"{ROLE}={WORKER}")
        for each in found:
            made.add(each["metadata"]["uid"])
            if each["status"].get("phase") == "Running":
                name = each["metadata"]["name"]
                place.admin.patch(POD.path(place.namespace, name, "status"), {"status": status})
        time.sleep(0.1)
    assert len(made) in (2, 3), "one at once, then one in 10 s"
    record = home.get(cluster.id)
    assert (record.state, "exit code 1" in record.message) == (State.READY, True), record.message
    home.stop(cluster.id, Reason.STOPPED_BY_USER, "")
    eventually(lambda: place.left() == [], 60, lambda: f"{place.left()} is left")


def test_a_head_that_comes_after_another_cluster_got_its_name_is_nobodys(place: Simulated) -> None:
    """Its own was deleted while its pod was made; it must not read the other one's record, nor stumble over it."""
    place.put()
    spec = {"workload": {"template": "small"}}
    request = {"apiVersion": API_VERSION, "kind": CLUSTER.name, "metadata": {"name": "one"}, "spec": spec}
    made = place.admin.create(CLUSTER.path(place.namespace), request)
    with pytest.raises(NotFoundError, match="the record of one is another cluster's"):
        KubernetesDesk("gone", place.admin, place.namespace, "one").born("")
    place.admin.delete(CLUSTER.path(place.namespace, "one"), made["metadata"]["uid"])
