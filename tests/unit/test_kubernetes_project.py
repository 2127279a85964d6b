"""A project as an object of a Kubernetes API server: it comes back as it was, and what applying it changes is told."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoal.client.wiring import NoCatalogError, wire
from shoal.errors import ConfigError, NotFoundError
from shoal.homes.kubernetes.applied import Applied, applied_of, name_of, project_object, template_written
from shoal.homes.kubernetes.changes import (
    key_of,
)
from shoal.homes.kubernetes.in_force import InForce, NotAppliedError, judged, overlaid
from shoal.homes.kubernetes.manifests import of_project, quota, rendered
from shoal.homes.kubernetes.structure import written
from shoal.model.resource import Resource
from shoal.model.workload import Engine
from shoal.project.loading import Project, load
from shoal.project.targets import Beside
from shoal.tables.catalogs import opening
from shoal.units import Bytes

Json = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path, small_project: Callable[[Path], Path]) -> Path:
    made = small_project(tmp_path / "Team Shoal")
    text = (made / "shoal.yaml").read_text().replace("home: local", "home: kubernetes", 1)
    (made / "shoal.yaml").write_text(text)
    template = (made / "clusters" / "small.yaml").read_text().splitlines()
    template[2:4] = [template[3], template[2]]  # Spark first: the order is the default engine
    (made / "clusters" / "small.yaml").write_text("\n".join(template))
    users = """
        default: {tier: standard}
        alice: {tier: standard, memory: 3 GB, subjects: [{user: alice@example.org}, {service_account: hub/alice}]}
        bob: {tier: standard, subjects: [{group: bobs}]}
        """
    (made / "policies" / "users.yaml").write_text(textwrap.dedent(users))
    return made


def stored(project: Project, name: str, **more: Any) -> Json:
    found = project_object(name, "shoal-system", Applied.of(project))
    found["metadata"] |= {
        "uid": name,
        "resourceVersion": "1",
        "generation": 3,
        "creationTimestamp": name,
        **more,
    }
    return found


def test_a_project_comes_back_with_every_number_its_order_and_its_lines(folder: Path) -> None:
    project = load(folder)
    back = applied_of(stored(project, "team")["spec"])
    assert back.templates == project.templates
    assert back.templates["small"].default_engine is Engine.SPARK
    for user in ("alice", "somebody"):
        assert back.policies is not None
        assert back.policies.policy.limits_of(user) == project.policy.limits_of(user)
    priced = load(folder, "priced")
    assert applied_of(stored(priced, "team")["spec"]) == Applied.of(priced)
    assert name_of(project) == "team-shoal"


def test_groups_of_workers_and_what_a_place_adds_to_pods_come_back_too(folder: Path) -> None:
    text = (folder / "shoal.yaml").read_text()
    cloud = """kubernetes:
      context: mine
      secrets: [proxy]
      spot: {selector: {pool: spot}, tolerations: [{key: spot}]}
      pod: {spec: {imagePullSecrets: [{name: pull}], containers: [{env: [{name: HTTP_PROXY, value: p}]}]}}
"""
    (folder / "shoal.yaml").write_text(
        text.replace("home: kubernetes\n", f"home: kubernetes\n    {cloud}", 1)
    )
    small = folder / "clusters" / "small.yaml"
    cpu, gpu = "name: cpu, min: 1, max: 3, cores: 1", "name: gpu, min: 0, max: 1, cores: 1"
    groups = f"[{{{cpu}, memory: 1 GB}}, {{{gpu}, memory: 2 GB}}]"
    lines = [
        f"workers: {groups}" if line.startswith("workers:") else line
        for line in small.read_text().splitlines()
    ]
    small.write_text("\n".join([*lines, "secrets: [keys]"]))
    project = load(folder)
    back = applied_of(stored(project, "team")["spec"])
    assert back.templates == project.templates
    assert back.kubernetes is not None
    assert back.kubernetes.context is None
    assert project.target.kubernetes is not None
    for part in ("secrets", "spot", "pod"):
        assert getattr(back.kubernetes, part) == getattr(project.target.kubernetes, part)
    assert back.kubernetes.pod is not None
    unset = back.kubernetes.pod.model_dump(exclude_unset=True)
    assert unset == project.target.kubernetes.pod.model_dump(exclude_unset=True)  # type: ignore[union-attr]
    in_force, _ = judged({"team": stored(project, "team")}, "shoal-system")
    mine = template_written(project.templates["small"])
    with pytest.raises(ConfigError, match="Secret 'admins' is in no applied"):
        in_force.brought("mine", mine | {"secrets": ["keys", "proxy", "admins"]})


def test_an_object_that_somebody_wrote_tells_every_fault(folder: Path) -> None:
    spec = stored(load(folder), "team")["spec"]
    spec["policies"]["users"]["alice"]["tier"] = "stendard"
    spec["templates"]["small"]["workers"] |= {"min": 9, "max": 1}
    spec["templates"]["other"] = {**spec["templates"]["small"], "workers": {"min": 1, "max": 1, "cores": 1}}
    with pytest.raises(ConfigError) as found:
        applied_of(spec)
    said = str(found.value)
    assert "3 faults" in said
    assert "min 9 is above max 1" in said
    assert "did you mean 'standard'?" in said.lower()
    assert "workers.memory: is missing" in said


def test_one_at_fault_changes_nothing_also_for_a_governor_that_starts_anew(folder: Path) -> None:
    found = stored(load(folder), "team")
    in_force, said = judged({"team": found}, "shoal-system")
    assert in_force.policy.limits_of("alice").totals == load(folder).policy.limits_of("alice").totals
    assert (said["team"].in_force, said["team"].observed, said["team"].fault) == (3, 3, "")
    found["status"] = written(said["team"])
    found = {
        **found,
        "spec": {**found["spec"], "images": {}},
        "metadata": found["metadata"] | {"generation": 4},
    }
    in_force, said = judged({"team": found}, "shoal-system")
    assert in_force.template("small")[0].name == "small"
    assert (said["team"].in_force, said["team"].observed) == (3, 4)
    assert "there is no image 'shoal-dask'" in said["team"].fault
    del found["status"]
    in_force, said = judged({"team": found}, "shoal-system")
    with pytest.raises(NotAppliedError, match="shoal-system"):
        in_force.template("small")


def test_templates_live_side_by_side_and_policies_have_one_owner(folder: Path) -> None:
    project = load(folder)
    both = {
        "b": stored(project, "b", creationTimestamp="2026-01-01"),
        "a": stored(project, "a", creationTimestamp="2026-02-01"),
    }
    in_force, said = judged(both, "shoal-system")
    assert in_force.owner == "b"
    assert said["b"].fault == ""
    assert "the policies of this place are those of project 'b'" in said["a"].fault
    with pytest.raises(NotFoundError, match="in the projects a and b"):
        in_force.template("small")
    assert in_force.template("small", "a")[0].name == "small"
    with pytest.raises(NotFoundError, match="no project 'c'"):
        in_force.template("small", "c")
    assert InForce("s").policy.limits_of("anybody").tier == "standard", (
        "the shipped ones where nobody brings any"
    )


def test_whom_the_api_server_knows_is_bound_and_two_users_have_no_namespace_in_common(folder: Path) -> None:
    found = {key_of(each): each for each in rendered(load(folder))}
    subjects = found["RoleBinding", "shoal-alice", "shoal-user"]["subjects"]
    assert [(each["kind"], each["name"]) for each in subjects] == [
        ("User", "alice@example.org"),
        ("ServiceAccount", "alice"),
    ]
    assert found["RoleBinding", "shoal-bob", "shoal-user"]["subjects"][0] == {
        "kind": "Group", "name": "bobs", "apiGroup": "rbac.authorization.k8s.io",
    }  # fmt: skip
    hard = found["ResourceQuota", "shoal-alice", "shoal"]["spec"]["hard"]
    assert (hard["pods"], hard["requests.memory"]) == ("10", "11G")
    beside = Beside(pods=1, memory=Bytes(2 * 10**9))
    hard = quota(load(folder).policy.limits_of("alice"), "shoal-alice", beside)["spec"]["hard"]
    assert (hard["pods"], hard["requests.memory"]) == ("11", "13G")
    users = folder / "policies" / "users.yaml"
    users.write_text(
        users.read_text() + "Bob: {tier: standard}\ndefault2: {tier: standard, subjects: [{}]}\n"
    )
    with pytest.raises(ConfigError, match=r"users.yaml:6: default2.subjects\[0\]: nobody is named"):
        load(folder)
    users.write_text(users.read_text().replace("default2: {tier: standard, subjects: [{}]}", ""))
    with pytest.raises(ConfigError, match=r"users.yaml:5: Bob: would have the namespace of 'bob'"):
        of_project(load(folder))


def test_a_project_without_policies_of_its_own_has_no_users(folder: Path) -> None:
    applied = Applied.of(load(folder))
    for file in (folder / "policies").iterdir():
        file.unlink()
    (folder / "policies").rmdir()
    assert [each["kind"] for each in of_project(load(folder))] == ["Project"]
    assert replace(applied, policies=None) == Applied.of(load(folder))


def test_a_template_of_ones_own_uses_what_was_applied_by_name_alone(folder: Path) -> None:
    project = load(folder)
    in_force, _ = judged({"team": stored(project, "team")}, "shoal-system")
    mine = template_written(project.templates["small"])
    mine["workers"] |= {"max": 2}
    template, target = in_force.brought("mine", mine)
    assert (template.name, template.workers.max, template.default_engine) == ("mine", 2, Engine.SPARK)
    assert target.images == {"shoal-dask": "shoal-dask", "shoal-spark": "shoal-spark"}
    mine["engines"] = {
        "dask": {"image": "registry.example.org/mine:1"},
        "spark": {"conf": {"spark.kubernetes.driver.serviceAccountName": "admin"}},
    }
    mine["mounts"] = ["secrets"]
    with pytest.raises(ConfigError) as found:
        in_force.brought("mine", mine)
    assert "3 faults" in str(found.value)
    assert "there is no image 'registry.example.org/mine:1'" in str(found.value)


def test_a_plan_goes_by_what_is_applied_and_a_folders_own_template_is_told(folder: Path) -> None:
    applied = stored(load(folder, "priced"), "team")
    in_force, _ = judged({"team": applied}, "shoal-system")
    (folder / "policies" / "tiers.yaml").write_text(
        (folder / "policies" / "tiers.yaml").read_text().replace("memory: 6 GB", "memory: 60 GB")
    )
    small = folder / "clusters" / "small.yaml"
    (folder / "clusters" / "mine.yaml").write_text(small.read_text())
    small.write_text(small.read_text().replace("max: 3", "max: 9"))
    mine = load(folder)
    known = overlaid(mine, in_force, "small")
    assert known.policy.limits_of("carol").totals[Resource.MEMORY].value == 6_000_000_000
    assert known.templates["small"].workers.max == 3
    assert known.target.prices == load(folder, "priced").target.prices
    assert (known.target.name, known.numbers) == (
        "local",
        "by project team, as applied to namespace shoal-system",
    )
    own = overlaid(mine, in_force, "mine")
    assert own.templates["mine"] == mine.templates["mine"]
    assert own.numbers.endswith("template mine is this folder's own")
    assert own.target.prices == known.target.prices


def test_a_file_of_this_machine_is_no_catalog_of_pods(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a script in a pod wrote there ended with its pod, and its exit code was 0."""
    monkeypatch.setattr(opening, "_hook", None)
    monkeypatch.setattr(opening, "_before_default", None)
    monkeypatch.delenv("SHOAL_CATALOG_URI", raising=False)
    wire(load(folder, target="local"))
    with pytest.raises(NoCatalogError, match="target local has no catalog, and pods do not see"):
        opening.settings()
    monkeypatch.setenv("SHOAL_CATALOG_URI", "sqlite:////mounted/catalog.db")
    assert opening.settings().uri == "sqlite:////mounted/catalog.db"
    monkeypatch.delenv("SHOAL_CATALOG_URI")
    text = (folder / "shoal.yaml").read_text().replace("home: kubernetes", "home: local", 1)
    (folder / "shoal.yaml").write_text(text)
    wire(load(folder, target="local"))
    assert opening.settings().kind == "sqlite"


def test_the_governor_is_a_deployment_of_its_own_as_the_target_says(folder: Path) -> None:
    file = folder / "shoal.yaml"
    plain = file.read_text()
    images = "images: {shoal-dask: here/shoal-dask:1}"

    def brought(cloud: str) -> list[Json]:
        block = f"home: kubernetes\n    kubernetes: {cloud}\n    {images}\n"
        file.write_text(plain.replace("home: kubernetes\n", block, 1))
        every = rendered(load(folder))
        assert [each["kind"] for each in every[:4]] == ["CustomResourceDefinition"] * 4, "they come first"
        return [each for each in every if each["kind"] == "Deployment"]

    patch = (
        "{metadata: {annotations: {a: b}}, spec: {imagePullSecrets: [{name: pull}], "
        "volumes: [{name: v, persistentVolumeClaim: {claimName: hers}}], containers: [{env: [{name: A, value: b}]}]}}"
    )
    said = "{image: shoal-dask, cores: 0.2, memory: 256 MB, port: 9090}"
    cloud = f"{{system: ours, namespaces: [one, two], governor: {said}, pod: {patch}}}"
    (made,) = brought(cloud)
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("shoal-governor", "ours")
    assert (made["spec"]["replicas"], made["spec"]["strategy"]["rollingUpdate"]["maxSurge"]) == (1, 0)
    template = made["spec"]["template"]
    assert made["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert template["metadata"]["annotations"] == {"a": "b"}
    pod = template["spec"]
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert [volume["name"] for volume in pod["volumes"]] == ["scratch"], (
        "what is of users' namespaces is not here"
    )
    (container,) = pod["containers"]
    assert container["image"] == "here/shoal-dask:1"
    assert "A" not in [each["name"] for each in container["env"]]
    assert container["args"][-6:] == ["--system", "ours", "--namespace", "one", "--namespace", "two"]
    assert container["args"][-8:-6] == ["--health", "9090"]
    assert container["ports"] == [{"name": "health", "containerPort": 9090}]
    amounts = {"cpu": "200m", "memory": "256M", "ephemeral-storage": "64Mi"}
    assert container["resources"] == {"requests": amounts, "limits": amounts}

    assert brought("{governor: {deployed: false}}") == []
    with pytest.raises(ConfigError, match=r"kubernetes.governor.image: there is no image 'shoal-dusk'"):
        brought("{governor: {image: shoal-dusk}}")
    brought("{}")
    for each in (folder / "policies").iterdir():
        each.unlink()
    (folder / "policies").rmdir()
    assert [each for each in rendered(load(folder)) if each["kind"] == "Deployment"] == [], (
        "one project has it"
    )
    assert "governor" not in stored(load(folder), "team")["spec"]["kubernetes"]
