"""Builders for pure values: a policy, limits, a template, a plan, each in one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from shoal.model.workload import Plan
from shoal.planning.asking import ask
from shoal.planning.sizing import plan
from shoal.project import loading as project
from shoal.project.loading import Project
from shoal.project.policy import Limits

# Examples are not timed: other work on the machine is no fault of ours.
settings.register_profile("shoal", deadline=None)
settings.load_profile("shoal")


@pytest.fixture(scope="session")
def shipped() -> Project:
    """The project that this repository is."""
    return project.load(project.defaults(), target="local")


@pytest.fixture(scope="session")
def standard(shipped: Project) -> Limits:
    """What somebody of tier standard may have."""
    return shipped.policy.limits_of("somebody")


@pytest.fixture(scope="session")
def on_kubernetes() -> Project:
    return project.load(project.defaults(), target="kubernetes")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """``folder(tiers="...", etl="...")`` makes a project folder of those files; the rest is shipped."""

    places = {
        "shoal": "shoal.yaml",
        **{name: f"policies/{name}.yaml" for name in ("tiers", "users", "teams", "templates", "everybody")},
    }
    shipped_settings = (project.defaults() / "shoal.yaml").read_text()

    def make(**files: str) -> Path:
        for name, text in {"shoal": shipped_settings, **files}.items():
            path = tmp_path / places.get(name, f"clusters/{name}.yaml")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        if "tiers" not in files and (tmp_path / "policies").exists():
            text = (project.defaults() / "policies/tiers.yaml").read_text()
            (tmp_path / "policies/tiers.yaml").write_text(text)
        return tmp_path

    return make


@pytest.fixture
def planned(shipped: Project) -> Callable[..., Plan]:
    """``planned("etl", workers=3)``: the plan of that ask at the shipped project's local target."""

    def make(template: str = "etl", *, limits: Limits | None = None, **asked: Any) -> Plan:
        limits = limits or shipped.policy.limits_of("somebody")
        return plan(ask(template, **asked), shipped.template(template), limits, shipped.target)

    return make
