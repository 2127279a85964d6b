"""A home with one cluster that scripts connect to, and the modules that lie beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

Marked = Callable[[], dict[int, str]]

HELPERS = """
from __future__ import annotations
import enum, functools
from dataclasses import dataclass

class Colour(enum.Enum):
    RED = "red"

@dataclass(frozen=True)
class Point:
    x: int
    colour: Colour = Colour.RED
    def doubled(self) -> Point:
        return Point(2 * self.x, self.colour)

class Counter:
    def __init__(self): self.n = 0
    def add(self, by): self.n += by; return self.n

def loud(function):
    @functools.wraps(function)
    def wrapped(*args): return function(*args) + 100
    return wrapped

def double(x): return 2 * x
@loud
def decorated(x): return x
def of_rows(frame): return frame.assign(b=double(frame.a))
"""

CONNECT = """
import os, sys, warnings
import shoal
c = shoal.connect("code", project=os.environ["PROJECT"])
client = c.client
"""


@dataclass(frozen=True)
class OwnHome:
    """A home with one cluster of two workers, named ``code``."""

    project: Path
    environment: dict[str, str]
    connect: str = CONNECT

    def run(self, folder: Path, *command: str, module: bool = False) -> str:
        """What a client's process says that runs in this folder; it has to succeed."""
        mode = ["-m"] if module else []
        done = subprocess.run(
            [sys.executable, *mode, *command],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def script(self, folder: Path, text: str) -> str:
        """What ``main.py`` with this text says, which is written into this folder; it connects first."""
        (folder / "main.py").write_text(CONNECT + textwrap.dedent(text))
        return self.run(folder, "main.py")


@pytest.fixture(scope="module")
def own_home(
    tmp_path_factory: pytest.TempPathFactory, small_project: Callable[[Path], Path], marked: Marked
) -> Iterator[OwnHome]:
    folder = tmp_path_factory.mktemp("home")
    data = folder / "data"
    project = small_project(folder / "project")
    ours = {
        "SHOAL_DATA": str(data),
        "SHOAL_CATALOG_URI": f"sqlite:///{data / 'catalog.db'}",
        "SHOAL_USER": "alice",
        "PROJECT": str(project),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
    home = OwnHome(project, kept | ours)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    up = ["up", "small", "--engine", "dask", "--workers", "2", "--name", "code", "--detach", "--yes"]
    home.run(elsewhere, "shoal", *up, "--project", str(project), module=True)
    yield home
    home.run(elsewhere, "shoal", "down", "code", "--yes", "--project", str(project), module=True)


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A person's folder, with a ``helpers.py``."""
    (tmp_path / "helpers.py").write_text(HELPERS)
    return tmp_path
