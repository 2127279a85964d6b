"""Children of ``multiprocessing`` that are spawned or served: their script is there as ``__mp_main__``, not as
``__main__``, and what it defines runs on a cluster all the same."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = """
import concurrent.futures, enum, functools, multiprocessing, os, sys, typing
from dataclasses import dataclass

class Colour(enum.Enum):
    RED = "red"

@dataclass(frozen=True)
class Point:
    x: int
    colour: Colour = Colour.RED
    class Error(Exception): pass
    def doubled(self): return Point(double(self.x), self.colour)
    @property
    def twice(self): return double(self.x)
    @staticmethod
    def of(x): return Point(x)
    @classmethod
    def fail(cls, x): raise cls.Error(x)

class Counter:
    def __init__(self): self.n = 0
    def add(self, by): self.n += double(by); return self.n

Pair = typing.NamedTuple("Pair", [("x", int), ("y", int)])
T = typing.TypeVar("T")
class Box(typing.Generic[T]):
    def __init__(self, held: T): self.held = held
    def doubled(self) -> "Box[T]": return Box(double(self.held))

def loud(function):
    @functools.wraps(function)
    def wrapped(*args): return function(*args) + 100
    return wrapped

FACTOR = 2
def double(x): return FACTOR * x
@loud
def decorated(x): return double(x)
twofold = functools.partial(double)
def of_rows(frame): return frame.assign(b=double(frame.a))
"""

DASK = """
def kinds():
    import dask, dask.bag, dask.dataframe, distributed, pandas
    import shoal
    with multiprocessing.get_context("spawn").Pool(1) as nested:  # its children are as before
        assert nested.map(Point.of, [1]) == [Point(1)]
    cluster = shoal.connect("code", project=os.environ["PROJECT"])
    client = cluster.client
    assert client.submit(double, 2).result() == 4
    assert client.submit(decorated, 2).result() == 104
    assert client.submit(twofold, 2).result() == 4
    assert client.gather(client.map(lambda x: decorated(x), [1, 2])) == [102, 104]
    assert dask.delayed(double)(5).compute() == 10
    assert dask.bag.from_sequence([1, 2]).map(double).compute() == [2, 4]
    frame = dask.dataframe.from_pandas(pandas.DataFrame({"a": [1, 2]}), npartitions=2)
    assert list(frame.map_partitions(of_rows).compute().b) == [2, 4]
    actor = client.submit(Counter, actor=True).result()
    assert actor.add(3).result() == 6
    point = client.submit(Point.doubled, Point(4)).result()
    assert point == Point(8) and type(point) is Point and point.colour is Colour.RED
    assert client.submit(lambda: Point.of(3).twice).result() == 6
    [future] = client.scatter([Point(1)])
    assert client.submit(Point.doubled, future).result() == Point(2)
    assert client.submit(Pair._replace, Pair(1, 2), y=3).result() == Pair(1, 3)
    assert client.submit(Box.doubled, Box(4)).result().held == 8
    assert set(client.run(double, 4).values()) == {8}
    assert set(client.run(lambda point: point.twice, Point(4)).values()) == {8}
    assert client.run_on_scheduler(double, 4) == 8
    distributed.Variable("a point").set(Point(5))
    assert distributed.Variable("a point").get() == Point(5)
    try:
        client.submit(Point.fail, 7).result()
    except Point.Error as error:
        assert error.args == (7,)
    cluster.close()
    return Point(1), Colour.RED, double  # the parent knows them under its own name

if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            assert pool.submit(kinds).result() == (Point(1), Colour.RED, double)
            print(method, "done")
"""

HELD = """
import sys, multiprocessing, os
def value(x): return NUMBER * x
def compute():
    import shoal
    cluster = shoal.connect("code", project=os.environ["PROJECT"])
    future = cluster.client.submit(value, 2)
    print(future.result(), flush=True)
    sys.stdin = open(0)
    input()
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=compute)
    child.start()
    child.join()
"""


class Home:
    """A home with a Dask cluster named ``code``."""

    def __init__(self, folder: Path, project: Path) -> None:
        data = folder / "data"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
        self.environment = kept | {
            "SHOAL_DATA": str(data),
            "SHOAL_CATALOG_URI": f"sqlite:///{data / 'catalog.db'}",
            "SHOAL_USER": "alice",
            "PROJECT": str(project),
        }

    def run(self, folder: Path, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, small_project: Callable[[Path], Path]) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home")
    project = small_project(folder / "project")
    home = Home(folder, project)
    up = ["up", "small", "--engine", "dask", "--workers", "2", "--name", "code", "--detach", "--yes"]
    home.run(folder, "-m", "shoal", *up, "--project", str(project))
    yield home
    home.run(folder, "-m", "shoal", "down", "code", "--yes", "--project", str(project))


def test_what_a_script_defines_runs_on_dask_from_its_children(home: Home, tmp_path: Path) -> None:
    """A pool of processes, of which each works on the cluster with functions and classes of the script."""
    (tmp_path / "main.py").write_text(SCRIPT + DASK)
    assert home.run(tmp_path, "main.py") == "spawn done\nforkserver done\n"


def test_the_same_from_a_module_run_with_m(home: Home, tmp_path: Path) -> None:
    """``python -m pkg.main``: a child imports it by its name, under the other name."""
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tools.py").write_text("def triple(x): return 3 * x\n")
    (package / "main.py").write_text(
        textwrap.dedent(
            """
            import multiprocessing, os
            from .tools import triple
            def here(x):
                from . import tools
                return triple(x) + tools.triple(x)
            def child(x):
                import shoal
                cluster = shoal.connect("code", project=os.environ["PROJECT"])
                return cluster.client.submit(here, x).result()
            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(pool.apply(child, (2,)))
            """
        )
    )
    assert home.run(tmp_path, "-m", "pkg.main") == "12\n"


def test_two_scripts_whose_functions_have_one_name_get_their_own_results(home: Home, tmp_path: Path) -> None:
    """Dask names a result by its function: by name alone, the second would be given the first one's."""
    (tmp_path / "one.py").write_text("NUMBER = 2\n" + HELD)
    (tmp_path / "two.py").write_text("NUMBER = 1000\n" + HELD)
    said = []
    with subprocess.Popen(
        [sys.executable, "one.py"],
        cwd=tmp_path,
        env=home.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        said.append(first.stdout.readline())
        second = subprocess.run(
            [sys.executable, "two.py"],
            cwd=tmp_path,
            env=home.environment,
            input="\n",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said.append(second.stdout)
        first.communicate("\n", timeout=120)
    assert said == ["4\n", "2000\n"], second.stderr[-3000:]
