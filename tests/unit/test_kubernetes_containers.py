"""Workers and heads that their place takes away, and containers of others beside ours: what is seen and said."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.governor.actions import Seen
from shoal.governor.ends import End, Sentence
from shoal.homes.kubernetes.caches import slim_pod
from shoal.homes.kubernetes.containers import failure, over
from shoal.homes.kubernetes.names import CONTAINERS, HEAD, RUNNER, WORKER
from shoal.homes.kubernetes.objects import EndWish, HeadReport
from shoal.homes.kubernetes.sight import sight
from shoal.homes.kubernetes.tending import tend
from shoal.model.cluster import Cluster, Reason, State

from .test_kubernetes_objects import record
from .test_kubernetes_pods import pod, slots, workers

EVICTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}
BY_API = "EvictionByEvictionAPI: Eviction API: evicting"
PRESSURE = "The node was low on resource: memory; more was asked for."
SAYS = HeadReport("Ready", "Serving", "3 workers ready")
LEFT = HeadReport("Ready", "WorkerRestarted", "worker nightly-w-0 left; its home starts another one")


def evicted(name: str, role: str, slot: int = 0) -> dict[str, Any]:
    """Told to go by the Eviction API: its container runs on for a while."""
    made = pod(name, role, slot=slot, deletionTimestamp="now")
    made["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}, EVICTED]
    return made


def containers(made: dict[str, Any], own: dict[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
    its = CONTAINERS[made["metadata"]["labels"]["shoal.dev/role"]]
    made["status"]["containerStatuses"] = [{"name": "mesh", "state": beside}, {"name": its, "state": own}]
    return made


def says(cluster: Cluster, pods: list[dict[str, Any]], said: HeadReport = SAYS) -> str:
    seen = sight(cluster, [slim(each) for each in [pod("nightly-head", HEAD), *pods]], said, 60, 10)
    assert seen.pulse is not None
    assert seen.pulse.phase is not None
    return seen.pulse.phase.message


def slim(each: dict[str, Any]) -> dict[str, Any]:
    """As caches keep it."""
    return slim_pod({**each, "metadata": {"resourceVersion": "1", **each["metadata"]}})


def told(message: str) -> Cluster:
    cluster = record()
    object.__setattr__(cluster, "message", message)
    return cluster


def test_a_worker_that_was_evicted_is_told_with_why_and_stays_told() -> None:
    lost = f"lost: nightly-w-0 ({BY_API})"
    gone = [evicted("nightly-w-0", WORKER), *workers(1, 2)]
    assert says(record(), gone) == f"3 workers ready; {lost}"
    # It is gone, and another one comes; then its head notices.
    before = told(f"3 workers ready; {lost}; 1 worker not started: no node takes it: x")
    assert says(before, workers(1, 2, 3)) == f"3 workers ready; {lost}"
    assert says(before, workers(1, 2, 3), LEFT) == f"{LEFT.message}; {lost}"
    grown = HeadReport("Ready", "Serving", "4 workers ready")
    assert says(before, workers(1, 2, 3, 4), grown) == "4 workers ready", "news of its head is what counts"


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": PRESSURE},
         "Evicted: The node was low on resource: memory, more was asked for"),
        ({"phase": "Failed",
          "containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]},
         "OOMKilled, exit code 137, more memory than it may take"),
        ({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"reason": "Error", "exitCode": 3}}}]},
         "Error, exit code 3"),
        ({"phase": "Failed"}, "it failed"),
    ],
)  # fmt: skip
def test_how_a_worker_was_lost_is_told_in_kubernetes_words(status: dict[str, Any], why: str) -> None:
    made = pod("nightly-w-0", WORKER)
    made["status"] = status
    assert says(record(), [made]) == f"3 workers ready; lost: nightly-w-0 ({why})"


def test_many_that_are_lost_are_counted_and_retired_ones_are_not() -> None:
    gone = [evicted(f"nightly-w-{slot}", WORKER, slot) for slot in range(5)]
    assert says(record(), gone) == (
        f"3 workers ready; lost: nightly-w-0, nightly-w-1, nightly-w-2 and 2 more ({BY_API})"
    )
    ended = workers(0, phase="Succeeded") + workers(1, phase="Failed")
    retired = HeadReport("Ready", "Serving", "3 workers ready", retired=("nightly-w-1",))
    assert says(record(), ended, retired) == "3 workers ready"
    assert failure(pod("nightly-w-0", WORKER, deletionTimestamp="now")) == "", "the governor ends some, too"


def test_a_head_that_was_evicted_ends_its_cluster_with_that_reason() -> None:
    """Its own words are that it got a signal: that is no wish of its user."""
    head, lost = evicted("nightly-head", HEAD), End(Reason.HEAD_LOST, f"its head's pod was ended ({BY_API})")
    signalled = HeadReport("Ready", "Serving", "x", stop=EndWish(Reason.STOPPED_BY_USER, Sentence.SIGNALLED))
    for said in (SAYS, signalled):
        seen = sight(record(), [slim(head)], said, 60, 10)
        assert (seen.head, seen.pulse.said) == (Seen.ALIVE, lost)  # type: ignore[union-attr]
    over_ = head | {"status": head["status"] | {"phase": "Failed"}}
    for said in (SAYS, signalled):
        assert sight(record(), [slim(over_)], said, 60, 10).last == lost
    deleted = End(Reason.HEAD_LOST, "its head's pod was ended (deleted, or its node is shut down)")
    done = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    orderly = containers(pod("nightly-head", HEAD, "Succeeded"), done, done)
    assert sight(record(), [slim(orderly)], signalled, 60, 10).last == deleted, (
        "it heard the signal, and ended in order"
    )
    gone = sight(record(), [], SAYS, 60, 10)
    assert (gone.head, gone.last) == (
        Seen.GONE,
        End(Reason.HEAD_LOST, "its head's pod is gone: it was deleted, or its node is"),
    )
    assert sight(record(), [], signalled, 60, 10).last == deleted
    idle = HeadReport("Ready", "Serving", "x", stop=EndWish(Reason.IDLE, "nothing was computed for 1 h"))
    assert sight(record(), [slim(head)], idle, 60, 10).pulse.said.reason is Reason.IDLE  # type: ignore[union-attr]


def test_what_a_mesh_puts_beside_ours_neither_keeps_it_alive_nor_ends_it() -> None:
    ended, runs = {"terminated": {"exitCode": 3, "reason": "Error"}}, {"running": {}}
    for role in (HEAD, WORKER, RUNNER):
        assert over(slim(containers(pod("x", role), ended, runs)))
        assert not over(slim(containers(pod("x", role), runs, ended)))
    gone = containers(workers(1)[0], ended, runs)
    todo = tend(record(State.READY), [pod("nightly-head", HEAD), *workers(0, 2), gone], None)
    assert (todo.make, todo.end) == (slots(3), (("nightly-w-1", "nightly-w-1"),)), (
        "another one takes its place"
    )
