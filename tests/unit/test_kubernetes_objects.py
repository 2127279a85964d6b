"""Records as objects of a Kubernetes API server: they come back as they were, from older and newer ones too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from shoal.homes.kubernetes.definitions import definitions
from shoal.homes.kubernetes.history import as_object, record_object, without_object
from shoal.homes.kubernetes.manifests import of_user, person
from shoal.homes.kubernetes.names import account_of
from shoal.homes.kubernetes.objects import (
    Event,
    Spec,
    Status,
    asked,
    cluster_of,
    spec_of,
    status_from,
    status_of,
)
from shoal.homes.kubernetes.pods import Pass
from shoal.homes.kubernetes.structure import read, schema_of, written
from shoal.model.cluster import Cluster, Reason, State
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
