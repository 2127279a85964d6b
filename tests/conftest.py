"""Fixtures that all tests share: an empty home folder, and the promise that nothing is left running."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

# Kubernetes is started by the first test that wants it, and only then.
pytest_plugins = ["cluster.fixtures"]

MARK = "SHOAL_CLUSTER"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what the machine cannot run, with the reason; under CI that is a failure instead."""
    missing = (
        None
        if shutil.which("java") or os.environ.get("JAVA_HOME")
        else "no Java: apt install openjdk-17-jre-headless"
    )
    if missing is None:
        return
    if os.environ.get("CI") == "true":
        raise pytest.UsageError(f"CI must skip nothing, but: {missing}")
    for item in items:
        if item.get_closest_marker("spark"):
            item.add_marker(pytest.mark.skip(reason=missing))


def marked_processes() -> dict[int, str]:
    """Pid -> cluster id of every live process that carries the mark of a cluster of this test's home."""
    found = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            cluster = environment.get(MARK)
            if environment.get("SHOAL_DATA") != os.environ.get("SHOAL_DATA"):
                continue  # somebody else's, on the same machine
            if cluster and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = cluster
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture(scope="session")
def marked() -> Callable[[], dict[int, str]]:
    """The scan, for tests that look at one cluster's processes."""
    return marked_processes


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    """Poll until the function gives something true, and return that; fails after ``timeout`` seconds."""

    def poll(what: Callable[[], object], timeout: float, say: str = "") -> object:
        deadline = time.monotonic() + timeout
        while True:
            value = what()
            if value:
                return value
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout} s: {say or what}")
            time.sleep(0.05)

    return poll


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own: ledger, run folders and catalog below ``tmp_path``; the jar cache is shared."""
    for name in list(os.environ):
        if name.startswith("SHOAL_") and name not in ("SHOAL_CACHE",):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("SHOAL_DATA", str(home))
    monkeypatch.setenv("SHOAL_CATALOG_URI", f"sqlite:///{home / 'catalog.db'}")
    monkeypatch.setenv("SHOAL_USER", "alice")
    monkeypatch.chdir(tmp_path)
    return home
