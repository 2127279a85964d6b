"""Several kinds of workers in one cluster: what a template says, what is planned of it, and what follows on a home."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shoal.errors import ConfigError, UsageError
from shoal.governor.ports import UserWishes
from shoal.homes.kubernetes.dressing import dressed
from shoal.homes.kubernetes.names import CAPACITY, HEAD, OF_GROUP, ROLE, SLOT, WORKER
from shoal.homes.kubernetes.objects import HeadReport
from shoal.homes.kubernetes.pods import worker_pod
from shoal.homes.kubernetes.tending import On, Slot, surplus, tend
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.codec import plain, read
from shoal.model.workload import Engine, Plan, Workload
from shoal.planning.asking import ask
from shoal.planning.sizing import lowered, plan
from shoal.project.loading import load
from shoal.project.targets import Cloud, Prices
from shoal.quota.account import amounts
from shoal.quota.admission import with_workers
from shoal.quota.queueing import least
from shoal.units import Money

Folder = Callable[..., Path]
GB = 10**9
MIXED = """
workers:
  - {name: cpu, min: 1, max: 4, cores: 2, memory: 4 GB}
  - {name: gpu, min: 0, max: 2, cores: 4, memory: 8 GB, gpus: 1}
  - {name: cheap, min: 2, max: 4, cores: 2, memory: 4 GB, spot: 50%, fallback: 5 min}
"""
TIERS = """
standard: {concurrent_clusters: 3, workers_per_cluster: 8, memory: 40 GB, max_duration: 4 h, head: 8 GB, gpus: 2}
"""
USERS = "default: {tier: standard}"
PRICES = Prices(core=Money(Decimal(1)), gib=Money(Decimal(0)), gpu=Money(Decimal(10)), spot=0.5)
OWNER = {"metadata": {"name": "nightly", "namespace": "shoal-alice", "uid": "u-1"}}


@pytest.fixture
def planned(folder: Folder) -> Callable[..., Plan]:
    """The plan of the mixed template on Kubernetes, where there are spot machines."""

    def make(target: str = "kubernetes", **asked: Any) -> Plan:
        project = load(folder(mixed=MIXED, tiers=TIERS, users=USERS), target)
        limits = project.policy.limits_of("somebody")
        return plan(ask("mixed", **asked), project.template("mixed"), limits, project.target, PRICES)

    return make


def test_each_group_has_sizes_and_reasons_and_all_count_in_quota(planned: Callable[..., Plan]) -> None:
    its = planned(engine="dask", data="4 GB")
    assert its.by_group == "3 cpu, 0 gpu, 2 cheap", "the first follows the data"
    assert [(each.minimum, each.maximum) for each in its.groups] == [(1, 4), (0, 2), (2, 4)]
    assert its.reasons["gpu.gpus"] == "1 GPU per worker: from template mixed"
    assert its.reasons["cheap.spot"].endswith("one that finds none for 5 min gets another machine")
    assert amounts(its).memory == 3 * 4 * GB + 2 * 4 * GB
    # 3 x 2 cores and, of the spot machines, one of two at half the price; and the head.
    assert its.price_per_hour == Money(Decimal("6") + 2 * Decimal("1.5") + 1)
    more = with_workers(its, 2, "gpu")
    assert amounts(more).gpus == 2
    assert more.price_per_hour == Money(Decimal("10") + 2 * 14)
    assert with_workers(more, 1).by_group == "1 cpu, 2 gpu, 2 cheap"
    assert least(its).by_group == "1 cpu, 0 gpu, 2 cheap", (
        "its first group starts with fewer, where it has to"
    )
    with pytest.raises(UsageError, match="no group of workers 'gpus'") as caught:
        with_workers(its, 1, "gpus")
    assert "did you mean 'gpu'?" in caught.value.hint


def test_limits_lower_the_groups_in_turn_and_say_so(planned: Callable[..., Plan], folder: Folder) -> None:
    project = load(
        folder(mixed=MIXED, tiers=TIERS.replace("8, memory: 40 GB", "4, memory: 14 GB"), users=USERS),
        "kubernetes",
    )
    limits = project.policy.limits_of("somebody")
    its = plan(ask("mixed"), project.template("mixed"), limits, project.target, PRICES)
    assert [(each.minimum, each.count, each.maximum) for each in its.groups] == [
        (1, 1, 1),
        (0, 0, 0),
        (2, 2, 2),
    ]
    assert any("none in group gpu, since tier standard" in part for part in lowered(its))


def test_a_person_asks_for_the_first_group_and_spark_has_no_other(planned: Callable[..., Plan]) -> None:
    its = planned(workers=2, memory="5 GB", engine="dask")
    assert (its.groups[0].count, its.groups[0].size.memory) == (2, 5 * GB)
    assert its.groups[2].size.memory == 4 * GB
    spark = planned("local", engine="spark")
    assert [each.name for each in spark.groups] == ["cpu"]
    assert "Spark has workers of one kind" in spark.reasons["groups"]
    assert planned("local").groups[2].spot == 0.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{name: gpu, min: 0, max: 2, cores: 4}", "mixed.yaml:4: workers[1].memory: is missing"),
        ("{name: gpu, mni: 0, max: 2, cores: 4, memory: 8 GB}", "workers[1].mni: is not a known key"),
        ("{name: cpu, min: 0, max: 2, cores: 4, memory: 8 GB}", "two groups are called 'cpu'"),
        ("{name: GPU, min: 0, max: 2, cores: 4, memory: 8 GB}", "workers[1].name: 'GPU'"),
        ("{name: gpu, min: 3, max: 2, cores: 4, memory: 8 GB}", "min 3 is above max 2"),
    ],
)  # fmt: skip
def test_faults_of_a_group_have_its_line(folder: Folder, wrong: str, said: str) -> None:
    right = "{name: gpu, min: 0, max: 2, cores: 4, memory: 8 GB, gpus: 1}"
    assert right in MIXED
    with pytest.raises(ConfigError) as caught:
        load(folder(mixed=MIXED.replace(right, wrong)), "local")
    assert said in str(caught.value)
    with pytest.raises(ConfigError, match="the first group, 'cpu', has a min of 0"):
        load(folder(mixed=MIXED.replace("min: 1", "min: 0")), "local")


def test_records_of_before_and_of_after_are_read(planned: Callable[..., Plan]) -> None:
    its = planned()
    assert read(Plan, json.loads(json.dumps(plain(its)))) == replace(its, reasons=dict(its.reasons))
    old = json.loads(json.dumps(plain(with_workers(its, 2))))
    old["groups"] = old["groups"][:1]
    del old["worker_prices"], old["fallbacks"]
    back = read(Plan, old)
    assert (back.workers, back.fallbacks, back.price_of("cpu")) == (2, {}, Money(Decimal(2)))
    assert with_workers(back, 3).workers == 3


def test_wishes_are_followed_one_group_at_a_time_fewer_first(planned: Callable[..., Plan]) -> None:
    its = planned(workers="2-4")
    assert UserWishes().next(its) == (None, "")
    assert UserWishes(workers=4, groups={"gpu": 1}).next(its) == (1, "gpu"), "the first follows its work"
    assert UserWishes(workers=1, groups={"gpu": 1}).next(its) == (1, "")
    assert UserWishes(groups={"gpu": 1, "cheap": 0}).next(its) == (0, "cheap")
    assert UserWishes(workers=3, groups={"cheap": 2, "unknown": 7}).next(its) == (3, "")


# -- pods -------------------------------------------------------------------------------------------------


def record(its: Plan) -> Cluster:
    return Cluster(
        "u-1", "nightly", "alice", None, Workload("mixed", Engine.DASK), its, State.READY, Reason.SERVING, "", 5.0, 1.0,
        head={"namespace": "shoal-alice"}, admitted_at=2.0,
    )  # fmt: skip


def head() -> dict[str, Any]:
    labels = {ROLE: HEAD}
    return {
        "metadata": {"name": "nightly-head", "uid": "h", "labels": labels},
        "status": {"phase": "Running"},
    }


def as_pod(slot: Slot) -> dict[str, Any]:
    labels = {ROLE: WORKER, SLOT: str(slot.number), OF_GROUP: slot.group, CAPACITY: slot.on.value}
    name = f"nightly-w-{slot.number}"
    return {"metadata": {"name": name, "uid": name, "labels": labels}, "status": {"phase": "Pending"}}


def played(
    its: Plan, pods: list[dict[str, Any]], waited: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """The pods once what has to be done was done: those to end first."""
    todo = tend(record(its), pods, HeadReport(), waited or {})
    gone = {uid for _, uid in todo.end}
    left = [pod for pod in pods if pod["metadata"]["uid"] not in gone]
    made = [as_pod(slot) for slot in todo.make]
    taken = {pod["metadata"]["name"] for pod in left}
    assert not taken & {pod["metadata"]["name"] for pod in made}, "a name exists once"
    return [*left, *made]


def kinds(pods: list[dict[str, Any]]) -> list[tuple[str, str]]:
    labels = [pod["metadata"]["labels"] for pod in pods]
    return sorted((its[OF_GROUP], its[CAPACITY]) for its in labels if its[ROLE] == WORKER)


def test_each_group_gets_its_slots_and_its_share_of_spot_machines(planned: Callable[..., Plan]) -> None:
    its = with_workers(with_workers(planned(), 1, "gpu"), 3, "cheap")
    pods = played(its, [head()])
    assert kinds(pods) == [
        ("cheap", "any"),
        ("cheap", "any"),
        ("cheap", "spot"),
        ("cpu", "any"),
        ("gpu", "any"),
    ]
    assert played(its, pods) == pods, "never one more"


def test_a_worker_that_finds_no_spot_machine_gets_another_after_its_time(
    planned: Callable[..., Plan],
) -> None:
    pods = played(planned(), [head()])
    (spot,) = (each["metadata"]["uid"] for each in pods if each["metadata"]["labels"].get(CAPACITY) == "spot")
    assert played(planned(), pods, {spot: 299.0}) == pods
    after = played(planned(), pods, {spot: 300.0})
    assert len(after) == len(pods)
    assert kinds(after) == [("cheap", "any"), ("cheap", "fallback"), ("cpu", "any")]
    assert played(planned(), after, {spot: 900.0}) == after, (
        "it stays as it is, also where it has to wait again"
    )
    lost = [
        pod
        for pod in after
        if pod["metadata"]["labels"].get(CAPACITY) != "any" or pod["metadata"]["labels"][OF_GROUP] != "cheap"
    ]
    assert kinds(played(planned(), lost)) == kinds(after), "it counts as the share on spot machines"
    patient = replace(planned(), fallbacks={})
    assert played(patient, pods, {spot: 9e9}) == pods


def test_what_is_retired_of_one_group_makes_room_before_another_grows(planned: Callable[..., Plan]) -> None:
    before = planned(workers=3)
    pods = played(before, [head()])
    its = with_workers(with_workers(before, 1), 1, "gpu")
    assert surplus(its, pods) == {"cpu": 2, "gpu": -1, "cheap": 0}
    assert tend(record(its), pods, HeadReport()).make == ()
    cpu = [pod["metadata"]["name"] for pod in pods if pod["metadata"]["labels"].get(OF_GROUP) == "cpu"]
    others = [pod["metadata"]["name"] for pod in pods if pod["metadata"]["labels"].get(OF_GROUP) == "cheap"]
    assert tend(record(its), pods, HeadReport(retired=tuple(others))).end == ()
    todo = tend(record(its), pods, HeadReport(retired=(*cpu, *others)))
    assert [name for name, _ in todo.end] == cpu[:2], "of that group alone, and no more than are too many"
    left = [pod for pod in pods if pod["metadata"]["name"] not in cpu[:2]]
    assert [slot.group for slot in tend(record(its), left, HeadReport()).make] == ["gpu"]


def test_pods_go_where_the_target_says(planned: Callable[..., Plan]) -> None:
    cloud = Cloud.model_validate({
        "spot": {"selector": {"pool": "spot"}, "tolerations": [{"key": "spot", "effect": "NoSchedule"}]},
        "gpu": {"tolerations": [{"key": "nvidia.com/gpu"}]},
    })  # fmt: skip
    cluster = record(planned())

    def spec(group: str, on: On) -> dict[str, Any]:
        made: dict[str, Any] = dressed(
            worker_pod(cluster, OWNER, Slot(0, group, on)), cluster.plan, cloud, {}
        )["spec"]
        return made

    assert spec("cheap", On.SPOT)["nodeSelector"] == {"pool": "spot"}
    assert spec("cheap", On.SPOT)["tolerations"] == [
        {"key": "spot", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert "nodeSelector" not in spec("cheap", On.FALLBACK)
    gpu = spec("gpu", On.ANY)
    assert gpu["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    (container,) = gpu["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "SHOAL_WORKER_GROUP", "value": "gpu"} in container["env"]
