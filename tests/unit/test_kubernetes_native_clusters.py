"""What the API server itself is to refuse of requests for clusters: the same as a plan, in the same words."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from shoal.errors import NeverFitsError
from shoal.homes.kubernetes.errors import ObjectRefusedError
from shoal.homes.kubernetes.native_clusters import LIMIT, notes
from shoal.homes.kubernetes.objects import Spec, asked
from shoal.homes.kubernetes.refusals import by_limit
from shoal.model.resource import Resource
from shoal.model.workload import Workload
from shoal.project.policy import Limit, Limits
from shoal.quota.account import Shortage
from shoal.units import Bytes, Seconds

from ..kubernetes.native_requests import drawn, planned
from .admission_server import Asked, Json
from .test_kubernetes_native import GOVERNOR, KUBERNETES, SERVER

GB = 10**9


def limits(team: bool = False, **more: float) -> Limits:
    def limit(what: str, value: float) -> Limit:
        return Limit(more.get(what, value), "tier standard (policies/tiers.yaml:1)")

    totals = {
        Resource.CLUSTERS: limit("clusters", 2),
        Resource.MEMORY: Limit(Bytes(more.get("memory", 6 * GB)), "tier standard (policies/tiers.yaml:1)"),
        Resource.GPUS: limit("gpus", 0),
    }
    if "cores" in more:
        totals[Resource.CORES] = limit("cores", 0)
    per_cluster = {
        Resource.WORKERS: limit("workers", 3),
        Resource.HEAD: Limit(Bytes(2 * GB), "tier standard"),
        Resource.DURATION: Limit(
            Seconds(more.get("duration", 4 * 3600)), "tier standard (policies/tiers.yaml:1)"
        ),
    }
    if "priority" in more:
        per_cluster[Resource.PRIORITY] = limit("priority", 0)
    both = {Resource.MEMORY: Limit(Bytes(4 * GB), "team growth")} if team else {}
    return Limits("alice", "standard", "growth" if team else None, 1.0, totals, per_cluster, both)


def cluster(workload: Workload, **more: Any) -> Json:
    return json.loads(json.dumps(asked("nightly", "shoal-alice", Spec(workload, **more))))


def wishes(old: Json, status: Json | None = None, **spec: Any) -> Asked:
    old = old | ({"status": status} if status else {})
    new = old | {"spec": {**old["spec"], **spec}}
    return Asked("UPDATE", "shoalclusters", new, old, group="shoal.dev")


def refused(asked_: Asked, its: Limits | None) -> str:
    said = SERVER.refusals(replace(asked_, notes=notes(its) if its is not None else {}))
    assert set(said) <= {"shoal-system-limits"}
    return said.get("shoal-system-limits", "")


def made(workload: Workload, **more: Any) -> Asked:
    return Asked("CREATE", "shoalclusters", cluster(workload, **more), group="shoal.dev")


def test_what_is_asked_for_is_refused_where_a_plan_refuses_it_and_nowhere_else() -> None:
    """Hundreds of requests; a refusal's sentence is one of the plan's, with the cluster's name."""
    dice, counts = random.Random(15), {True: 0, False: 0}
    for _ in range(600):
        most = dice.choice((3, 8, 8))
        its = limits(
            team=dice.random() < 0.3,
            workers=most,
            memory=dice.choice((6, 40, 40)) * GB,
            gpus=dice.choice((0, 0, 4)),
            duration=dice.choice((3600, 43200, 43200)),
            **({"cores": dice.choice((4, 16))} if dice.random() < 0.5 else {}),
            **({"priority": dice.choice((0, 5))} if dice.random() < 0.5 else {}),
        )
        workload = drawn(dice)
        error, said = planned(workload, its), refused(made(workload), its)
        assert bool(error) == bool(said), f"{workload}\n{its}\n{error}\n{said}"
        counts[bool(said)] += 1
        if error is not None:
            assert said.replace("nightly", "etl", 1) in error.message.splitlines(), f"{said}\n{error.message}"
    assert min(counts.values()) > 180, counts


@pytest.mark.parametrize("workers", [{"many": True}, "7", 3.0, [], [None, 3], True])
def test_what_is_no_number_of_workers_is_for_the_governor_to_refuse(workers: Any) -> None:
    its = made(Workload("etl"))
    assert its.new is not None
    its.new["spec"]["workload"]["workers"] = workers
    assert refused(its, limits()) == ""


@pytest.mark.parametrize("what", ["maxDuration", "cores", "memory", "gpu", "workers"])
def test_null_is_what_was_not_asked_for(what: str) -> None:
    its = made(Workload("etl", workers=3))
    assert its.new is not None
    its.new["spec"]["workload"][what] = None
    its.new["spec"] |= {"lifetime": None, "replicas": None}
    assert refused(its, limits()) == ""
    its.new["spec"]["workload"] |= {"workers": 9, "priority": 0}
    assert "requests 9 workers" in refused(its, limits())
    old = cluster(Workload("etl"), replicas=2, lifetime=60.0)
    assert refused(wishes(old, replicas=None, lifetime=None), limits()) == ""
    assert "requests 9 workers" in refused(wishes(old, replicas=9, lifetime=None), limits())


def test_later_wishes_stay_within_limits_and_fewer_are_always_taken() -> None:
    old, is_ = cluster(Workload("etl")), limits(workers=3)
    assert refused(wishes(old, replicas=3), is_) == ""
    said = refused(wishes(old, replicas=9), is_)
    tier = "tier standard (policies/tiers.yaml:1)"
    assert said == f"nightly requests 9 workers; the limit per cluster is 3 workers: {tier}"
    assert "4 workers" in refused(wishes(old, replicas=2, groups={"a": 1, "b": 1}), is_)
    assert refused(wishes(old, {"workers": 9}, replicas=8), is_) == "", "it has more from before"
    assert refused(wishes(old | {"spec": {**old["spec"], "replicas": 9}}, stop={}), is_) == "", (
        "and may be ended"
    )
    assert "5 h of lifetime" in refused(wishes(old, lifetime=5 * 3600), is_)
    assert refused(wishes(old, lifetime=3600.0), is_) == ""
    assert "9 workers" in refused(made(Workload("etl"), replicas=9), is_)
    assert "5 h of lifetime" in refused(made(Workload("etl"), lifetime=5 * 3600.0), is_)

    def scaled(to: int) -> Asked:
        scale = {"metadata": {"name": "nightly"}, "spec": {"replicas": to}, "status": {"replicas": 1}}
        return Asked("UPDATE", "shoalclusters", scale, {**scale, "spec": {}}, "scale", "shoal.dev")

    assert refused(scaled(3), is_) == ""
    assert "4 workers" in refused(scaled(4), is_)


@pytest.mark.parametrize("broken", [None, "", "3", "three workers", "-1 x", "NaN no limit"])
@pytest.mark.parametrize("what", ["workers", "priority", "memory"])
def test_a_limit_that_is_missing_or_unreadable_refuses_all_but_an_end(broken: str | None, what: str) -> None:
    said = {key: its for key, its in notes(limits()).items() if key != LIMIT + what}
    if broken is not None:
        said[LIMIT + what] = broken
    its = replace(made(Workload("etl")), notes=said)
    assert "`shoal apply`" in SERVER.refusals(its)["shoal-system-limits"]
    assert SERVER.refusals(replace(wishes(cluster(Workload("etl")), stop={}), notes=said)) == {}
    assert refused(made(Workload("etl")), None)


def test_the_sentence_of_a_limit_is_the_librarys() -> None:
    for what, limit in limits(cores=4, priority=2).totals.items():
        if what in (Resource.CLUSTERS, Resource.SCRATCH):
            continue
        never = Shortage(what, "you", limit.value, 0, 99, limit.source, never=True).sentence("x", {})
        assert (
            notes(limits(cores=4, priority=2))[LIMIT + what.value].partition(" ")[2]
            == never.partition("; ")[2]
        )


def test_state_and_history_are_the_governors_and_a_cluster_goes_with_its_pods() -> None:
    its = cluster(Workload("etl"))
    states = [
        Asked("UPDATE", "shoalclusters", its, its, "status", "shoal.dev"),
        Asked("CREATE", "shoalrecords", its, None, group="shoal.dev"),
        Asked("DELETE", "shoalrecords", None, its, group="shoal.dev"),
    ]
    for each in states:
        assert "Shoal's governor alone" in SERVER.refusals(each)["shoal-system-state"]
        assert SERVER.refusals(replace(each, user=GOVERNOR)) == {}
    of_namespace = "system:serviceaccount:kube-system:namespace-controller"
    assert SERVER.refusals(replace(states[2], user=of_namespace, groups=KUBERNETES)) == {}, "a namespace goes"
    gone = Asked("DELETE", "shoalclusters", None, its, group="shoal.dev")
    assert SERVER.refusals(gone) == {}
    for options in ({"propagationPolicy": "Orphan"}, {"orphanDependents": True}):
        said = SERVER.refusals(replace(gone, options=options))
        assert "--cascade=orphan" in said["shoal-system-state"]
    assert SERVER.refusals(replace(gone, options={"propagationPolicy": "Background"})) == {}


def test_a_refusal_by_a_limit_is_the_librarys_error_and_any_other_stays() -> None:
    begins = 'shoalclusters.shoal.dev "a" is forbidden: ValidatingAdmissionPolicy '
    said = "a requests 9 workers; the limit per cluster is 3 workers: tier standard"
    limit = f"{begins}'s-limits' with binding 's-limits' denied request: {said}"
    assert isinstance(found := by_limit(ObjectRefusedError(limit)), NeverFitsError)
    assert found.message == said
    other = ObjectRefusedError(f"{begins}'s-state' with binding 's-state' denied request: {said}")
    assert by_limit(other) is other
