"""A request in the queue whose process was killed does not take its turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.clusters import Cluster as Kubernetes

from shoal.client.clusters import open_project
from shoal.homes.choose import open_home
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.names import LEASE
from shoal.model.cluster import Reason, State

from .simulated import Simulated, simulated

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(180)]
WAITS = """
import sys, time
from shoal.client.clusters import open_project, prepare
from shoal.homes.base import Request
from shoal.homes.choose import open_home

settled = prepare("small", engine="dask", workers=1, project="{project}", queue=True, no_client="6 s")
home = open_home(open_project("{project}"))
home.request(Request("{name}", home.user(), settled.workload, settled.plan))
time.sleep(600)
"""


@pytest.fixture
def place(
    project: Path, kube_fleet: Kubernetes, fleet_admin: Api, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Simulated]:
    with simulated(kube_fleet, fleet_admin, project, monkeypatch) as found:
        yield found


def test_a_request_ends_whose_process_was_killed_and_one_that_is_waited_for_stays(
    place: Simulated, kube_fleet: Kubernetes, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    """By people of the rights that they have and no more."""
    place.govern()
    home = open_home(open_project(place.project))
    environment = {**os.environ, "KUBECONFIG": str(kube_fleet.kubeconfig_of("alice"))}

    def begin(name: str) -> subprocess.Popen[bytes]:
        script = tmp_path / f"{name}.py"
        script.write_text(WAITS.format(name=name, project=place.project))
        return subprocess.Popen([sys.executable, str(script)], env=environment)

    def state(name: str) -> State | None:
        found = home.find(name, "alice")
        return None if found is None else found.state

    began = []
    try:
        for name in ("one", "two"):
            began.append(begin(name))
        for name in ("one", "two"):
            eventually(lambda name=name: state(name) is State.READY, 60, f"{name} is Ready")
        for name in ("killed", "kept"):
            began.append(begin(name))
        eventually(lambda: len(place.admin.list(LEASE.path(place.namespace))[0]) == 2, 60, "both attend")
        assert (state("killed"), state("kept")) == (State.QUEUED, State.QUEUED)
        began[2].send_signal(signal.SIGKILL)
        eventually(lambda: state("killed") is State.STOPPED, 60, "its request ended")
        ended = home.find("killed", "alice")
        assert ended is not None
        assert ended.reason is Reason.CLIENT_GONE
        who = f"killed.py, process {began[2].pid} on "
        assert f"no client was waiting for it for 6 s; the last one was {who}" in ended.message
        assert state("kept") is State.QUEUED
    finally:
        for each in began:
            each.kill()
            each.wait()
