"""Fixtures of the homes' tests: a home that a package brings, and workers as its pods run them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .own_modules import own_folder, own_home
from .pods import Pods

__all__ = ["own_folder", "own_home"]  # fixtures

GUEST = Path(__file__).with_name("guest")


@pytest.fixture
def guest(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``project`` at a home that an installed package brings: the one in ``guest``, on the path of all that is
    started from here."""
    installed = tmp_path / "installed"
    metadata = installed / "guest_home-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: guest-home\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[shoal.homes]\nguest = guest_home:GuestHome\n[shoal.desks]\nguest = guest_desk:GuestDesk\n"
    )
    for folder in (installed, GUEST):
        monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (installed, GUEST))))
    monkeypatch.setenv("GUEST_STORE", str(tmp_path / "guest"))
    file = project / "shoal.yaml"
    text = file.read_text()
    assert "home: local" in text
    file.write_text(text.replace("home: local", "home: guest\n    store: ${GUEST_STORE}", 1))
    return project


@pytest.fixture
def pods(tmp_path: Path, guest: Path) -> Iterator[Pods]:
    pods = Pods(tmp_path / "pods")
    yield pods
    pods.end()


@pytest.fixture
def stand(pods: Pods, guest: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guest home's project, whose heads wait for workers at the port of ``pods``."""
    said = {"port": pods.port, "certificate": pods.certificate, "own_workers": False}
    monkeypatch.setenv("GUEST_STAND", json.dumps(said))
    return guest
