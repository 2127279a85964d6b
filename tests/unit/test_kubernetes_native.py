"""What the API server itself is to refuse, by its own language: ways past limits, and all that has to pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from shoal.homes.kubernetes.changes import ORDER, changes, key_of
from shoal.homes.kubernetes.dressing import dressed
from shoal.homes.kubernetes.manifests import held
from shoal.homes.kubernetes.names import (
    ADMISSION,
    ADMISSION_BINDING,
    BINDING,
    OF_CLUSTER,
    OF_SYSTEM,
    POD_HASH,
    ROLE,
    ROLE_OF,
    USER,
)
from shoal.homes.kubernetes.native import IN_FORCE, probe
from shoal.homes.kubernetes.pods import head_pod, runner_pod, service, worker_pod
from shoal.homes.kubernetes.structure import written
from shoal.homes.kubernetes.tending import On, Slot
from shoal.model.workload import ScriptRun, Via
from shoal.project.targets import Cloud, GovernorPod, Nodes, Target, Toleration
from shoal.units import Seconds

from ..kubernetes.native_tries import OWNER as FORGED
from ..kubernetes.native_tries import TRIES, Try, pod
from .admission_server import Asked, Json, Server
from .test_kubernetes_objects import OWNER, record

GOVERNOR = "system:serviceaccount:shoal-system:shoal-governor"
CONTROLLER = "system:serviceaccount:kube-system:replicaset-controller"
KUBERNETES = ("system:serviceaccounts", "system:serviceaccounts:kube-system")
CLASSES = [{"metadata": {"name": name}} for name in ("system-cluster-critical", "system-node-critical")]
THERE = pod("there", {"labels": {OF_CLUSTER: "u-1"}}, schedulerName="nobody")
OBJECTS = held(Target(name="place", home="kubernetes", kubernetes=Cloud()))


def server(cloud: Cloud | None = None, classes: list[Json] | None = None) -> Server:
    objects = held(Target(name="place", home="kubernetes", kubernetes=cloud or Cloud()))
    return Server(objects, CLASSES if classes is None else classes)


SERVER = server()


def added(there: Json, steps: list[Json]) -> Json:
    """What comes of steps that add to lists of the spec."""
    found = deepcopy(there)
    for step in steps:
        _, name, end = step["path"].removeprefix("/").split("/")
        assert (step["op"], end) == ("add", "-")
        found["spec"].setdefault(name, []).append(step["value"])
    return found


def patched(there: Any, patch: Any) -> Any:
    """A merge patch's outcome."""
    if not isinstance(patch, Mapping):
        return patch
    found = dict(there) if isinstance(there, Mapping) else {}
    for key, its in patch.items():
        if its is None:
            found.pop(key, None)
        else:
            found[key] = patched(found.get(key), its)
    return found


def request(it: Try, **more: Any) -> Asked:
    """As the API server puts a request to its policies."""
    resource, _, rest = it.path.partition("/")
    part = rest.partition("/")[2]
    if it.method == "DELETE":
        options = {
            key: its
            for key, its in {**(it.body or {}), **it.params}.items()
            if key not in ("apiVersion", "kind")
        }
        return Asked("DELETE", resource, None, THERE, part, options=options, **more)
    if it.method == "PATCH":
        new = added(THERE, it.body) if isinstance(it.body, list) else patched(THERE, it.body)
        return Asked("UPDATE", resource, new, THERE, part, **more)
    return Asked("CREATE", resource, it.body, None, part, **more)


@pytest.mark.parametrize("it", TRIES, ids=lambda it: it.name)
def test_each_way_is_refused_by_one_policy_and_by_no_other(it: Try) -> None:
    said = SERVER.refusals(request(it))
    assert list(said) == [f"shoal-system-{it.policy}"], "so without this one it succeeds"
    assert it.says in said[f"shoal-system-{it.policy}"]


def test_a_controller_or_an_operator_that_acts_for_a_user_is_refused_as_they_are() -> None:
    for it in TRIES:
        if it.policy in ("parts", "ends") and it.method == "DELETE":
            continue
        assert SERVER.refusals(request(it, user=CONTROLLER, groups=KUBERNETES)), it.name


def test_all_that_shoal_and_kubernetes_make_and_end_passes() -> None:
    cluster = replace(record(), plan=replace(record().plan, may_last=Seconds(3600)), run=ScriptRun("a.py"))
    spot = Nodes(tolerations=(Toleration(key="example.com/spot"),))
    patch = {"spec": {"tolerations": [{"operator": "Exists"}]}}
    cloud = Cloud.model_validate({"spot": spot.model_dump(), "pod": patch})
    made = [
        head_pod(cluster, OWNER),
        runner_pod(cluster, OWNER),
        *(worker_pod(cluster, OWNER, Slot(number, "default", on), 60.0) for number, on in enumerate(On)),
    ]
    own = server(cloud)
    for each in made:
        its = dressed(each, cluster.plan, cloud, {})
        assert own.refusals(Asked("CREATE", "pods", its, user=GOVERNOR)) == {}
        for grace in (0, 1, 5, 10, None):
            options = {} if grace is None else {"gracePeriodSeconds": grace}
            asked_ = Asked("DELETE", "pods", None, its, user=GOVERNOR, options=options)
            assert own.refusals(asked_) == {}
    assert own.refusals(Asked("CREATE", "services", service(cluster, OWNER), user=GOVERNOR)) == {}
    assert SERVER.refusals(Asked("CREATE", "pods", pod())) == {}, "what `beside:` leaves room for"
    every = {"may": lambda asked_: asked_["namespace"] == "kube-system"}
    for it in TRIES:
        if it.policy == "parts":  # schedulers, nodes, administrators
            assert SERVER.refusals(request(it, user="system:kube-scheduler", **every)) == {}, it.name
    # The garbage collector takes an owner off that is gone, a job's controller its finalizer.
    owned = pod("there", {"ownerReferences": [FORGED], "finalizers": ["batch.kubernetes.io/job-tracking"]})
    asked_ = Asked("UPDATE", "pods", pod("there"), owned, user="gc", may=lambda asked_: True)
    assert SERVER.refusals(asked_) == {}


def test_a_governor_that_somebody_runs_by_hand_is_one_by_what_it_may() -> None:
    head = head_pod(replace(record(), plan=replace(record().plan, may_last=Seconds(60))), OWNER)
    state = {"group": "shoal.dev", "resource": "shoalclusters", "subresource": "status", "check": "update"}

    def may(where: str) -> Any:
        return lambda asked_: asked_ == {**state, "namespace": where}

    everywhere = Asked("CREATE", "pods", head, user="admin", may=may("kube-system"))
    here = replace(everywhere, may=may("shoal-alice"))
    assert SERVER.refusals(everywhere) == {}
    assert list(SERVER.refusals(here)) == ["shoal-system-marks"]
    by_hand = server(Cloud(governor=GovernorPod(deployed=False)))
    assert by_hand.refusals(here) == {}
    assert list(by_hand.refusals(replace(here, may=lambda asked_: False))) == ["shoal-system-marks"]


def test_the_operators_pods_are_made_by_a_controller_where_there_is_an_operator() -> None:
    labels = {OF_CLUSTER: "u-1", ROLE: "worker", POD_HASH: "x"}
    its = pod(
        "w",
        {"labels": labels, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": "r"}]},
    )
    operated = server(Cloud(via=Via.OPERATOR))
    made = Asked("CREATE", "pods", its, user=CONTROLLER, groups=KUBERNETES)
    assert operated.refusals(made) == {}, "also without a deadline: a Deployment's pods have none"
    assert "shoal-system-marks" in SERVER.refusals(made)
    assert list(operated.refusals(replace(made, user="alice", groups=()))) == ["shoal-system-marks"]


def test_a_clusters_pod_without_a_deadline_is_refused_whoever_makes_it() -> None:
    head = head_pod(replace(record(), plan=replace(record().plan, may_last=None)), OWNER)
    said = SERVER.refusals(Asked("CREATE", "pods", head, user=GOVERNOR))
    assert list(said) == ["shoal-system-ends"]


def test_a_place_that_gives_pods_a_class_of_its_own_goes_on() -> None:
    common = {"metadata": {"name": "common"}, "globalDefault": True}
    urgent = {"metadata": {"name": "urgent"}}
    place = server(classes=[*CLASSES, urgent, common])
    assert place.refusals(Asked("CREATE", "pods", pod(priorityClassName="common"))) == {}
    said = place.refusals(Asked("CREATE", "pods", pod(priorityClassName="urgent")))
    assert "would end others as urgent" in said["shoal-system-priority"]


def test_tolerations_that_shoal_yaml_names_pass_and_those_that_are_there_stay() -> None:
    cloud = Cloud(spot=Nodes(tolerations=(Toleration(key="example.com/spot"),)))
    its = pod(tolerations=[{"key": "example.com/spot", "operator": "Exists"}])
    assert server(cloud).refusals(Asked("CREATE", "pods", its)) == {}
    assert list(SERVER.refusals(Asked("CREATE", "pods", its))) == ["shoal-system-nodes"]
    assert SERVER.refusals(Asked("UPDATE", "pods", its, its)) == {}, "of a pod of before"


# -- as objects ----------------------------------------------------------------------------------------------


def test_policies_come_before_rights_and_go_after_them() -> None:
    place = [kind.name for kind in ORDER]
    assert place.index(ADMISSION.name) < place.index(ADMISSION_BINDING.name) < place.index(ROLE_OF.name)
    right = {"apiVersion": "v1", "kind": BINDING.name, "metadata": {"name": "more", "namespace": "a"}}
    there = {key_of(each): each for each in [*OBJECTS, right]}
    found, _ = changes([], there, list(there), [])
    kinds = [each.kind for each in found]
    assert kinds[0] == BINDING.name
    assert kinds[-1] == ADMISSION.name
    added, _ = changes([right, *OBJECTS], {}, [], [])
    assert (added[0].kind, added[-1].kind) == (ADMISSION.name, BINDING.name)
    assert [each.name for each in added if each.kind == ADMISSION.name][-1] == f"shoal-system-{IN_FORCE}"


def test_what_a_name_stands_for_uses_names_before_it_alone_as_the_server_demands() -> None:
    for each in OBJECTS:
        before: set[str] = set()
        for its in each["spec"].get("variables", ()):
            assert set(re.findall(r"\bvariables\.(\w+)", its["expression"])) <= before, its
            before.add(its["name"])


def test_they_are_bound_to_users_namespaces_of_one_governor_alone() -> None:
    for each in OBJECTS:
        if each["kind"] != ADMISSION_BINDING.name:
            continue
        where = each["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
        assert {it["key"]: it.get("values") for it in where} == {USER: None, OF_SYSTEM: ["shoal-system"]}
        assert each["spec"]["validationActions"] == ["Deny"]
    assert all(each["spec"]["failurePolicy"] == "Fail" for each in OBJECTS if each["kind"] == ADMISSION.name)


def test_a_probe_is_refused_by_just_these_policies() -> None:
    tried = probe(OBJECTS)
    assert list(SERVER.refusals(Asked("CREATE", "pods", tried))) == [f"shoal-system-{IN_FORCE}"]
    assert server(Cloud(via=Via.OPERATOR)).refusals(Asked("CREATE", "pods", tried)) == {}
    assert written(probe(OBJECTS)) == written(tried)
    assert probe([]) is None
