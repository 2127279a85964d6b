"""Records as objects of a Kubernetes API server: they come back as they were, from older and newer ones too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from shoal.governor.actions import Seen
from shoal.governor.ends import Exit
from shoal.homes.kubernetes import sight
from shoal.homes.kubernetes.definitions import definitions
from shoal.homes.kubernetes.history import as_object, record_object, without_object
from shoal.homes.kubernetes.manifests import of_user, person
from shoal.homes.kubernetes.names import CAPACITY, HEAD, OF_CLUSTER, ROLE, RUNNER, SLOT, WORKER, account_of
from shoal.homes.kubernetes.objects import (
    EndWish,
    Event,
    HeadReport,
    Spec,
    Status,
    asked,
    cluster_of,
    spec_of,
    status_from,
    status_of,
)
from shoal.homes.kubernetes.pods import Pass, head_pod, runner_pod, worker_pod
from shoal.homes.kubernetes.sight import cluster_of_pod
from shoal.homes.kubernetes.structure import read, schema_of, written
from shoal.homes.kubernetes.tending import Slot, Tending, tend
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.report import Usage
from shoal.model.workload import Engine, Group, Plan, ScriptRun, Size, Timeouts, Workload
from shoal.quota.account import Account, Amounts
from shoal.units import Bytes, Money, Seconds

CHECKED_IN = Path(__file__).parents[1] / "kubernetes" / "definitions.yaml"
GB = 1_000_000_000
PLAN = Plan(
    template="etl",
    engine=Engine.DASK,
    target="kubernetes",
    head=Size(1, Bytes(2 * GB)),
    groups=(Group("default", 1, 3, 5, Size(2, Bytes(4 * GB)), Size(2, Bytes(4 * GB)), gpus=1),),
    timeouts=Timeouts(Seconds(300), Seconds(120), Seconds(3600)),
    image="shoal-dask:0.1.0",
    conf={"some.key_withUnderscore": "1"},
    packages=("xgboost>=2",),
    price_per_hour=Money(Decimal("1.25")),
    may_last=Seconds(14_400),
)
WORKLOAD = Workload("etl", Engine.DASK, workers=(1, 5), max_duration=Seconds(3600), packages=("xgboost>=2",))
RUN = ScriptRun("jobs/nightly.py", "main", ("--month", "3"), code="ab" * 32)
OWNER = {"metadata": {"name": "nightly", "namespace": "shoal-alice", "uid": "u-1"}}


def record(state: State = State.READY, workers: int = 3) -> Cluster:
    message = "3 workers ready"
    return Cluster(
        "u-1", "nightly", "alice", "growth", WORKLOAD, PLAN, state, Reason.SERVING, message, 5.0, 1.0,
        head={"namespace": "shoal-alice"}, admitted_at=2.0, ready_at=5.0, workers=workers,
        report={"idle": 3.0, "worker_seconds": 9.0, "seen": 4.0}, tags={"run_id": "7"}, project="/p",
    )  # fmt: skip


def stored(cluster: Cluster, spec: Spec) -> dict[str, Any]:
    metadata = {**OWNER["metadata"], "creationTimestamp": "1970-01-01T00:00:01Z"}
    return asked("nightly", "shoal-alice", spec) | {
        "metadata": metadata,
        "status": written(status_from(cluster, None)),
    }


def test_a_record_comes_back_as_it_was() -> None:
    cluster, spec = record(), Spec(WORKLOAD, "mine", {"run_id": "7"}, "/p")
    found = stored(cluster, spec)
    assert found["spec"]["workload"]["maxDuration"] == 3600
    assert found["status"]["plan"]["pricePerHour"] == {"amount": "1.25", "currency": "USD"}
    status = status_of(found)
    assert status is not None
    assert status.plan is not None
    back = cluster_of(found, status, spec_of(found), status.plan, "u-1")
    assert back.usage.worker_seconds == 9.0
    assert (back.plan, back.workload, back.tags) == (PLAN, WORKLOAD, {"run_id": "7"})
    assert [getattr(back, name) for name in ("state", "reason", "since", "admitted_at", "ready_at", "workers")] == [
        State.READY, Reason.SERVING, 5.0, 2.0, 5.0, 3,
    ]  # fmt: skip


def test_what_another_version_wrote_is_read() -> None:
    found = stored(record(), Spec(WORKLOAD))
    found["status"]["plan"]["invented"] = {"later": True}
    found["status"]["reason"] = "InventedLater"
    del found["status"]["history"], found["status"]["plan"]["mounts"]
    status = status_of(found)
    assert status is not None
    assert (status.reason, status.history, status.plan) == ("InventedLater", (), PLAN)


def test_a_record_is_read_by_that_rule_long_after_its_object_is_gone() -> None:
    found = stored(record(), Spec(WORKLOAD, "mine", {"run_id": "7"}, "/p", template={"large": "x" * 9999}))
    status = status_of(found)
    assert status is not None
    kept = record_object(found, without_object(status, 9.0))
    assert len(json.dumps(kept)) < 4000
    kept["outcome"]["usage"]["invented"] = kept["asked"]["invented"] = kept["invented"] = 1
    del kept["outcome"]["plan"]["mounts"], kept["asked"]["tags"]
    its = as_object(kept | {"metadata": kept["metadata"] | {"creationTimestamp": "1970-01-01T00:00:01Z"}})
    said = status_of(its)
    assert said is not None
    assert said.plan is not None
    back = cluster_of(its, said, spec_of(its), said.plan, "mine")
    assert (back.name, back.plan, back.tags) == ("nightly", PLAN, {})
    assert (back.state, back.admitted_at, back.ended_at, back.usage.worker_seconds) == (
        State.STOPPED,
        2.0,
        9.0,
        9.0,
    )
    assert said.history[-1].message == "its object was deleted"


def test_a_history_keeps_its_beginning_and_its_end() -> None:
    status: Status | None = None
    for number in range(200):
        cluster = record()
        object.__setattr__(cluster, "message", f"change {number}")
        status = status_from(cluster, status)
    assert status is not None
    said = [event.message for event in status.history]
    assert (said[0], said[-1], len(said)) == ("change 0", "change 199", 48)
    assert isinstance(status.history[0], Event)


def test_an_account_comes_back_with_its_keys() -> None:
    account = Account({"u-1_x": Amounts(1, 3, 6.0, Bytes(12 * GB))}, {"u-1_x": 99.0}, served=1.5, as_of=3.0)
    assert read(Account, written(account)) == account


def test_users_of_any_name_have_an_account_of_their_own() -> None:
    users = ["alice", "Alice", "alice@example.org", "alice-example.org", "ålice", "a" * 300, "-"]
    assert len({account_of("user", user) for user in users}) == len(users)
    assert all(len(account_of("user", user)) <= 63 for user in users)


def schemas(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from schemas(inner, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), Mapping):
            yield from schemas(schema[name], f"{path}[]")


def test_everything_that_is_kept_is_bounded() -> None:
    for definition in definitions():
        (version,) = definition["spec"]["versions"]
        for path, schema in schemas(version["schema"]["openAPIV3Schema"]):
            if schema.get("type") == "string":
                assert "maxLength" in schema or "enum" in schema or "format" in schema, path
            if schema.get("type") == "array":
                assert "maxItems" in schema, path
            if "additionalProperties" in schema:
                assert "maxProperties" in schema, path


def test_the_definitions_are_those_that_were_looked_at() -> None:
    """A change of a type that travels is seen here: `python -m shoal render` prints what is new."""
    assert definitions() == list(yaml.safe_load_all(CHECKED_IN.read_text()))


def test_a_type_without_a_schema_is_said() -> None:
    with pytest.raises(TypeError, match="complex"):
        schema_of(complex)


def test_a_pass_is_in_no_repr_and_comes_back() -> None:
    its = Pass("secret-token", "certificate", "secret-key")
    assert "secret" not in repr(its)
    assert Pass.of(its.data("u-1"), "u-1") == its
    assert Pass.of(its.data("u-1"), "u-2") is None


def pod(name: str, role: str, phase: str = "Running", slot: int = 0, **more: Any) -> dict[str, Any]:
    labels = {ROLE: role, SLOT: str(slot), "app.kubernetes.io/instance": "nightly"}
    return {"metadata": {"name": name, "uid": name, "labels": labels} | more, "status": {"phase": phase}}


def workers(*slots: int, phase: str = "Running") -> list[dict[str, Any]]:
    return [pod(f"nightly-w-{slot}", WORKER, phase, slot) for slot in slots]


def slots(*numbers: int) -> tuple[Slot, ...]:
    return tuple(Slot(number, "default") for number in numbers)


def test_workers_are_made_up_to_the_plan_and_never_one_more() -> None:
    head = pod("nightly-head", HEAD)
    assert tend(record(), [head], None).make == slots(0, 1, 2)
    assert tend(record(), [head, *workers(0, 2)], None).make == slots(1)
    assert tend(record(), [head, *workers(0, 1, 2)], None) == Tending()
    going = [pod("nightly-w-0", WORKER, slot=0, deletionTimestamp="now")]
    assert tend(record(), [head, *going, *workers(1, 2)], None).make == (), "it still holds its share"


def test_a_worker_that_failed_is_ended_and_another_slot_is_filled() -> None:
    head, failed = pod("nightly-head", HEAD), workers(1, phase="Failed")
    todo = tend(record(), [head, *workers(0, 2), *failed], None)
    assert todo == Tending(slots(3), (("nightly-w-1", "nightly-w-1"),))


def test_pods_of_others_are_no_part_of_a_cluster_and_stop_nobody() -> None:
    """Anybody who makes pods may write any label on them."""
    owned = {"ownerReferences": [{"uid": "u-1"}]}

    def labelled(labels: dict[str, str], **more: Any) -> dict[str, Any]:
        return {"metadata": {"name": "x", "uid": "x", "labels": {OF_CLUSTER: "u-1"} | labels} | more}

    assert cluster_of_pod(labelled({ROLE: HEAD})) is None, "not the cluster's own"
    assert cluster_of_pod(labelled({ROLE: HEAD}, **owned)) == "u-1"
    for number in ("", "x", "²", "-1"):
        odd = labelled({ROLE: WORKER, SLOT: number}, **owned)
        assert cluster_of_pod(odd) is None
        assert tend(record(), [pod("nightly-head", HEAD), odd, *workers(0, 1)], None).end == ()
    assert cluster_of_pod(labelled({ROLE: WORKER, SLOT: "3"}, **owned)) == "u-1"
    strange = workers(0)[0]
    strange["metadata"]["labels"][CAPACITY] = "whatever"
    assert tend(record(), [pod("nightly-head", HEAD), strange], None).make == slots(1, 2)


def test_exactly_those_go_that_the_head_has_retired_and_only_above_the_plan() -> None:
    pods = [pod("nightly-head", HEAD), *workers(0, 1, 2, 3)]
    assert tend(record(), pods, HeadReport()).end == ()
    said = HeadReport(retired=("nightly-w-1", "nightly-w-2"))
    assert tend(record(), pods, said).end == (("nightly-w-1", "nightly-w-1"),)
    assert tend(record(), pods[:-1], said).end == ()


def test_without_a_head_or_after_the_end_no_worker_is_made() -> None:
    assert tend(record(), [], None).make == ()
    assert tend(record(State.STOPPING), [pod("nightly-head", HEAD)], None).make == ()
    assert tend(record(), [pod("nightly-head", HEAD, deletionTimestamp="now")], None).make == ()


def test_what_a_head_says_is_read_as_hostile_input() -> None:
    said = HeadReport(
        "Ready", "Serving", "fine\x1b[31m\nor not", workers=10_000, stop=EndWish(message="a\x00b" * 900)
    )
    seen = sight.sight(record(), [pod("nightly-head", HEAD)], said, 60, 10)
    assert seen.pulse is not None
    assert seen.pulse.phase is not None
    assert "\x1b" not in seen.pulse.phase.message
    assert "\n" not in seen.pulse.phase.message
    assert seen.pulse.said is not None
    assert len(seen.pulse.said.message) <= 500
    assert sight.seen_in(record(), [], 0, said).workers == 5, "no more than its plan may have"
    strange = HeadReport("Stopped", "Idle", "")
    assert sight.sight(record(), [pod("nightly-head", HEAD)], strange, 60, 10).pulse.phase is None  # type: ignore[union-attr]


def test_a_head_that_ended_says_how() -> None:
    head = pod("nightly-head", HEAD, "Failed")
    head["status"]["containerStatuses"] = [
        {"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    ]
    last = sight.sight(record(), [head], None, 60, 10).last
    assert last is not None
    assert last.reason is Reason.HEAD_CRASHED
    assert "OOMKilled, exit code 137" in last.message


def test_a_script_is_one_pod_as_large_as_the_head_that_never_starts_again() -> None:
    made = runner_pod(replace(record(), run=RUN), OWNER)
    (container,) = made["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == str(2 * GB)
    assert (made["metadata"]["name"], made["spec"]["restartPolicy"]) == ("nightly-run", "Never")
    assert made["spec"]["serviceAccountName"] == "shoal-runner"
    assert made["spec"]["activeDeadlineSeconds"] == 14_400 + 900


def beside(runner: dict[str, Any] | None, known: str = "") -> tuple[Seen | None, Exit | None]:
    cluster = replace(record(), run=RUN, head={RUNNER: known} if known else {})
    pods = [pod("nightly-head", HEAD), *([runner] if runner else [])]
    seen = sight.sight(cluster, pods, HeadReport(), 60, 10)
    return seen.script, seen.exit


def ended(phase: str, code: int | None, why: str = "Error", **status: str) -> dict[str, Any]:
    made = pod("nightly-run", RUNNER, phase)
    made["status"] |= status
    if code is not None:
        told = {"state": {"terminated": {"exitCode": code, "reason": why}}}
        made["status"]["containerStatuses"] = [told]
    return made


@pytest.mark.parametrize(
    ("runner", "known", "seen", "how"),
    [
        (None, "", Seen.NEVER, None),
        (pod("nightly-run", RUNNER, "Pending"), "", Seen.ALIVE, None),
        (pod("nightly-run", RUNNER), "r-1", Seen.ALIVE, None),
        (ended("Succeeded", 0, "Completed"), "r-1", Seen.GONE, Exit(0)),
        (ended("Failed", 7), "r-1", Seen.GONE, Exit(7)),
        (ended("Failed", 137, "OOMKilled"), "r-1", Seen.GONE, Exit(137, "it took more than the 2 GB that it had")),
        (ended("Failed", 0, reason="Evicted", message="disk"), "r-1", Seen.GONE, Exit(137, "Evicted: disk")),
        (ended("Failed", None, reason="NodeLost"), "r-1", Seen.GONE, Exit(137, "NodeLost")),
        (None, "r-1", Seen.GONE, Exit(137, "its pod was deleted, or its node is gone")),
    ],
)  # fmt: skip
def test_how_a_script_ended_is_read_from_its_pod(
    runner: dict[str, Any] | None, known: str, seen: Seen, how: Exit | None
) -> None:
    """One whose pod was seen is never started again, whoever deleted it."""
    assert beside(runner, known) == (seen, how)


def test_a_script_that_cannot_start_says_why_and_its_pod_is_remembered() -> None:
    waits = pod("nightly-run", RUNNER, "Pending")
    waits["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "Insufficient cpu"}
    ]
    cluster, said = replace(record(), run=RUN), HeadReport("Ready", "Serving", "3 workers ready")
    pulse = sight.sight(cluster, [pod("nightly-head", HEAD), waits], said, 60, 10).pulse
    assert pulse is not None
    assert pulse.phase is not None
    assert pulse.phase.message.endswith("its script has not started: no node takes it: Insufficient cpu")
    known = sight.seen_in(cluster, [waits], 0, None)
    back = status_from(replace(known, report={"exit_code": 7}), None)
    assert (back.runner, back.exit_code) == ("nightly-run", 7)


ABSENT = (
    'rpc error: code = NotFound desc = failed to pull and unpack image "h/i:1": failed to resolve reference '
    '"h/i:1": h/i:1: not found'
)


def unpulled(reason: str, message: str) -> dict[str, Any]:
    return {
        "containerStatuses": [{"image": "i:1", "state": {"waiting": {"reason": reason, "message": message}}}]
    }


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient cpu"}]},
         "no node takes it: 0/3 nodes: Insufficient cpu"),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "message":
          "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/1 nodes "
          "are available: 1 Preemption is not helpful for scheduling."}]},
         "no node takes it: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu"),
        (unpulled("ErrImagePull", ABSENT), "image 'i:1' cannot be pulled: h/i:1: not found"),
        (unpulled("ImagePullBackOff", f'Back-off pulling image "i:1": ErrImagePull: {ABSENT}'),
         "image 'i:1' cannot be pulled: h/i:1: not found"),
        (unpulled("ImagePullBackOff", 'Back-off pulling image "i:1"'), "image 'i:1' cannot be pulled"),
        (unpulled("InvalidImageName", "couldn't parse it"), "image 'i:1' cannot be pulled: couldn't parse it"),
        ({}, None),
    ],
)  # fmt: skip
def test_why_a_pod_does_not_start(status: dict[str, Any], said: str | None) -> None:
    assert sight.waits_for({"status": {"phase": "Pending", **status}}) == said


def test_pods_fit_the_restricted_profile_and_hold_no_secret() -> None:
    runs = replace(record(), run=RUN)
    for made in (
        head_pod(record(), OWNER),
        worker_pod(record(), OWNER, Slot(2, "default"), 100.0),
        runner_pod(runs, OWNER),
    ):
        spec, (container,) = made["spec"], made["spec"]["containers"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert made["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert head_pod(record(), OWNER)["spec"]["activeDeadlineSeconds"] == 14_400 + 900
    assert (
        worker_pod(record(), OWNER, Slot(2, "default"), 100.0)["spec"]["activeDeadlineSeconds"] == 100 + 900
    )
    assert worker_pod(record(), OWNER, Slot(2, "default"))["spec"]["automountServiceAccountToken"] is False


def test_a_user_makes_no_pods_and_reads_no_other_secret() -> None:
    found = of_user("alice", "shoal-alice", [person("alice")], "shoal-system")
    (role,) = (each for each in found if each["kind"] == "Role" and each["metadata"]["name"] == "shoal-user")
    for rule in role["rules"]:
        if "pods" in rule["resources"]:
            assert set(rule["verbs"]) <= {"get", "list", "watch"}
        if "shoalrecords" in rule["resources"]:
            assert set(rule["verbs"]) <= {"get", "list"}, "what they cost is not theirs to delete"
        if "secrets" in rule["resources"]:
            assert rule["resourceNames"] == ["shoal-access"]
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]


def test_usage_is_read_within_bounds() -> None:
    said = HeadReport("Ready", workers=3, usage=Usage(samples=((1.0, 2.0, 3.0),), exit_code=3))
    seen = sight.seen_in(record(), [], 0, said)
    assert (seen.usage.samples, seen.exit_code) == ((), None), (
        "a script's exit code is not the head's to tell"
    )
