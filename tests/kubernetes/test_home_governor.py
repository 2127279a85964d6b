"""The governor on a real API server: it dies after any write, or is there twice, and what it governs is right."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from shoal.client.clusters import open_project, prepare
from shoal.errors import NotFoundError, QuotaExceededError, ShoalError
from shoal.governor.rounds import RoundPoint
from shoal.homes.base import Request, requested
from shoal.homes.choose import open_home
from shoal.homes.kubernetes.errors import RightsError
from shoal.homes.kubernetes.names import (
    ACCOUNT,
    ADMITTED,
    CLUSTER,
    DEFINITION,
    NAMESPACE,
    NETWORK,
    POD,
    PROJECT,
    QUOTA,
    ROLE,
    ROLE_OF,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    WORKER,
)
from shoal.homes.kubernetes.pods import head_pod
from shoal.model.cluster import Reason, State
from shoal.model.workload import ScriptRun, Workload

from .simulated import Killed, Simulated, ask

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(180)]
Eventually = Callable[..., Any]
# No machine's account and no team are on the way of these; and a head is told to end by its record, which is written.
REACHED = [point for point in RoundPoint if not any(word in point for word in ("place", "team", "told"))]


def test_whoever_governs_after_one_that_was_killed_goes_on(place: Simulated, eventually: Eventually) -> None:
    """In one life: at each point the governor dies once, and the next one takes over."""
    left, over = list(REACHED), threading.Event()

    def reached(here: RoundPoint) -> None:
        if here in left:
            left.remove(here)
            raise Killed

    def govern() -> None:
        while not over.is_set():
            place.govern(reached).join()

    threading.Thread(target=govern, daemon=True).start()
    try:
        home = open_home(open_project(place.project))
        cluster = ask(home, place.project, "one", run=ScriptRun("nightly.py"))
        eventually(lambda: home.get(cluster.id).state is State.READY, 60, "it is Ready")
        home.scale(cluster.id, 2)
        eventually(lambda: home.get(cluster.id).workers == 2, 60, "it grew")
        home.scale(cluster.id, 1)
        eventually(lambda: home.get(cluster.id).workers == 1, 60, "it shrank")
        home.stop(cluster.id, Reason.STOPPED_BY_USER, "no longer needed")
        eventually(lambda: home.get(cluster.id).state is State.STOPPED, 60, "it ended")
        assert home.get(cluster.id).message == "no longer needed"
        eventually(lambda: place.left() == [], 60, lambda: f"{place.left()} is left")
        # A write is seen before its governor comes to the point.
        eventually(lambda: left == [], 10, lambda: f"no governor died at {left}")
    finally:
        over.set()


def test_two_governors_at_once_never_admit_too_much(
    place: Simulated, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
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
    assert ADMITTED not in caplog.text, "what was admitted has room at once"
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


@contextmanager
def policy(place: Simulated, expression: str, sentence: str, operation: str = "CREATE") -> Iterator[None]:
    """An admission policy of the place for pods of this namespace, in force inside the block."""
    name = f"{place.namespace}-tight"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": ["pods"]}]
    checks = [{"expression": expression, "message": sentence}]
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": place.namespace}}}
    root = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    made = [
        (f"{root}ies", "", {"matchConstraints": {"resourceRules": rules}, "validations": checks}),
        (
            f"{root}ybindings",
            "Binding",
            {"policyName": name, "validationActions": ["Deny"], "matchResources": here},
        ),
    ]
    for path, kind, spec in made:
        head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": f"ValidatingAdmissionPolicy{kind}"}
        place.admin.create(path, {**head, "metadata": {"name": name}, "spec": spec})
    try:
        yield
    finally:
        for path, _, _ in made:
            place.admin.delete(f"{path}/{name}")


def test_what_the_place_refuses_is_told_of_that_cluster_and_keeps_nobody_else(
    place: Simulated, eventually: Eventually
) -> None:
    """Told with the server's own sentence, also one that reads like a lack of rights; and tried again."""
    home = open_home(open_project(place.project))
    sentence = "here pods cannot be called picky"
    foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "sound-head"}}
    place.admin.create(SERVICE.path(place.namespace), foreign | {"spec": {"ports": [{"port": 1}]}})
    with policy(place, "!object.metadata.name.startsWith('picky')", sentence):

        def refused() -> bool:
            owner = {"metadata": {"name": "picky", "namespace": place.namespace, "uid": "u"}}
            plan = prepare("small", engine="dask", project=place.project).plan
            request = Request("picky", "alice", Workload("small"), plan)
            pod = head_pod(requested(request, "u", None, 0.0, ""), owner)
            try:
                place.admin.patch(
                    POD.path(place.namespace, "picky-head"), pod, "apply", fieldManager="test", dryRun="All"
                )
            except ShoalError as error:
                return sentence in error.message
            return False  # a policy is in force a moment after it is there

        eventually(refused, 30, "the policy is in force")
        place.govern()
        picky = ask(home, place.project, "picky")
        sound = ask(home, place.project, "sound")
        eventually(lambda: sentence in home.get(picky.id).message, 20, "its record says why")
        says = (
            "its head: Service sound-head is there already and is somebody else's (`kubectl describe service "
        )
        eventually(lambda: says in home.get(sound.id).message, 20, lambda: home.get(sound.id).message)
        place.admin.delete(SERVICE.path(place.namespace, "sound-head"))
        eventually(lambda: home.get(sound.id).state is State.READY, 60, "the other one is Ready")
        assert place.governors[0][0].fault == ""
        found = home.get(picky.id)
        assert (found.state, found.reason) == (State.ADMITTED, Reason.PLACE_REFUSED)
        (condition,) = place.admin.get(CLUSTER.path(place.namespace, "picky"))["status"]["conditions"]
        assert (condition["reason"], sentence in condition["message"]) == ("PlaceRefused", True)
    quota = {"metadata": {"name": "tight"}, "spec": {"hard": {"pods": "3", "requests.memory": "4G"}}}
    place.admin.create(QUOTA.path(place.namespace), {"apiVersion": "v1", "kind": "ResourceQuota", **quota})

    # Now its head is taken, and there is no room for its worker.
    said = "quota 'tight' of namespace "
    eventually(lambda: said in home.get(picky.id).message, 60, lambda: f"it says so: {home.get(picky.id)}")
    found = home.get(picky.id)
    assert found.state is State.STARTING
    assert "no room for a worker: pods 1 asked for, 3 of 3 used" in found.message
    words = ["why", "picky", "--project", str(place.project), "-o", "json"]
    answer = subprocess.run(
        [sys.executable, "-m", "shoal", *words], capture_output=True, timeout=120, check=True
    )
    steps = {each["stage"]: each for each in json.loads(answer.stdout)["steps"]}
    assert "pods 1 asked for, 3 of 3 used" in steps["start-up"]["said"]
    place.admin.delete(QUOTA.path(place.namespace, "tight"))
    eventually(lambda: home.get(picky.id).state is State.READY, 60, "it is tried again")
    assert said not in home.get(picky.id).message
    home.stop(picky.id, Reason.STOPPED_BY_USER, "done")

    # What keeps a pod from being ended is told, too, and holds what it was admitted.
    sentence = "here pods are not deleted"
    with policy(place, "false", sentence, "DELETE"):
        path = POD.path(place.namespace, "sound-w-0")
        kept = lambda: place.admin._request("DELETE", path, params={"dryRun": "All"}).status_code == 422  # noqa: E731
        eventually(kept, 30, "the policy is in force")
        home.stop(sound.id, Reason.STOPPED_BY_USER, "done")
        eventually(lambda: sentence in home.get(sound.id).message, 30, "its record says why it does not end")
        assert home.get(sound.id).state is State.STOPPING
        assert home.held(home.user()).admitted
    eventually(lambda: place.left() == [], 60, "nothing is left")
    assert home.get(sound.id).state is State.STOPPED


def test_the_governors_account_may_nothing_but_govern(place: Simulated) -> None:
    """What it may is what it does in every test here; and it may not, for one, give itself or anybody more."""
    governor, here = place.governors_own(), place.namespace
    role = {"apiVersion": ROLE_OF.group_version, "kind": "Role", "metadata": {"name": "more"}, "rules": []}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine"}, "spec": {"containers": []}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "more"}}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "more"}, "spec": {}}
    refused: dict[str, Callable[[], object]] = {
        "make Roles": lambda: governor.create(ROLE_OF.path(here), role),
        "make Roles at home": lambda: governor.create(ROLE_OF.path(place.system), role),
        "make pods at home": lambda: governor.create(POD.path(place.system), pod),
        "make pods where nobody is a user": lambda: governor.create(POD.path("kube-system"), pod),
        "change pods": lambda: governor.patch(POD.path(here, "one"), {"metadata": {"labels": {"a": "b"}}}),
        "run in pods": lambda: governor.create(POD.path(here, "one", "exec"), {}),
        "list Secrets": lambda: governor.list(SECRET.path(here)),
        "read other Secrets": lambda: governor.get(SECRET.path(here, "s3-keys")),
        "make Secrets": lambda: governor.create(SECRET.path(here), secret),
        "take a head's account": lambda: governor.create(
            SERVICE_ACCOUNT.path(here, "shoal-head", "token"), {}
        ),
        "change requests": lambda: governor.patch(CLUSTER.path(here, "one"), {"spec": {"replicas": 9}}),
        "change what is applied": lambda: governor.patch(PROJECT.path(place.system, "office"), {"spec": {}}),
        "change namespaces": lambda: governor.patch(NAMESPACE.path(name=here), {"metadata": {"labels": {}}}),
        "end namespaces": lambda: governor.delete(NAMESPACE.path(name=here)),
        "change other quotas": lambda: governor.patch(QUOTA.path(here, "shoal"), {"spec": {}}),
        "change Roles": lambda: governor.patch(ROLE_OF.path(here, "shoal-user"), {"rules": []}),
        "change NetworkPolicies": lambda: governor.delete(NETWORK.path(here, "shoal")),
        "make other quotas": lambda: governor.create(QUOTA.path(here), quota),
        "change definitions": lambda: governor.delete(DEFINITION.path(name="shoalclusters.shoal.dev")),
    }
    try:
        for what, tried in refused.items():
            print(what)
            with pytest.raises(RightsError, match=f"{place.system}:shoal-governor.* cannot "):
                tried()
    finally:
        governor.close()


def test_an_object_that_is_deleted_takes_all_of_its_cluster_with_it(
    place: Simulated, eventually: Eventually
) -> None:
    place.govern()
    home = open_home(open_project(place.project))
    cluster = ask(home, place.project, "gone")
    eventually(lambda: home.get(cluster.id).state is State.READY, 60, "it is Ready")
    place.admin.delete(f"/apis/shoal.dev/v1alpha1/namespaces/{place.namespace}/shoalclusters/gone")
    # Kubernetes collects what belongs to an object of a kind that is new to it after half a minute.
    eventually(lambda: place.left() == [], 60, lambda: f"nothing of it is left, and not {place.left()}")
    eventually(lambda: home.find("gone", "alice") is not None, 60, "it is found in its object's place")
    ended = home.get(cluster.id)
    assert (ended.state, ended.message) == (State.STOPPED, "its object was deleted")
    assert ended.ended_at is not None
    assert ended.ended_at > (ended.ready_at or ended.ended_at), "what it took until then is told, and paid"

    # The same where nobody governs meanwhile.
    unseen = ask(home, place.project, "unseen")
    eventually(lambda: home.get(unseen.id).state is State.READY, 60, "it is Ready")
    program, thread = place.governors.pop()
    program.stop()
    thread.join()
    place.admin.delete(CLUSTER.path(place.namespace, "unseen"))
    with pytest.raises(NotFoundError):
        home.get(unseen.id)
    place.govern()
    eventually(lambda: home.find("unseen", "alice") is not None, 60, "it is found in its object's place")
    assert home.get(unseen.id).message == "its object was deleted"
