"""Fixtures of the homes' tests: a home that a module shares."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def shared_project(
    tmp_path_factory: pytest.TempPathFactory,
    small_project: Callable[[Path], Path],
    marked: Callable[[], dict[int, str]],
) -> Iterator[Path]:
    """The small project in a home of the module's own; afterwards no process of its clusters is there."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("SHOAL_") and name not in ("SHOAL_CACHE",):
                patch.delenv(name)
        patch.setenv("SHOAL_DATA", str(folder / "home"))
        patch.setenv("SHOAL_CATALOG_URI", f"sqlite:///{folder / 'home' / 'catalog.db'}")
        patch.setenv("SHOAL_USER", "alice")
        patch.chdir(folder)
        yield small_project(folder / "project")
        deadline = time.monotonic() + 20
        while left := marked():
            assert time.monotonic() < deadline, f"left running: {left}"
            time.sleep(0.1)
