"""What of an applied project is there otherwise than it was applied, as the governor finds it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from shoal.homes.kubernetes.changes import changes, key_of, others_of
from shoal.homes.kubernetes.drift import drift
from shoal.homes.kubernetes.manifests import of_project
from shoal.homes.kubernetes.names import ADMISSION, ADMISSION_BINDING, RELEASE
from shoal.project.loading import load

from .test_kubernetes_project import Json, folder

__all__ = ["folder"]  # a fixture
SYSTEM = "shoal-system"
Change = Callable[[Json], Any]


def applied(folder: Path) -> tuple[Json, dict[Any, Json]]:
    every = of_project(load(folder))
    (project,) = [each for each in every if each["kind"] == "Project"]
    return project, {key_of(each): deepcopy(each) for each in every if each is not project}


def test_a_governor_finds_no_difference_in_what_was_applied_and_all_that_a_hand_changed(folder: Path) -> None:
    project, live = applied(folder)
    assert drift(project, live, SYSTEM) == (), "what is compiled of the object is what was of the files"
    for kind, namespace, name, change, says in (
        ("Role", "shoal-bob", "shoal-user", lambda its: its["rules"].pop(), "rules"),
        (
            "RoleBinding",
            "shoal-bob",
            "shoal-user",
            lambda its: its["subjects"].append({"name": "eve"}),
            "subjects",
        ),
        (
            "ResourceQuota",
            "shoal-bob",
            "shoal",
            lambda its: its["spec"]["hard"].update(pods="900"),
            "pods: 900 -> 10",
        ),
        (
            "NetworkPolicy",
            "shoal-bob",
            "shoal",
            lambda its: its["spec"]["ingress"].append({}),
            "spec.ingress",
        ),
        ("Namespace", "", "shoal-bob", lambda its: its["metadata"]["labels"].clear(), "metadata.labels"),
    ):
        there = deepcopy(live)
        change(there[kind, namespace, name])
        (told,) = drift(project, there, SYSTEM)
        assert told.startswith(f"{kind} {name}"), told
        assert says in told, told
        del there[kind, namespace, name]
        assert drift(project, there, SYSTEM)[0].endswith("is gone")


@pytest.mark.parametrize(
    ("kind", "change", "path"),
    [
        (
            ADMISSION.name,
            lambda spec: spec.update(matchConditions=[{"name": "no", "expression": "false"}]),
            "matchC",
        ),
        (
            ADMISSION.name,
            lambda spec: spec["matchConstraints"].update(excludeResourceRules=[{}]),
            "matchConstraints.ex",
        ),
        (
            ADMISSION_BINDING.name,
            lambda spec: spec["matchResources"].update(resourceRules=[{}]),
            "matchResources.re",
        ),
    ],
)
def test_what_exempts_from_a_policy_is_found_and_taken_out_though_nobody_applied_it(
    folder: Path, kind: str, change: Change, path: str
) -> None:
    project, live = applied(folder)
    key = next(each for each in live if each[0] == kind)
    change(live[key]["spec"])
    (told,) = drift(project, live, SYSTEM)
    assert told.endswith(": removed")
    assert f"spec.{path}" in told
    found, _ = changes(of_project(load(folder)), live | {key_of(project): project}, (), ())
    assert [(each.kind, each.name) for each in found] == [(kind, key[2])]
    assert others_of(kind)
    assert others_of("Role") == {}


def test_what_another_shoal_or_another_tool_applied_is_not_judged(folder: Path) -> None:
    project, _ = applied(folder)
    assert len(drift(project, {}, SYSTEM)) == 21, "all is gone, and not all of it is told"
    project["metadata"]["labels"][RELEASE] = "0.0.9"
    assert drift(project, {}, SYSTEM) == ()
    assert drift(applied(folder)[0], {}, "another") == ()
