"""The governor on a real API server: it dies after any write, or is there twice, and what it governs is right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cluster.clusters import Cluster as Kubernetes

from shoal.client.clusters import open_project, prepare
from shoal.errors import QuotaExceededError, ShoalError
from shoal.governor.rounds import RoundPoint
from shoal.homes.base import Home, Request
from shoal.homes.choose import open_home
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.names import ACCOUNT, POD, ROLE, WORKER
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import ScriptRun

from .simulated import Killed, Simulated, simulated

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(180)]
Eventually = Callable[..., Any]
# No machine's account and no team are on the way of these; and a head is told to end by its record, which is written.
REACHED = [point for point in RoundPoint if not any(word in point for word in ("place", "team", "told"))]


@pytest.fixture
def place(
    project: Path, kube_fleet: Kubernetes, fleet_admin: Api, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Simulated]:
    with simulated(kube_fleet, fleet_admin, project, monkeypatch) as found:
        file = project / "shoal.yaml"
        lines = [line for line in file.read_text().splitlines() if "machine:" not in line]
        file.write_text("\n".join(lines) + "\n")
        yield found


def ask(
    home: Home, project: Path, name: str, workers: int = 1, run: ScriptRun | None = None, **more: Any
) -> Cluster:
    settled = prepare("small", engine="dask", workers=workers, project=project, **more)
    return home.request(Request(name, home.user(), settled.workload, settled.plan, run=run))


@pytest.mark.parametrize("point", REACHED, ids=lambda point: point.name.lower())
def test_whoever_governs_after_one_that_was_killed_goes_on(
    place: Simulated, point: RoundPoint, eventually: Eventually
) -> None:
    died = threading.Event()

    def reached(here: RoundPoint) -> None:
        if here is point and not died.is_set():
            died.set()
            raise Killed

    first = place.govern(reached)
    home = open_home(open_project(place.project))
    threading.Thread(target=lambda: first.join() or place.govern(), daemon=True).start()  # type: ignore[func-returns-value]
    run = ScriptRun("nightly.py") if "script" in point else None
    cluster = ask(home, place.project, "one", run=run)
    eventually(lambda: home.get(cluster.id).state is State.READY, 60, "it is Ready")
    home.scale(cluster.id, 2)
    eventually(lambda: home.get(cluster.id).workers == 2, 60, "it grew")
    home.scale(cluster.id, 1)
    eventually(lambda: home.get(cluster.id).workers == 1, 60, "it shrank")
    home.stop(cluster.id, Reason.STOPPED_BY_USER, "no longer needed")
    eventually(lambda: home.get(cluster.id).state is State.STOPPED, 60, "it ended")
    assert home.get(cluster.id).message == "no longer needed"
    eventually(lambda: place.left() == [], 60, "nothing is left, and no account holds anything")
    assert died.wait(10), "it was never there"  # a write is seen before its governor comes to the point
    eventually(lambda: len(place.governors) == 2, 30, "the next one governs")


def test_two_governors_at_once_never_admit_too_much(place: Simulated, eventually: Eventually) -> None:
    """Twelve ask at once for what two may have; what is held is watched all the while."""
    place.govern()
    place.govern()
    over: list[str] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for account in place.admin.list(ACCOUNT.path(place.system))[0]:
                held = account.get("status", {}).get("admitted", {})
                if len(held) > 2:
                    over.append(f"{len(held)} clusters")
            pods, _ = place.admin.list(POD.path(place.namespace), labelSelector=f"{ROLE}={WORKER}")
            if len(pods) > 2:
                over.append(f"{len(pods)} workers")
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()

    def one(number: int) -> str:
        home = open_home(open_project(place.project))
        try:
            cluster = ask(home, place.project, f"c-{number}")
        except QuotaExceededError:
            return "refused"
        eventually(lambda: home.get(cluster.id).state is State.READY, 60, "it is Ready")
        time.sleep(0.5)
        home.stop(cluster.id, Reason.STOPPED_BY_USER, "done")
        eventually(lambda: home.get(cluster.id).state.ended, 60, "it ended")
        return "ran"

    try:
        with ThreadPoolExecutor(12) as pool:
            outcomes = list(pool.map(one, range(12)))
        eventually(lambda: place.left() == [], 60, "nothing is left")
    finally:
        ended.set()
        watcher.join()
    assert over == []
    assert outcomes.count("ran") >= 2
    assert set(outcomes) <= {"ran", "refused"}


def test_without_a_governor_a_request_says_so_and_starts_once_there_is_one(
    place: Simulated, eventually: Eventually
) -> None:
    home = open_home(open_project(place.project))
    waiting = ask(home, place.project, "patient", queue=True)
    assert (waiting.state, waiting.reason) == (State.QUEUED, Reason.GOVERNOR_AWAY)
    assert "shoal doctor" in home.unresponsive(waiting)
    place.govern()
    eventually(lambda: home.get(waiting.id).state is State.READY, 60, "it is Ready")
    home.stop(waiting.id, Reason.STOPPED_BY_USER, "done")
    eventually(lambda: place.left() == [], 60, "nothing is left")


def test_one_cluster_that_cannot_be_read_does_not_stop_the_others(
    place: Simulated, eventually: Eventually
) -> None:
    body = {
        "apiVersion": "shoal.dev/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "nonsense", "namespace": place.namespace},
        "spec": {"workload": {"template": "small", "workers": {"many": True}}},
    }
    place.admin.create(f"/apis/shoal.dev/v1alpha1/namespaces/{place.namespace}/shoalclusters", body)
    place.govern()
    home = open_home(open_project(place.project))
    cluster = ask(home, place.project, "sound")
    eventually(lambda: home.get(cluster.id).state is State.READY, 60, "it is Ready")
    home.stop(cluster.id, Reason.STOPPED_BY_USER, "done")
    eventually(lambda: home.get(cluster.id).state.ended, 60, "it ended")


def test_an_object_that_is_deleted_takes_all_of_its_cluster_with_it(
    place: Simulated, eventually: Eventually
) -> None:
    place.govern()
    home = open_home(open_project(place.project))
    cluster = ask(home, place.project, "gone")
    eventually(lambda: home.get(cluster.id).state is State.READY, 60, "it is Ready")
    place.admin.delete(f"/apis/shoal.dev/v1alpha1/namespaces/{place.namespace}/shoalclusters/gone")
    eventually(
        lambda: [each for each in place.left() if not each.startswith("shoal-access/")] == [],
        60,
        "nothing is left",
    )
    with pytest.raises(ShoalError):
        home.get(cluster.id)
