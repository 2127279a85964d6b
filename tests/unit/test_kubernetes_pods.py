"""Pods of a cluster: which are made and ended, and what they and the head's report say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shoal.governor.actions import Seen
from shoal.governor.ends import Exit
from shoal.homes.kubernetes import sight
from shoal.homes.kubernetes.names import CAPACITY, HEAD, OF_CLUSTER, ROLE, RUNNER, SLOT, WORKER
from shoal.homes.kubernetes.objects import (
    EndWish,
    HeadReport,
    status_from,
)
from shoal.homes.kubernetes.pods import head_pod, runner_pod, worker_pod
from shoal.homes.kubernetes.sight import cluster_of_pod
from shoal.homes.kubernetes.tending import Slot, Tending, tend
from shoal.model.cluster import Reason, State
from shoal.model.report import Usage

from .test_kubernetes_objects import GB, OWNER, RUN, record


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


def test_usage_is_read_within_bounds() -> None:
    said = HeadReport("Ready", workers=3, usage=Usage(samples=((1.0, 2.0, 3.0),), exit_code=3))
    seen = sight.seen_in(record(), [], 0, said)
    assert (seen.usage.samples, seen.exit_code) == ((), None), (
        "a script's exit code is not the head's to tell"
    )
