"""What applying a project would change on the server, told by path and in the words of the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoal.errors import UsageError
from shoal.homes.kubernetes.changes import (
    Running,
    changes,
    differences,
    key_of,
    path_of,
    refuse_other_release,
)
from shoal.homes.kubernetes.manifests import cluster_wide, of_project
from shoal.homes.kubernetes.names import ADMITTED
from shoal.homes.kubernetes.quantities import spelled, told
from shoal.model.outlook import Change, What
from shoal.project.loading import load

from .test_kubernetes_project import Json, folder

__all__ = ["folder"]  # a fixture


ADMITTED_ALICE = ("ResourceQuota", "shoal-alice", ADMITTED)


def live(objects: list[Json]) -> dict[Any, Json]:
    """As the server has them: with amounts in its own spelling, and what it adds."""
    found = {}
    for each in objects:
        its: Json = {**each, "metadata": {**each["metadata"], "uid": "u", "managedFields": []}}
        if its["kind"] == "ResourceQuota":
            hard = its["spec"]["hard"]
            amounts = {name: f"{each[:-1]}000M" for name, each in hard.items() if "memory" in name}
            its["spec"] = {"hard": hard | amounts}
        if its["kind"] == "Secret":
            its["data"] = {"u-1.token": "c2VjcmV0"}
        found[key_of(each)] = its
    return found


def test_applied_twice_nothing_changes_and_what_did_is_told_by_path(folder: Path) -> None:
    (folder / "policies" / "tiers.yaml").write_text(
        "standard: {concurrent_clusters: 2, workers_per_cluster: 3, memory: 6 GB, max_duration: 4 h, head: 2 GB}\n"
    )
    before = of_project(load(folder))
    there = live(before) | {ADMITTED_ALICE: {"metadata": {}}}
    assert changes(before, there, list(there), ()) == ([], [])
    assert changes(before, {}, (), ())[0][0].what is What.ADDED

    users = folder / "policies" / "users.yaml"
    users.write_text(users.read_text().replace("memory: 3 GB", "memory: 2 GB"))
    running = [Running("shoal-alice", "nightly", "alice"), Running("shoal-bob", "sweep", "bob")]
    found, _ = changes(of_project(load(folder)), there, list(there), running)
    (project,) = (each for each in found if each.kind == "Project")
    assert project.lines == ("spec.policies.users.alice.memory: 3 GB -> 2 GB",)
    assert project.touches == ("alice/nightly",)
    (quota,) = (each for each in found if each.kind == "ResourceQuota")
    assert quota.namespace == "shoal-alice"

    there["Role", "shoal-bob", "shoal-user"]["rules"] = []
    assert [path_of(each) for each in changes(before, there, list(there), ())[0]] == [
        "/apis/rbac.authorization.k8s.io/v1/namespaces/shoal-bob/roles/shoal-user"
    ]


def test_a_user_who_goes_loses_rights_first_and_the_namespace_once_nothing_runs_there(folder: Path) -> None:
    there = live(of_project(load(folder)))
    there |= {key: {"metadata": {}} for key in (ADMITTED_ALICE, ("ResourceQuota", "shoal-bob", ADMITTED))}
    users = folder / "policies" / "users.yaml"
    users.write_text("\n".join(line for line in users.read_text().splitlines() if "bob" not in line))
    wanted = of_project(load(folder))

    def removed(running: list[Running]) -> tuple[list[Change], list[str]]:
        found, waits = changes(wanted, there, list(there), running)
        return [each for each in found if each.what is What.REMOVED], waits

    found, waits = removed([])
    assert [(each.kind, each.namespace, each.name) for each in found] == [
        ("RoleBinding", "shoal-system", "shoal-user-shoal-bob"),
        ("Role", "shoal-system", "shoal-user-shoal-bob"),
        ("Namespace", "", "shoal-bob"),
    ]
    assert waits == []
    for somebody_elses in (False, True):
        if somebody_elses:  # one that we did not make
            del there["Namespace", "", "shoal-bob"]
        found, waits = removed([Running("shoal-bob", "sweep", "bob")])
        assert ("RoleBinding", "shoal-bob", "shoal-user") in [
            (each.kind, each.namespace, each.name) for each in found
        ]
        assert "Namespace" not in [each.kind for each in found]
        assert waits == ["namespace shoal-bob stays until bob/sweep ended: apply again then"]
    found, waits = removed([])
    assert waits == []
    assert [each.namespace for each in found if each.name == ADMITTED] == ["shoal-bob"]
    assert {each.kind for each in found if each.namespace == "shoal-bob"} == {
        "RoleBinding", "Role", "ResourceQuota", "NetworkPolicy", "ServiceAccount", "Secret",
    }  # fmt: skip


def test_what_was_applied_once_and_is_not_wanted_any_more_is_a_change() -> None:
    wanted = {"kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "3"}}}
    hard = {"pods": "3", "requests.cpu": "5", "count/secrets": "9"}
    fields = {"f:spec": {"f:hard": {"f:pods": {}, "f:requests.cpu": {}}}}
    managed = [{"manager": "shoal", "fieldsV1": fields}]
    before = {"metadata": {"name": "q", "managedFields": managed}, "spec": {"hard": hard}}
    assert list(differences(before, wanted)) == ["spec.hard.requests.cpu: removed"]


def test_what_changes_is_told_in_the_words_of_the_files() -> None:
    """Sizes and durations with units, as short as is exact; of lists what comes and what goes."""
    tier = {"memory": 42 * 10**9, "head": 4 * 1024**3, "maxDuration": 43200, "gpus": 0}
    before = {"metadata": {}, "spec": {"tiers": tier, "templates": {"max": 2, "timeouts": {"max": 60}}}}
    tier = {"memory": 42 * 10**9 + 1, "head": 4 * 10**9, "maxDuration": 5400.0, "gpus": 1}
    after = {"kind": "Project", "metadata": {}}
    after |= {"spec": {"tiers": tier, "templates": {"max": 3, "timeouts": {"max": 90}}}}
    assert list(differences(before, after)) == [
        "spec.tiers.memory: 42 GB -> 42000000001 B",
        "spec.tiers.head: 4 GiB -> 4 GB",
        "spec.tiers.maxDuration: 12 h -> 1 h 30 min",
        "spec.tiers.gpus: 0 -> 1",
        "spec.templates.max: 2 -> 3",
        "spec.templates.timeouts.max: 1 min -> 1 min 30 s",
    ]
    before = {"metadata": {}, "spec": {"hard": {"requests.memory": "90G", "pods": "4"}}, "names": ["a", "b"]}
    after = {"kind": "ResourceQuota", "metadata": {}, "names": ["b", "c"]}
    after |= {"spec": {"hard": {"requests.memory": str(78 * 1024**3), "pods": "5"}}}
    assert list(differences(before, after)) == [
        "names: +c, -a",
        "spec.hard.requests.memory: 90 GB -> 78 GiB",
        "spec.hard.pods: 4 -> 5",
    ]


def test_definitions_of_a_newer_shoal_or_of_another_version_are_left_alone() -> None:
    ours = cluster_wide("shoal-system")
    refuse_other_release(ours, "99.0")
    with pytest.raises(UsageError, match=r"this is 0\.0\.1: it would take fields away"):
        refuse_other_release(ours, "0.0.1")
    other = {**ours[0], "spec": {**ours[0]["spec"], "versions": [{"name": "v2", "served": True}]}}
    with pytest.raises(UsageError, match="in version v2"):
        refuse_other_release([other], "99.0")


def test_a_quantity_is_spelled_as_the_server_spells_it() -> None:
    """Else a second apply would find a change, and an apply by kubectl a conflict."""
    spelled_ = [spelled(value) for value in (0, 0.5, 2.25, 10, 1000, 512_000_000, 63_500_000_000, 42e9)]
    assert spelled_ == ["0", "500m", "2250m", "10", "1k", "512M", "63500M", "42G"]
    assert told("requests.memory", "2148Mi") == "2.3 GB"
    assert (told("pods", "3"), told("requests.cpu", "200m"), told("pods", "many")) == ("3", "0.2", "many")
