"""Clusters by dask-kubernetes' operator: what is asked of it, and what its pods tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shoal.governor.actions import Seen
from shoal.homes.kubernetes import sight
from shoal.homes.kubernetes.caches import slim_pod
from shoal.homes.kubernetes.containers import over
from shoal.homes.kubernetes.manifests import of_user, person
from shoal.homes.kubernetes.names import (
    DASK_PART,
    GOVERNOR,
    HEAD,
    OF_CLUSTER,
    OF_GROUP,
    POD_HASH,
    ROLE,
    SLOT,
    WORKER,
)
from shoal.homes.kubernetes.objects import EndWish, HeadReport
from shoal.homes.kubernetes.operated import (
    Operation,
    dask_cluster,
    dask_workers,
    deployment_of,
    operate,
    workers_of,
)
from shoal.homes.kubernetes.pods import head_pod, worker_pod
from shoal.homes.kubernetes.sight import cluster_of_pod
from shoal.homes.kubernetes.tending import Slot
from shoal.model.cluster import Reason, State
from shoal.model.workload import Via

from .test_kubernetes_objects import OWNER, record

CLUSTER = replace(record(), plan=replace(record().plan, via=Via.OPERATOR))
(GROUP,) = CLUSTER.plan.groups
HASH = "67d4f"


def pod(
    deployment: str, role: str = WORKER, container: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    labels = {ROLE: role, OF_CLUSTER: "u-1", DASK_PART: "worker", POD_HASH: HASH, OF_GROUP: "default"}
    name = f"{deployment}-{HASH}-x2x"
    owner = {"kind": "ReplicaSet", "uid": "of a ReplicaSet", "name": f"{deployment}-{HASH}"}
    status = {"phase": "Running", "containerStatuses": [container] if container else []}
    metadata = {"name": name, "uid": name, "labels": labels, "ownerReferences": [owner], **more}
    return {"metadata": metadata, "status": status}


def workers(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [pod(f"nightly-default-worker-{name}", **more) for name in names]


def test_the_operator_gets_our_pods_without_what_a_deployment_refuses() -> None:
    head = head_pod(CLUSTER, OWNER)
    made = dask_cluster(OWNER, CLUSTER.plan, head, worker_pod(CLUSTER, OWNER, Slot(0, "default")))
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert made["metadata"]["labels"][OF_CLUSTER] == "u-1"
    assert ROLE not in made["metadata"]["labels"], "all that it makes would have that role"
    scheduler, worker = made["spec"]["scheduler"], made["spec"]["worker"]
    assert worker["replicas"] == 3
    assert (scheduler["metadata"]["labels"][ROLE], worker["metadata"]["labels"][ROLE]) == (HEAD, WORKER)
    assert SLOT not in worker["metadata"]["labels"]
    for its in (scheduler["spec"], worker["spec"]):
        assert not {"restartPolicy", "activeDeadlineSeconds"} & its.keys()
        assert its["containers"][0]["securityContext"] == head["spec"]["containers"][0]["securityContext"]
    names = [each for each in worker["spec"]["containers"][0]["env"] if each["name"] == "SHOAL_WORKER_NAME"]
    assert names[0]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name", "a pod's name is its worker's"
    assert all(isinstance(each["targetPort"], str) for each in scheduler["service"]["ports"])


def test_other_groups_are_groups_of_the_operator() -> None:
    more = replace(GROUP, name="large", count=2)
    plan = replace(CLUSTER.plan, groups=(GROUP, more))
    cluster = replace(CLUSTER, plan=plan)
    made = dask_workers(OWNER, plan, more, worker_pod(cluster, OWNER, Slot(0, "large")))
    assert made["spec"]["cluster"] == "nightly"
    assert made["spec"]["worker"]["replicas"] == 2
    assert made["metadata"]["name"] == workers_of(OWNER, plan)["large"] == "nightly-large"
    assert workers_of(OWNER, plan)["default"] == "nightly-default", "which the operator itself makes"
    named = replace(plan, groups=(replace(GROUP, name="cpu"), replace(GROUP, name="default")))
    assert workers_of(OWNER, named) == {"cpu": "nightly-default", "default": "nightly-default-group"}


def test_more_are_asked_for_at_once_and_fewer_when_those_that_were_retired_are_gone() -> None:
    there = workers("a", "b", "c", "d")
    assert operate(CLUSTER.plan, there[:2], None) == Operation((), {"default": 3}, frozenset({"default"}))
    assert operate(CLUSTER.plan, there[:3], None) == Operation((), {"default": 3})
    assert operate(CLUSTER.plan, there, None) == Operation(), "the head has not said whom it can spare"
    retired = HeadReport(retired=("nightly-default-worker-b-67d4f-x2x", "nightly-default-worker-c-67d4f-x2x"))
    assert operate(CLUSTER.plan, there, retired) == Operation(("nightly-default-worker-b",), {}), (
        "one too many"
    )
    going = [*workers("b", deletionTimestamp="now"), *workers("a", "c", "d")]
    assert operate(CLUSTER.plan, going, retired) == Operation((), {"default": 3})


def test_the_deployment_of_a_pod_is_told_by_the_replicaset_as_kubernetes_cuts_a_pods_name() -> None:
    its = pod("nightly-default-worker-a1")
    its["metadata"]["name"] = "nightly-default-work-x2x"
    assert deployment_of(its) == deployment_of(slim_pod(its)) == "nightly-default-worker-a1"
    its["metadata"]["ownerReferences"][0]["kind"] = "Job"
    assert deployment_of(its) == ""


def test_a_pod_of_a_deployment_is_its_clusters_by_its_label() -> None:
    its = pod("nightly-default-worker-a")
    assert cluster_of_pod(its) == cluster_of_pod(slim_pod(its)) == "u-1"
    its["metadata"]["ownerReferences"] = []
    assert cluster_of_pod(its) is None, "anybody may write labels"


def test_a_head_runs_once_though_kubernetes_start_it_again() -> None:
    ended = {"exitCode": 3, "reason": "Error"}
    again = pod(
        "nightly-scheduler",
        HEAD,
        {"name": "head", "restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": ended}},
    )
    assert over(again)
    assert over(slim_pod(again)), "what caches keep tells it, too"
    seen = sight.sight(CLUSTER, [slim_pod(again)], HeadReport(state="Ready"), 300, 0.0)
    assert seen.head is Seen.GONE
    assert seen.last is not None
    assert (seen.last.reason, "exit code 3" in seen.last.message) == (Reason.HEAD_CRASHED, True)
    said = HeadReport(stop=EndWish(Reason.HEAD_LOST, "its head was started again"))
    seen = sight.sight(CLUSTER, [again], said, 300, 0.0)
    assert seen.last is not None
    assert seen.last.reason is Reason.HEAD_CRASHED, "the next head knows only that it had one before"
    beside = {"name": "proxy", "state": {"terminated": ended}}
    assert not over(pod("nightly-scheduler", HEAD, beside)), "a container that a mesh put beside it"
    worker = pod("nightly-default-worker-a", WORKER, {"name": "worker", "restartCount": 1, "state": {}})
    assert not over(worker), "a worker may come back"


def test_the_governor_gets_more_rights_for_the_operator_alone() -> None:
    def rules(via: Via) -> list[dict[str, Any]]:
        objects = of_user("alice", "shoal-alice", [person("alice")], "shoal-system", via=via)
        return [
            rule
            for each in objects
            if each["kind"] == "Role" and each["metadata"]["name"] == GOVERNOR
            for rule in each["rules"]
        ]

    assert of_user("alice", "shoal-alice", [person("alice")], "shoal-system") == of_user(
        "alice", "shoal-alice", [person("alice")], "shoal-system", via=Via.PODS
    )
    more = [rule for rule in rules(Via.OPERATOR) if rule not in rules(Via.PODS)]
    assert {
        (resource, verb) for rule in more for resource in rule["resources"] for verb in rule["verbs"]
    } == {
        *(
            (kind, verb)
            for kind in ("daskclusters", "daskworkergroups")
            for verb in ("create", "get", "list", "patch", "delete")
        ),
        *((kind, verb) for kind in ("deployments", "replicasets") for verb in ("list", "delete")),
    }


def test_an_operator_that_is_away_is_told() -> None:
    waits = replace(CLUSTER, state=State.ADMITTED, admitted_at=100.0)
    early = sight.sight(waits, [], None, 300, 110.0)
    assert (early.head, early.pulse) == (Seen.NEVER, None)
    late = sight.sight(waits, [], None, 300, 120.0)
    assert late.pulse is not None
    assert late.pulse.phase is not None
    assert "operator made no pod of its head" in late.pulse.phase.message
    assert "shoal-alice" in late.pulse.phase.message
