"""An administrator applies a project to a real API server: what is in force there counts, for whom it says."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster.clusters import Cluster as Kubernetes

from shoal.client.clusters import open_project, prepare
from shoal.homes.base import Request
from shoal.homes.choose import in_force, open_home
from shoal.homes.kubernetes import drift
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.names import (
    ADMISSION,
    ADMISSION_BINDING,
    CLUSTER,
    HEADS_REACHED,
    NAMESPACE,
    NETWORK,
    OF_PROJECT,
    OF_SYSTEM,
    PROJECT,
    QUOTA,
    REACHES_API,
    REACHES_OWN,
    ROLE_OF,
)
from shoal.homes.kubernetes.native_clusters import LIMIT
from shoal.homes.kubernetes.proofs import proofs
from shoal.model.checks import Warned
from shoal.model.cluster import Cluster, Reason, State

from .installing import remove
from .simulated import Simulated

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(240)]
Eventually = Callable[..., Any]
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@dataclass
class Office:
    """A project folder whose one user is alice, by another name in it, and who may apply it."""

    folder: Path
    user: str
    place: Simulated
    alice: Path
    patch: pytest.MonkeyPatch

    @property
    def users(self) -> Path:
        return self.folder / "policies" / "users.yaml"

    def as_(self, kubeconfig: Path) -> None:
        self.patch.setenv("KUBECONFIG", str(kubeconfig))

    def project(self) -> dict[str, Any]:
        return self.place.admin.get(PROJECT.path(self.place.system, "office"))


@pytest.fixture
def office(
    project: Path, kube_fleet: Kubernetes, fleet_admin: Api, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Office]:
    mark = secrets.token_hex(3)
    user, system = f"alice-{mark}", f"system-{mark}"
    namespace = f"shoal-{user}"
    file = project / "shoal.yaml"
    cloud = f"{{namespace: {namespace}, system: {system}, namespaces: [{namespace}], project: office}}"
    text = file.read_text().replace("home: local", f"home: kubernetes\n    kubernetes: {cloud}", 1)
    file.write_text("\n".join(line for line in text.splitlines() if "machine:" not in line))
    (project / "policies" / "users.yaml").write_text(
        f"default: {{tier: standard}}\n{user}: {{tier: standard, subjects: [{{user: alice}}]}}\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(kube_fleet.kubeconfig))
    place = Simulated(fleet_admin, project, namespace, system)
    try:
        yield Office(project, user, place, kube_fleet.kubeconfig_of("alice"), monkeypatch)
    finally:
        place.stop()
        remove(fleet_admin, namespace, system)


def ask(office: Office, template: str, name: str) -> Cluster:
    settled = prepare(template, engine="dask", workers=1, project=office.folder)
    home = open_home(settled.project)
    return home.request(Request(name, settled.user, settled.workload, settled.plan))


def said(*words: str) -> tuple[int, str]:
    """The command's exit code, and what it wrote."""
    line = [sys.executable, "-m", "shoal", *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + ("" if "json" in words else done.stderr)


def test_what_is_applied_is_in_force_and_nothing_else(
    office: Office, kube_fleet: Kubernetes, eventually: Eventually
) -> None:
    folder, place = ("--project", str(office.folder)), office.place
    code, text = said("apply", *folder, "--dry-run")
    assert (code, "+ Project office" in text) == (0, True), text
    assert place.admin.list(NAMESPACE.path(), fieldSelector=f"metadata.name={place.system}")[0] == []
    code, text = said("apply", *folder, "--yes")
    assert code == 0, text
    assert "no governor has taken it up yet" in text
    code, text = said("apply", *folder, "--yes")
    assert (code, text.startswith("Nothing to change")) == (0, True), text

    # What restricts came before what gives, and was tried: the last policy is bound when this returns.
    its = place.admin.list(ADMISSION_BINDING.path(), labelSelector=f"{OF_SYSTEM}={place.system}")[0]
    assert f"{place.system}-in-force" in {each["metadata"]["name"] for each in its}
    assert all(each["metadata"]["labels"][OF_PROJECT] == "office" for each in its), (
        "so they are pruned as all else"
    )

    # Whoever governs has it from the server: these files may be gone, and say less to alice than what is applied.
    place.govern(put=False)
    eventually(lambda: office.project().get("status", {}).get("inForce") == 1, 20, "it is in force")
    office.as_(office.alice)
    # A quota that somebody changed by hand is refilled by applying again; till then one waits, and nobody else.
    place.admin.patch(QUOTA.path(place.namespace, "shoal"), {"spec": {"hard": {"pods": "0"}}})
    cluster = ask(office, "small", "one")
    home = open_home(open_project(office.folder))
    (program, _), *_ = place.governors
    eventually(lambda: home.get(cluster.id).reason is Reason.WAITING_FOR_QUOTA, 20, "it says what for")
    found = home.get(cluster.id)
    assert found.state is State.ADMITTED
    code, text = said("why", "one", *folder, "-o", "json")
    steps = {each["stage"]: each for each in json.loads(text)["steps"]}
    assert steps["quota"]["outcome"] == "now"
    assert "has no room for its head: pods 1 asked for, 0 of 0 used" in steps["quota"]["said"]
    assert program.fault == ""
    office.as_(kube_fleet.kubeconfig)
    code, text = said("apply", *folder, "--yes")
    assert code == 0, text
    assert "spec.hard.pods: 0 -> 10" in text
    office.as_(office.alice)
    eventually(lambda: home.get(cluster.id).state is State.READY, 60, "it is Ready")

    # What is applied counts, and a template that nobody applied travels with the request.
    small = office.folder / "clusters" / "small.yaml"
    small.write_text(small.read_text().replace("max: 1 h", "max: 2 h"))
    (office.folder / "clusters" / "mine.yaml").write_text(small.read_text().replace("max: 3", "max: 2"))
    assert prepare("small", project=office.folder).plan.timeouts.max == 3600
    mine = ask(office, "mine", "two")
    assert (mine.plan.template, mine.plan.groups[0].maximum, mine.plan.timeouts.max) == ("mine", 1, 7200)
    home.stop(mine.id, Reason.STOPPED_BY_USER, "enough")
    eventually(lambda: home.get(mine.id).state.ended, 60, "it ended")
    code, text = said("quota", *folder)
    assert "by project office, as applied" in text.replace("\n", " ")

    # What others hold is not hers to see, and is not called nothing.
    code, text = said("quota", *folder, "--user", "bob")
    assert (code, "cannot get" in text) == (4, True), text

    # She may not apply, and is told all that is lacking before anything is sent.
    code, text = said("apply", *folder, "--yes")
    assert code == 4
    assert "cannot list" in text or "alice may not" in text, text
    code, text = said("doctor", *folder, "-o", "json")
    checks = {each["check"]: each for each in json.loads(text)["checks"]}
    for name in ("resource definitions", "applied project", "rights", "access", "governor", "policy"):
        assert checks[name]["result"] == "ok", checks[name]

    # At fault by hand: the last good one stays in force, and doctor and status say what is wrong.
    office.as_(kube_fleet.kubeconfig)
    place.admin.patch(PROJECT.path(place.system, "office"), {"spec": {"images": None}})
    eventually(lambda: "no image" in office.project()["status"].get("fault", ""), 20, "the fault is told")
    assert office.project()["status"]["inForce"] == 1
    code, text = said("doctor", *folder, "-o", "json")
    checks = {each["check"]: each for each in json.loads(text)["checks"]}
    assert "no image" in checks["applied project"]["said"]

    # A user who goes: rights at once, the namespace once nothing runs there.
    office.users.write_text("default: {tier: standard}\n")
    (office.folder / "clusters" / "mine.yaml").unlink()
    code, text = said("apply", *folder, "--yes")
    assert code == 0, text
    assert f"namespace {place.namespace} stays until {office.user}/one ended" in text
    assert "is in force (generation 3)" in text
    roles = {each["metadata"]["name"] for each in place.admin.list(ROLE_OF.path(place.namespace))[0]}
    assert "shoal-user" not in roles
    assert "shoal-governor" in roles
    place.admin.patch(CLUSTER.path(place.namespace, "one"), {"spec": {"stop": {"reason": "StoppedByUser"}}})
    eventually(
        lambda: (
            place.admin.get(CLUSTER.path(place.namespace, "one")).get("status", {}).get("state") == "Stopped"
        ),
        60,
        "it ended",
    )
    eventually(lambda: place.left() == [], 60, "nothing but its record is left")
    code, text = said("apply", *folder, "--yes")
    assert (code, f"- Namespace {place.namespace}" in text) == (0, True), text


def test_policies_have_one_owner_and_faults_are_told_before_anything_is_sent(
    office: Office, tmp_path: Path, small_project: Callable[[Path], Path]
) -> None:
    folder = ("--project", str(office.folder))
    office.users.write_text("default: {tier: nobodys}\nbob: {tier: standard, memry: 3 GB}\n")
    code, text = said("apply", *folder, "--yes")
    assert code == 2
    assert "users.yaml:1: default.tier" in text
    assert "users.yaml:2: bob.memry" in text
    office.users.write_text(f"{office.user}: {{tier: standard, subjects: [{{user: alice}}]}}\n")
    assert said("apply", *folder, "--yes")[0] == 0

    other = small_project(tmp_path / "other")
    text = (office.folder / "shoal.yaml").read_text().replace("project: office", "project: other")
    (other / "shoal.yaml").write_text(text)
    (other / "clusters" / "small.yaml").rename(other / "clusters" / "large.yaml")
    code, text = said("apply", "--project", str(other), "--yes")
    assert code == 2
    assert "are those of project 'office', and project 'other' brings policies, too" in text
    for file in (other / "policies").iterdir():
        file.unlink()
    (other / "policies").rmdir()
    assert said("apply", "--project", str(other), "--yes")[0] == 0
    office.as_(office.alice)
    assert {"small", "large"} <= set(in_force(open_project(other)).templates) | {"small"}


def test_users_namespaces_are_kept_apart_and_what_a_hand_changed_there_is_put_right(office: Office) -> None:
    folder, place = ("--project", str(office.folder)), office.place
    file = office.folder / "shoal.yaml"
    plain = file.read_text()
    catalog = (
        "\n    catalog: {uri: 'postgresql://user:secret@db.example.com/catalog', warehouse: 's3://lake'}"
    )
    more = "project: office, network: {egress: [{cidr: 10.20.0.0/16, ports: [9092]}], ingress: [{namespace: hub}]}}"
    file.write_text(plain.replace("project: office}", more + catalog, 1))
    code, text = said("apply", *folder, "--yes")
    assert code == 0, text
    assert said("apply", *folder, "--yes")[1].startswith("Nothing to change")
    path = NETWORK.path(place.namespace)
    found = {each["metadata"]["name"]: each["spec"] for each in place.admin.list(path)[0]}
    assert set(found) == {REACHES_OWN, REACHES_API, HEADS_REACHED}
    assert '"port": 5432' in json.dumps(found)
    assert '"cidr": "10.20.0.0/16"' in json.dumps(found)
    applied = office.project()["spec"]
    assert applied["addresses"] == ["db.example.com:5432", "*:443"], "and no secret"
    assert applied["kubernetes"]["network"]["ingress"] == [{"namespace": "hub", "ports": []}]

    own = f"{path}/{REACHES_OWN}"
    alice = place.admin.again()
    asked = {"namespace": place.namespace, "group": "networking.k8s.io", "resource": "networkpolicies"}
    for verb in ("create", "patch", "delete", "deletecollection"):
        review = {"spec": {"user": "alice", "resourceAttributes": asked | {"verb": verb}}}
        assert not alice.create(REVIEWS, review)["status"]["allowed"]
    review["spec"]["resourceAttributes"] = {"namespace": place.namespace, "verb": "get", "resource": "pods"}
    assert alice.create(REVIEWS, review)["status"]["allowed"], "what she may do is told as well"
    alice.close()

    place.admin.patch(own, {"spec": {"egress": [{}]}})
    place.admin.delete(f"{path}/{HEADS_REACHED}")
    code, text = said("apply", *folder, "--yes")
    assert (code, f"~ NetworkPolicy {REACHES_OWN} in {place.namespace}" in text) == (0, True), text
    assert f"+ in {place.namespace}: 1 NetworkPolicy" in text
    assert place.admin.get(own)["spec"] == found[REACHES_OWN]
    file.write_text(plain.replace("project: office}", "project: office, network: {isolated: false}}"))
    assert said("apply", *folder, "--yes")[0] == 0
    assert place.admin.list(path)[0] == []


def test_what_a_hand_changed_is_told_by_the_governor_and_put_right_by_applying_again(
    office: Office, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "_EVERY", 2.0)
    monkeypatch.setattr(drift, "_AGAIN", 0.5)
    folder, place = ("--project", str(office.folder)), office.place
    assert said("apply", *folder, "--yes")[0] == 0
    place.govern(put=False)

    def told() -> list[str] | None:
        return office.project().get("status", {}).get("drift")

    eventually(lambda: told() == [], 20, "nothing differs")
    policy = ADMISSION.path(name=f"{place.system}-limits")
    none = {"matchConditions": [{"name": "nobody", "expression": "false"}]}
    limit = f"{LIMIT}workers"
    note = place.admin.get(NAMESPACE.path(name=place.namespace))["metadata"]["annotations"][limit]
    place.admin.patch(policy, {"spec": none})
    place.admin.patch(
        NAMESPACE.path(name=place.namespace), {"metadata": {"annotations": {limit: "900 more"}}}
    )
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}
    place.admin.patch(ROLE_OF.path(place.namespace, "shoal-user"), {"rules": [rule]})
    place.admin.delete(QUOTA.path(place.namespace, "shoal"))
    place.admin.delete(ADMISSION_BINDING.path(name=f"{place.system}-marks"))
    here = f" in {place.namespace}"
    changed = "was changed (there -> applied): "
    eventually(lambda: len(told() or ()) == 5, 30, "all of it is told")
    assert sorted(each[:60] for each in told() or ()) == sorted(
        each[:60]
        for each in (
            f"Namespace {place.namespace} {changed}metadata.annotations.{limit}: 900 more -> {note}",
            f"ResourceQuota shoal{here} is gone",
            f"Role shoal-user{here} {changed}rules: ",
            f"ValidatingAdmissionPolicy {place.system}-limits {changed}spec.matchConditions: removed",
            f"ValidatingAdmissionPolicyBinding {place.system}-marks is gone",
        )
    )
    location = Location(system=place.system, namespaces=(place.namespace,))
    check = dict(proofs(lambda: place.admin, location, lambda: place.namespace))["applied project"]
    with pytest.raises(Warned, match=r"somebody changed what was applied: .*ResourceQuota shoal"):
        check()
    assert said("apply", *folder, "--yes")[0] == 0
    eventually(lambda: told() == [], 30, "it is put right")
    assert "matchConditions" not in place.admin.get(policy)["spec"]


def test_without_a_project_a_governor_says_so_and_answers_once_there_is_one(
    office: Office, eventually: Eventually
) -> None:
    folder = ("--project", str(office.folder))
    assert said("apply", *folder, "--yes")[0] == 0
    applied = office.project()
    office.place.admin.delete(PROJECT.path(office.place.system, "office"))
    office.place.govern(put=False)
    spec = {"workload": {"template": "small", "engine": "dask", "workers": 1}}
    body = {
        "apiVersion": "shoal.dev/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "early"},
        "spec": spec,
    }
    office.place.admin.create(CLUSTER.path(office.place.namespace), body)
    (program, _), *_ = office.place.governors
    eventually(lambda: "`shoal apply`" in program.fault, 20, "it says what to do")
    made = {name: applied[name] for name in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "office"}}
    office.place.admin.create(PROJECT.path(office.place.system), made)
    path = CLUSTER.path(office.place.namespace, "early")
    eventually(
        lambda: office.place.admin.get(path).get("status", {}).get("state") == "Ready", 60, "it is Ready"
    )
    # A round tells its faults when it ends, which may be after the one Cluster is Ready.
    eventually(lambda: program.fault == "", 20, "its fault is gone")
