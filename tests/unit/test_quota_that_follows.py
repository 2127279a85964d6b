"""The quota of a namespace that follows what is admitted: exactly what its pods take, and nothing that was edited."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shoal.homes.kubernetes.errors import ObjectRefusedError
from shoal.homes.kubernetes.names import ADMITTED, HEAD
from shoal.homes.kubernetes.pods import head_pod, runner_pod, worker_pod
from shoal.homes.kubernetes.quantities import amount
from shoal.homes.kubernetes.quotas import hard, in_force, quota_object, quota_read, strays_from
from shoal.homes.kubernetes.refusals import Refusals
from shoal.homes.kubernetes.tending import Slot
from shoal.model.workload import Group, Size
from shoal.project.targets import Beside
from shoal.quota.account import Account, in_pods
from shoal.units import Bytes

from .test_kubernetes_objects import GB, OWNER, PLAN, RUN, record

CPU = Group("cpu", 1, 3, 5, Size(2, Bytes(4 * GB)), Size(1 / 3, Bytes(3 * GB)), scratch=Bytes(7 * GB))
GPU = Group("gpu", 0, 2, 2, Size(4, Bytes(9 * GB)), Size(4, Bytes(9 * GB)), gpus=2)


@pytest.mark.parametrize("runner", [False, True])
def test_it_gives_what_the_pods_of_a_plan_ask_for(runner: bool) -> None:
    plan = replace(PLAN, groups=(CPU, GPU), head_there=Size(0.5, Bytes(GB)), runner=runner)
    cluster = replace(record(), plan=plan, run=RUN if runner else None)
    pods = [head_pod(cluster, OWNER), *([runner_pod(cluster, OWNER)] if runner else [])]
    pods += [
        worker_pod(cluster, OWNER, Slot(k, group.name)) for group in plan.groups for k in range(group.count)
    ]
    asked: dict[str, float] = {"pods": len(pods)}
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        for part in ("requests", "limits"):
            for what, its in container["resources"][part].items():
                name = f"{part}.{what}"
                asked[name] = asked.get(name, 0.0) + (amount(its) or 0.0)
    asked.pop("limits.nvidia.com/gpu")  # quotas count the request alone
    given = {name: amount(its) or 0.0 for name, its in hard(in_pods(plan)).items()}
    assert given.keys() == asked.keys()
    for name, its in asked.items():
        # Of a core the API server counts thousandths, each pod's rounded up.
        assert 0 <= given[name] - its <= (len(pods) / 1000 if "cpu" in name else 0), name


def quota(account: Account) -> dict[str, Any]:
    made = quota_object("shoal-alice", account, 7)
    return made | {"status": {"hard": dict(made["spec"]["hard"])}}


def test_it_says_what_it_counts_and_what_was_edited_is_seen() -> None:
    account = Account({"u-1": in_pods(PLAN), "u-2": in_pods(replace(PLAN, groups=(CPU,)))})
    found = quota(account)
    assert quota_read(found) == (account, 7)
    assert (strays_from(found), in_force(found)) == (False, True)
    found["spec"]["hard"]["limits.cpu"] = (
        f"{round((amount(found['spec']['hard']['limits.cpu']) or 0) * 1000)}m"
    )
    assert (strays_from(found), in_force(found)) == (False, True), "it is the same in another spelling"
    for edited in ({"pods": "50"}, {"count/secrets": "1"}):
        assert strays_from(found | {"spec": {"hard": found["spec"]["hard"] | edited}})
    assert not in_force(found | {"status": {}})
    beside = Beside(pods=1, cores=0.5, memory=Bytes(GB), scratch=Bytes(GB))
    assert strays_from(found, beside), "the place is to give more"
    more, less = (hard(account.held, its) for its in (beside, Beside()))
    added = {name: (amount(more[name]) or 0) - (amount(less[name]) or 0) for name in more}
    expected: dict[str, float] = {"pods": 1, "requests.nvidia.com/gpu": 0}
    for part in ("requests", "limits"):
        expected |= {f"{part}.cpu": 0.5, f"{part}.memory": GB, f"{part}.ephemeral-storage": GB}
    assert added == pytest.approx(expected)
    assert set(quota(Account())["spec"]["hard"].values()) == {"0"}
    for notes in ({}, {"shoal.dev/admitted": "]"}, {"shoal.dev/admitted": "[1]", "shoal.dev/version": "7"}):
        found["metadata"]["annotations"] = notes
        assert quota_read(found) == (Account(), 0)


def test_a_lack_of_room_there_is_told_once_it_lasts() -> None:
    """Of a pod that is gone the API server knows before it counts it."""
    sentence = f"exceeded quota: {ADMITTED}, requested: pods=1, used: pods=3, limited: pods=3"
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    tries = 0

    def again() -> None:
        nonlocal tries
        with refusals.trying("u", HEAD, "shoal-alice"):
            tries += 1
            raise ObjectRefusedError(sentence)

    for now[0] in (0.0, 0.1, 2.9, 3.1, 3.2, 8.0):
        with pytest.raises(ObjectRefusedError):
            again()
        told = refusals.of("u").get(HEAD)
        assert (told is not None) is (now[0] > 3.0)
        assert refusals.young is (told is None)
        assert refusals.news() is (now[0] == 3.1)
    assert tries == 5, "then it is tried as whatever else is refused"
    with pytest.raises(ObjectRefusedError), refusals.trying("v", HEAD, "shoal-alice"):
        raise ObjectRefusedError(sentence)
    now[0] = 20.0
    assert not refusals.young, "a cluster that came to its end is not tried any more"
    assert told is not None
    assert (
        "its head: pods 1 asked for, 3 of 3 used. It gives what was admitted: other pods take it"
        in told.message
    )
