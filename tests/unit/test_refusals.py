"""What an API server refuses of one cluster: its record says so, it is tried again, and ends in time."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.errors import InfrastructureError, NotFoundError, OutcomeUnknownError, ShoalError
from shoal.governor.actions import Move, Observation, Seen, StartHead
from shoal.governor.lifecycle import moved, step
from shoal.homes.kubernetes.errors import ObjectRefusedError, RightsError
from shoal.homes.kubernetes.names import HEAD, WORKER
from shoal.homes.kubernetes.periods import KUBERNETES
from shoal.homes.kubernetes.refusals import Refusal, Refusals, refusal, refuse_foreign
from shoal.homes.kubernetes.sight import sight
from shoal.model.cluster import Reason, State

from .test_kubernetes_objects import record

OVER = (
    'pods "etl-head" is forbidden: exceeded quota: tight, requested: pods=1,requests.memory=700M, '
    "used: pods=2,requests.memory=2Gi, limited: pods=3,requests.memory=2500M"
)
WEBHOOK = 'admission webhook "no.example" denied the request: you cannot have this'


def test_a_quota_is_told_with_what_is_asked_for_used_and_given() -> None:
    assert refusal(OVER, HEAD, "shoal-alice") == Refusal(
        Reason.WAITING_FOR_QUOTA,
        "quota 'tight' of namespace shoal-alice has no room for its head: pods 1 asked for, 2 of 3 used; "
        "requests.memory 700 MB asked for, 2.1 GB of 2.5 GB used",
        "tight",
    )
    said = refusal(WEBHOOK, WORKER, "shoal-alice")
    assert said == Refusal(Reason.PLACE_REFUSED, f"the API server refused a worker: {WEBHOOK}")


def test_what_has_a_clusters_name_and_belongs_to_none_is_told() -> None:
    """One that goes, or was another cluster's, gives way by itself."""
    there: dict[str, Any] = {"metadata": {"name": "etl-head", "namespace": "shoal-alice"}}
    with pytest.raises(
        ObjectRefusedError, match="`kubectl describe pod etl-head --namespace shoal-alice`"
    ) as no:
        refuse_foreign(there, "Pod")
    assert "another name" in no.value.message
    assert "delete" not in no.value.message, "it is not ours, and may hold somebody's work"
    there["metadata"]["ownerReferences"] = [
        {"kind": "Cluster", "apiVersion": "shoal.dev/v1alpha1", "uid": "old"}
    ]
    refuse_foreign(there, "Pod")
    refuse_foreign({"metadata": {"name": "etl-head", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, "Pod")


def test_whoever_is_refused_waits_and_says_so_and_ends_with_the_same_sentence() -> None:
    no = Refusal(Reason.PLACE_REFUSED, f"the API server refused its head: {WEBHOOK}")
    cluster = record(State.ADMITTED)
    object.__setattr__(cluster, "reason", Reason.ADMITTED)

    def looks(now: float, refused: Refusal | None) -> list[object]:
        seen = sight(cluster, [], None, KUBERNETES.pull, now, {HEAD: refused} if refused else {})
        assert seen.head is Seen.NEVER
        return list(step(cluster, Observation(head=seen.head, pulse=seen.pulse), now, KUBERNETES))

    assert looks(3.0, None) == [StartHead()]
    (move,) = looks(3.0, no)
    assert move == Move(State.ADMITTED, no.reason, no.message)
    assert isinstance(move, Move)
    cluster = moved(cluster, move, None, 3.0)
    assert looks(8.0, no) == [StartHead()], "it is tried again, and said once"
    (move,) = looks(400.0, no)
    assert isinstance(move, Move)
    assert (move.state, move.reason) == (State.FAILED, Reason.START_FAILED)
    assert WEBHOOK in move.message


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (ObjectRefusedError(OVER), True),
        (RightsError('User "governor" cannot create resource "pods"', code=403), True),
        (NotFoundError('secrets "shoal-access" not found'), True),
        (OutcomeUnknownError("POST: 500", said="500 failed calling webhook"), True),
        (OutcomeUnknownError("POST: no answer"), False),
        (RightsError("Unauthorized", code=401), False),
        (InfrastructureError("it did not answer for 15 s"), False),
    ],
)
def test_only_what_the_server_says_of_this_cluster_is_its_own_affair(error: ShoalError, kept: bool) -> None:
    """All else stops the round, which begins again: it is everybody's."""
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    with pytest.raises(ShoalError) as raised, refusals.trying("u", HEAD, "n"):
        raise error
    unknown = isinstance(error, OutcomeUnknownError)
    assert isinstance(raised.value, ObjectRefusedError) is (kept and not unknown)
    assert (bool(refusals.of("u")), refusals.news(), refusals.news()) == (kept, kept, False)
    tries = 0
    for now[0] in (1.0, 6.0):
        try:
            with refusals.trying("u", HEAD, "n"):
                tries += 1
        except ObjectRefusedError:
            assert kept
    assert (tries, refusals.of("u")) == (1 if kept else 2, {})
