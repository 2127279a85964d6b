"""What the API server itself refuses in a user's namespace, tried on a real one: by a user as we give them rights, and
by one with rights on pods that somebody else gave them. Each refusal is one policy's: without it the try succeeds.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from cluster import waiting
from cluster.api import Api, ApiError
from cluster.clusters import Cluster as Kubernetes

from shoal.homes.kubernetes import api as own
from shoal.homes.kubernetes.manifests import cluster_wide, held, of_user, person
from shoal.homes.kubernetes.names import (
    ADMISSION,
    ADMISSION_BINDING,
    API_VERSION,
    CLUSTER,
    GOVERNOR,
    GROUP,
    NAMESPACE,
    OF_CLUSTER,
    RBAC,
    RECORD,
    ROLE,
    SERVICE_ACCOUNT,
    Kind,
)
from shoal.homes.kubernetes.native import IN_FORCE, probe
from shoal.homes.kubernetes.native_clusters import LIMIT, notes
from shoal.homes.kubernetes.objects import Spec, asked
from shoal.model.resource import Resource
from shoal.project.policy import Limit, Limits
from shoal.project.targets import Cloud, Target
from shoal.units import Bytes, Seconds

from .installing import apply, remove
from .native_requests import drawn, planned
from .native_tries import DAY, MERGE, STEPS, TARGET, TRIES, Try, pod

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(180)]
Json = dict[str, Any]
POLICIES = tuple(dict.fromkeys(each.policy for each in TRIES))
LIMITS = Limits(
    "alice",
    "standard",
    None,
    1.0,
    {Resource.MEMORY: Limit(Bytes(6_000_000_000), "tier standard")},
    {
        Resource.WORKERS: Limit(3, "tier standard"),
        Resource.DURATION: Limit(Seconds(5400), "tier standard"),
    },
)
PARTS = [f"pods/{part}" for part in ("binding", "ephemeralcontainers", "eviction", "status")]
STATE = f"{CLUSTER.plural}/status"
RAW = [
    {"apiGroups": [""], "resources": ["pods", *PARTS, "bindings", "services"], "verbs": ["*"]},
    {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
    {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["*"]},
    {"apiGroups": [GROUP], "resources": [CLUSTER.plural, RECORD.plural, STATE], "verbs": ["*"]},
]


@dataclass
class Held:
    """alice's namespaces, one of them with rights that somebody else gave her there (``raw``)."""

    admin: own.Api
    root: Api
    alice: Api
    governor: Api
    system: str
    ours: str
    raw: str
    objects: list[Json]

    def send(self, it: Try, namespace: str, api: Api | None = None) -> None:
        """Only tried; ApiError."""
        kind = "" if it.method != "PATCH" else STEPS if isinstance(it.body, list) else MERGE
        path = it.path if it.path.startswith("/") else f"/api/v1/namespaces/{namespace}/{it.path}"
        (api or self.alice).request(it.method, path, it.body, kind, dryRun="All", **it.params)

    def refused(self, it: Try, namespace: str, api: Api | None = None) -> str:
        try:
            self.send(it, namespace, api)
        except ApiError as error:
            return f"{error.status} {error.reason}: {error.message}"
        return ""

    @contextmanager
    def without(self, policy: str, refused: Callable[[], str]) -> Iterator[None]:
        """That policy is not bound; what it refused tells that it is so, and that it is back."""
        name = f"{self.system}-{policy}"
        (binding,) = [
            each
            for each in self.objects
            if each["kind"] == ADMISSION_BINDING.name and each["metadata"]["name"] == name
        ]
        self.admin.delete(ADMISSION_BINDING.path(name=name))
        try:
            waiting.until(f"{policy} is gone", lambda: not refused(), seconds=20)
            yield
        finally:
            apply(self.admin, [binding])
            waiting.until(f"{policy} is back", refused, seconds=20)

    def in_force(self) -> bool:
        tried = probe(self.objects)
        assert tried is not None
        said = self.refused(Try("", "", "", "POST", "pods", tried), self.raw, self.root)
        return f"'{self.system}-{IN_FORCE}'" in said


@pytest.fixture(scope="module")
def held_(kube_fleet: Kubernetes, fleet_admin: own.Api) -> Iterator[Held]:
    mark = secrets.token_hex(3)
    system, ours, raw = f"system-{mark}", f"ours-{mark}", f"raw-{mark}"
    objects = held(Target(name="place", home="kubernetes", kubernetes=Cloud(system=system)))
    said = notes(LIMITS)
    users = [
        each for name in (ours, raw) for each in of_user("alice", name, [person("alice")], system, notes=said)
    ]
    apply(fleet_admin, [*cluster_wide(system), *objects, *users])
    role = {"apiGroup": RBAC, "kind": "Role", "name": "raw"}
    who = [{"kind": "User", "name": "alice", "apiGroup": RBAC}]
    for kind, more in (("Role", {"rules": RAW}), ("RoleBinding", {"roleRef": role, "subjects": who})):
        made = {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": {"name": "raw", "namespace": raw}}
        apply(fleet_admin, [made | more])
    admin, alice = kube_fleet.admin, kube_fleet.user("alice")
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    given = fleet_admin.create(SERVICE_ACCOUNT.path(system, GOVERNOR, "token"), token)
    governor = Api(admin._server, admin._context, {"Authorization": f"Bearer {given['status']['token']}"})
    place = Held(fleet_admin, admin, alice, governor, system, ours, raw, objects)
    waiting.until("the policies are in force", place.in_force, seconds=30)
    # Which is on a node: what waits for one is deleted at once, however long it was given.
    bound = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "there"}, "target": TARGET}
    for name in (ours, raw):
        path = f"/api/v1/namespaces/{name}/pods"
        for its, labels in (("there", {OF_CLUSTER: "u-1"}), ("waits", {})):
            admin.request(
                "POST", path, pod(its, {"labels": labels}, schedulerName="none", activeDeadlineSeconds=DAY)
            )
        admin.request("POST", f"{path}/there/binding", bound)
    waiting.until("her rights are in force", lambda: alice.items(f"/api/v1/namespaces/{raw}/services") == [])
    try:
        yield place
    finally:
        remove(fleet_admin, ours, system)
        fleet_admin.delete(NAMESPACE.path(name=raw))
        for each in (alice, governor, admin):
            each.close()


def test_the_server_finds_no_fault_in_them_and_another_tool_may_bring_the_same(held_: Held) -> None:
    for each in held_.objects:
        held_.root.apply(each, force="false", dryRun="All")  # a conflict is an ApiError
        path = held_.root.path_of(each)
        if each["kind"] == ADMISSION.name:
            checked = waiting.until("its types are checked", lambda path=path: held_.root.get(path)["status"])
            assert checked["typeChecking"] == {}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_user_as_we_give_them_rights_may_not_even_try(held_: Held, policy: str) -> None:
    said = {each.name: held_.refused(each, held_.ours) for each in TRIES if each.policy == policy}
    assert [name for name, its in said.items() if 'User "alice" cannot ' not in its] == []


@pytest.mark.parametrize("policy", POLICIES)
def test_a_user_with_rights_on_pods_is_refused_by_the_policy_with_its_sentence(
    held_: Held, policy: str
) -> None:
    for each in TRIES:
        if each.policy == policy:
            said = held_.refused(each, held_.raw)
            assert said.startswith("403 Forbidden"), f"{each.name}: {said}"
            assert f"ValidatingAdmissionPolicy '{held_.system}-{policy}'" in said, each.name
            assert each.says in said, each.name


def test_a_controller_that_acts_for_a_user_is_refused_as_they_are(held_: Held) -> None:
    """alice has a ReplicaSet make a pod that says it is a worker; it is told why none comes."""
    forged = pod("", {"labels": {ROLE: "worker", "app": "forged"}})
    template = {"metadata": forged["metadata"], "spec": forged["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "forged"}}, "template": template}
    path = f"/apis/apps/v1/namespaces/{held_.raw}/replicasets"
    made = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "forged"}, "spec": spec}
    held_.alice.request("POST", path, made)

    def told() -> str:
        status = held_.root.get(f"{path}/forged")["status"]
        return " ".join(each.get("message", "") for each in status.get("conditions", ()))

    said = waiting.until("it is told", told, seconds=30)
    assert "is said by Shoal's governor alone" in said
    held_.root.request("DELETE", f"{path}/forged")


def test_a_request_above_a_limit_is_refused_as_the_library_says_it_and_not_without_the_policy(
    held_: Held,
) -> None:
    path = f"/apis/{API_VERSION}/namespaces/{held_.ours}/{CLUSTER.plural}"
    spec = {"workload": {"template": "etl", "workers": 9}}
    wish = {"apiVersion": API_VERSION, "kind": CLUSTER.name, "metadata": {"name": "large"}, "spec": spec}
    small = wish | {"metadata": {"name": "small"}, "spec": {"workload": {"template": "etl", "workers": 3}}}

    other = small | {"metadata": {"name": "other"}}

    def said(method: str, to: str, body: Json, kind: str = "") -> str:
        try:
            held_.alice.request(method, to, body, kind, dryRun="All")
        except ApiError as error:
            return f"{error.status} {error.reason}: {error.message}"
        return ""

    refused = said("POST", path, wish)
    assert refused.startswith("403 Forbidden")
    assert refused.endswith("large requests 9 workers; the limit per cluster is 3 workers: tier standard")
    assert said("POST", path, small) == ""
    held_.alice.request("POST", path, small)
    more = {"spec": {"replicas": 9}}
    for to in (f"{path}/small", f"{path}/small/scale"):
        assert "small requests 9 workers; the limit" in said("PATCH", to, more, MERGE)
        assert said("PATCH", to, {"spec": {"replicas": 2}}, MERGE) == ""
    orphan = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}
    assert "--cascade=orphan" in said("DELETE", f"{path}/small", orphan)
    namespace = f"/api/v1/namespaces/{held_.ours}"
    key = f"{LIMIT}workers"
    note = held_.root.get(namespace)["metadata"]["annotations"][key]
    for broken in (None, "three workers", "-1 x"):
        held_.root.patch(namespace, {"metadata": {"annotations": {key: broken}}})
        waiting.until(
            "it is seen",
            lambda: "`shoal apply`" in said("POST", path, other),
            seconds=20,
        )
        assert said("PATCH", f"{path}/small", {"spec": {"stop": {"message": "enough"}}}, MERGE) == ""
        held_.root.patch(namespace, {"metadata": {"annotations": {key: note}}})
        waiting.until(
            "it is as it was",
            lambda: said("POST", path, other) == "",
            seconds=20,
        )
    held_.root.patch(namespace, {"metadata": {"annotations": {key: note}}})
    with held_.without("limits", lambda: said("POST", path, wish)):
        assert said("PATCH", f"{path}/small", more, MERGE) == ""
    held_.alice.request("DELETE", f"{path}/small")


def test_the_server_refuses_of_drawn_requests_what_a_plan_refuses_in_its_words(held_: Held) -> None:
    dice, counts = random.Random(15), {True: 0, False: 0}
    path = f"/apis/{API_VERSION}/namespaces/{held_.ours}/{CLUSTER.plural}"
    for _ in range(300):
        workload = drawn(dice)
        error = planned(workload, LIMITS)
        body = dict(asked("nightly", held_.ours, Spec(workload)))
        said = held_.refused(Try("", "", "", "POST", path, body), "")
        assert bool(error) == bool(said), f"{workload}\n{error}\n{said}"
        counts[bool(said)] += 1
        if error is not None:
            sentence = said.partition("denied request: ")[2].replace("nightly", "etl", 1)
            assert sentence in error.message.splitlines(), f"{said}\n{error.message}"
    assert min(counts.values()) >= 90, counts


def test_an_amount_that_is_null_is_one_that_was_not_asked_for(held_: Held) -> None:
    """Nobody is told of an expression that went wrong."""
    path = f"/apis/{API_VERSION}/namespaces/{held_.ours}/{CLUSTER.plural}"
    nulls = dict.fromkeys(("maxDuration", "cores", "memory", "gpu", "priority", "workers", "spot"))
    for workers, says in (
        (None, ""),
        (9, "no-number requests 9 workers; the limit per cluster is 3 workers"),
    ):
        workload = {"template": "etl"} | nulls | {"workers": workers}
        spec = {"workload": workload, "lifetime": None}
        body = {
            "apiVersion": API_VERSION,
            "kind": CLUSTER.name,
            "metadata": {"name": "no-number"},
            "spec": spec,
        }
        assert says in (said := held_.refused(Try("", "", "", "POST", path, body), "")), said
        assert bool(says) == bool(said), said
    body["spec"] = {"workload": {"template": "etl"}, "replicas": None}
    assert ".spec.replicas: Invalid value" in held_.refused(Try("", "", "", "POST", path, body), "")


def test_the_state_of_clusters_is_written_by_who_governs_alone(held_: Held) -> None:
    """Also where somebody gave alice rights on it: it says whose a cluster is, and what it took."""
    base = f"/apis/{API_VERSION}/namespaces/{held_.raw}"
    clusters, records = f"{base}/{CLUSTER.plural}", f"{base}/{RECORD.plural}"

    def made(kind: Kind, of: str, **more: Any) -> Json:
        return {"apiVersion": API_VERSION, "kind": kind.name, "metadata": {"name": of}, **more}

    held_.alice.request("POST", clusters, made(CLUSTER, "hers", spec={"workload": {"template": "etl"}}))
    held_.governor.request("POST", records, made(RECORD, "old", name="old"))
    tries = [
        Try("its state", "state", "", "PATCH", f"{clusters}/hers/status", {"status": {"workers": 1}}),
        Try("a record", "state", "", "POST", records, made(RECORD, "new", name="new")),
        Try("what it took", "state", "", "PATCH", f"{records}/old", {"name": "other"}),
        Try("no record", "state", "", "DELETE", f"{records}/old", None),
    ]
    for each in tries:
        said = held_.refused(each, "")
        assert f"ValidatingAdmissionPolicy '{held_.system}-state'" in said, f"{each.name}: {said}"
        assert "are said by Shoal's governor alone" in said
        assert held_.refused(each, "", held_.governor) == "", each.name
    with held_.without("state", lambda: held_.refused(tries[0], "")):
        assert {each.name: held_.refused(each, "") for each in tries} == {each.name: "" for each in tries}
    held_.governor.request("DELETE", f"{records}/old")
    held_.alice.request("DELETE", f"{clusters}/hers")


def test_a_clusters_pod_has_a_deadline_whoever_makes_it(held_: Held) -> None:
    marks = {"labels": {OF_CLUSTER: "u-1"}}
    it = Try("a head for ever", "ends", "", "POST", "pods", pod("head", marks))
    assert "a cluster's pod has a deadline" in held_.refused(it, held_.raw, held_.governor)
    ends = it._replace(body=pod("head", marks, activeDeadlineSeconds=DAY))
    assert held_.refused(ends, held_.raw, held_.governor) == ""
    with held_.without("ends", lambda: held_.refused(it, held_.raw, held_.governor)):
        pass


@pytest.mark.parametrize("policy", POLICIES)
def test_without_its_policy_each_of_these_tries_succeeds(held_: Held, policy: str) -> None:
    its = [each for each in TRIES if each.policy == policy]
    with held_.without(policy, lambda: held_.refused(its[0], held_.raw)):
        assert {each.name: held_.refused(each, held_.raw) for each in its} == {each.name: "" for each in its}
