"""What a person's own modules do at home they do on a Dask cluster: one cluster, many clients as scripts."""

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
class Home:
    """A home with one cluster of two workers, named ``code``."""

    project: Path
    environment: dict[str, str]

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
def home(
    tmp_path_factory: pytest.TempPathFactory, small_project: Callable[[Path], Path], marked: Marked
) -> Iterator[Home]:
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
    home = Home(project, kept | ours)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    up = ["up", "small", "--engine", "dask", "--workers", "2", "--name", "code", "--detach", "--yes"]
    home.run(elsewhere, "shoal", *up, "--project", str(project), module=True)
    yield home
    home.run(elsewhere, "shoal", "down", "code", "--yes", "--project", str(project), module=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A person's folder, with a ``helpers.py``."""
    (tmp_path / "helpers.py").write_text(HELPERS)
    return tmp_path


def test_functions_and_classes_beside_the_script_run_by_name(home: Home, folder: Path) -> None:
    """``python main.py`` with ``helpers.py`` beside it, in every way in which Dask takes work."""
    for name in ("package/__init__.py", "space/inner.py"):
        (folder / name).parent.mkdir()
    (folder / "package" / "__init__.py").write_text("from .sub import triple\n")
    (folder / "package" / "sub.py").write_text("def triple(x): return 3 * x\n")
    (folder / "space" / "inner.py").write_text("def quadruple(x): return 4 * x\n")
    (folder / "lazy.py").write_text("VALUE = 42\n")
    said = home.script(
        folder,
        """
        import dask, dask.bag, dask.dataframe, pandas, distributed
        import helpers, package, space.inner

        def of_main(x):
            import lazy
            return helpers.double(x) + lazy.VALUE

        class Plugin(distributed.WorkerPlugin):
            def setup(self, worker): worker.said = helpers.double(21)

        assert client.submit(helpers.double, 2).result() == 4
        assert client.gather(client.map(helpers.double, [1, 2])) == [2, 4]
        assert client.submit(of_main, 4).result() == 50
        assert client.submit(lambda x: helpers.double(x), 3).result() == 6
        assert client.submit(helpers.decorated, 1).result() == 101
        assert dask.delayed(helpers.double)(5).compute() == 10
        assert dask.bag.from_sequence([1, 2]).map(helpers.double).compute() == [2, 4]
        frame = dask.dataframe.from_pandas(pandas.DataFrame({"a": [1, 2]}), npartitions=2)
        assert list(frame.map_partitions(helpers.of_rows).compute().b) == [2, 4]
        actor = client.submit(helpers.Counter, actor=True).result()
        assert actor.add(3).result() == 3
        point = client.submit(helpers.Point.doubled, helpers.Point(4)).result()
        assert point == helpers.Point(8, helpers.Colour.RED) and point.colour is helpers.Colour.RED
        [future] = client.scatter([helpers.Point(1)])
        assert client.submit(helpers.Point.doubled, future).result() == helpers.Point(2)
        assert client.submit(package.triple, 2).result() == 6
        assert client.submit(space.inner.quadruple, 2).result() == 8
        client.register_plugin(Plugin(), name="mine")
        assert set(client.run(lambda dask_worker: dask_worker.said).values()) == {42}
        assert client.run_on_scheduler(helpers.double, 4) == 8
        print("done")
        """,
    )
    assert said == "done\n"


def test_a_module_run_with_m_and_its_package(home: Home, folder: Path) -> None:
    """``python -m pkg.main``: its functions are of ``__main__``, and import their siblings by dots."""
    package = folder / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tools.py").write_text("def triple(x): return 3 * x\n")
    (package / "main.py").write_text(
        CONNECT
        + textwrap.dedent(
            """
            from . import tools
            from .tools import triple
            def here(x):
                from .tools import triple
                return triple(x) + tools.triple(x)
            print(client.submit(triple, 2).result(), client.submit(here, 2).result())
            """
        )
    )
    assert home.run(folder, "pkg.main", module=True) == "6 12\n"


def test_a_path_that_is_added_later(
    home: Home, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """``sys.path.append`` between connecting and submitting, and a folder that was not there before."""
    other = tmp_path_factory.mktemp("other")
    said = home.script(
        folder,
        f"""
        import pathlib
        sys.path.append({str(other)!r})
        pathlib.Path({str(other)!r}, "appended.py").write_text("def f(x): return x + 1")
        import appended
        print(client.submit(appended.f, 1).result())
        sys.path.insert(0, {str(other / "deep")!r})
        pathlib.Path({str(other)!r}, "deep").mkdir()
        pathlib.Path({str(other)!r}, "deep", "inserted.py").write_text("def f(x): return x + 2")
        import inserted
        print(set(client.run(inserted.f, 1).values()), client.submit(inserted.f, 1).result())
        """,
    )
    assert said == "2\n{3} 3\n"


def test_workers_that_come_later_have_the_path_too(home: Home, folder: Path) -> None:
    """Added, killed and restarted workers, after all that a client said."""
    said = home.script(
        folder,
        """
        import helpers, signal, time
        assert client.submit(helpers.double, 1).result() == 2
        def everywhere(): return sorted(set(client.run(helpers.double, 2).values()))
        c.scale(3)
        print(len(client.scheduler_info(n_workers=-1)["workers"]), everywhere())
        client.restart()
        print(everywhere())
        one = client.submit(os.getpid, pure=False).result()
        try:
            there = [worker for worker, pid in client.run(os.getpid).items() if pid == one]
            client.run(os.kill, one, signal.SIGKILL, workers=there, on_error="ignore")
        except OSError:
            pass
        deadline = time.monotonic() + 60
        while one in client.run(os.getpid, on_error="ignore").values() or len(
            client.scheduler_info(n_workers=-1)["workers"]) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        print(everywhere())
        c.scale(2)
        """,
    )
    assert said.splitlines()[:1] == ["3 [4]"]
    assert [line for line in said.splitlines() if line.startswith("[")] == ["[4]", "[4]"]


def test_nothing_of_the_user_shadows_the_standard_library(home: Home, folder: Path) -> None:
    """Files beside the script named like modules of Python, loaded by nobody here or loaded here."""
    at_the_end = folder / "more"
    at_the_end.mkdir()
    for file in ("colorsys", "sndhdr", "more/types", "more/platform", "more/yaml"):
        (folder / f"{file}.py").write_text("MINE = 1\n")
    said = home.script(
        folder,
        """
        sys.path.append("more")
        def look():
            import colorsys, types, platform, yaml
            return colorsys.rgb_to_hsv(0, 0, 0)[0], [hasattr(m, "MINE") for m in (types, platform, yaml)]
        print(client.run_on_scheduler(look), *client.run(look).values())
        import helpers
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import sndhdr
            assert sndhdr.MINE
            print(client.submit(helpers.double, 1).result())
        print([f"{w.category.__name__}: {w.message}" for w in caught])
        """,
    )
    lines = said.splitlines()
    assert lines[0].count("(0.0, [False, False, False])") == lines[0].count("(") == 3
    assert lines[1] == "2"
    assert "UserModuleWarning" in lines[2]
    assert "sndhdr" in lines[2]
    assert "standard library" in lines[2]


def test_an_edited_module_reaches_the_workers_when_it_is_reloaded(home: Home, folder: Path) -> None:
    """Also through a module that took names of it, which is reloaded with it; unreloaded edits are told."""
    (folder / "pipeline.py").write_text(
        "from helpers import double\ndef run(x): return double(x) + OFFSET\nOFFSET = 0\n"
    )
    said = home.script(
        folder,
        """
        import importlib, pathlib, time
        import helpers, pipeline
        def everywhere(f, *a): return sorted({client.submit(f, *a, pure=False, workers=[w]).result() for w in workers})
        workers = list(client.scheduler_info(n_workers=-1)["workers"])
        print(everywhere(helpers.double, 2), everywhere(pipeline.run, 2))
        source = pathlib.Path("helpers.py")
        source.write_text(source.read_text().replace("return 2 * x", "return 20 * x"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            deadline = time.monotonic() + 30
            while not caught and time.monotonic() < deadline:
                old = everywhere(helpers.double, 2)
                time.sleep(0.1)
        print(old, [f"{w.category.__name__}: {w.message}" for w in caught])
        offset = pathlib.Path("pipeline.py")
        offset.write_text(offset.read_text().replace("OFFSET = 0", "OFFSET = 1"))
        importlib.reload(helpers), importlib.reload(pipeline)
        print(everywhere(helpers.double, 2), everywhere(pipeline.run, 2), client.run_on_scheduler(helpers.double, 2))
        source.write_text(source.read_text() + "\\nBROKEN = 1 / len(open('flag').read())\\n")
        pathlib.Path("flag").write_text("x")
        importlib.reload(helpers)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            print(everywhere(helpers.double, 2))
            deadline = time.monotonic() + 30
            while not caught and time.monotonic() < deadline:
                time.sleep(0.1)
        print([f"{w.category.__name__}: {w.message}" for w in caught][0])
        """,
    )
    lines = said.splitlines()
    assert lines[0] == "[4] [4]"
    assert lines[1].startswith("[4] ['UserModuleWarning: ")
    assert "helpers" in lines[1]
    assert "importlib.reload(helpers)" in lines[1]
    assert lines[2] == "[40] [41] 40"
    assert lines[3] == "[40]"
    assert "UserModuleWarning" in lines[4]
    assert "helpers" in lines[4]
    assert "FileNotFoundError" in lines[4], "the workers have another working directory"


def test_a_script_that_was_edited_and_runs_again_runs_its_new_code(home: Home, folder: Path) -> None:
    """The cluster outlives the script, so its workers have the module as it was."""
    text = "import helpers\nprint(client.submit(helpers.double, 2, pure=False).result())"
    assert home.script(folder, text) == "4\n"
    helpers = folder / "helpers.py"
    helpers.write_text(helpers.read_text().replace("return 2 * x", "return 7 * x"))
    assert home.script(folder, text) == "14\n"


def test_two_clients_whose_modules_have_one_name(
    home: Home, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The later one is told while the first is there; afterwards it has its own. Other modules do not mind."""
    other = tmp_path_factory.mktemp("another")
    (other / "helpers.py").write_text("def double(x): return 'mine'\n")
    (other / "single.py").write_text("def f(x): return 'single'\n")
    text = """
        import helpers, single
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            print(client.submit(single.f, 1, pure=False).result())
            print(client.submit(helpers.double, 1, pure=False).result())
        print([f"{w.category.__name__}: {w.message}" for w in caught])
        """
    (folder / "main.py").write_text(
        CONNECT + "import helpers\nprint(client.submit(helpers.double, 1).result(), flush=True)\ninput()\n"
    )
    first = subprocess.Popen(
        [sys.executable, "main.py"],
        cwd=folder,
        env=home.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "2\n"
        said = home.script(other, text).splitlines()
        first.communicate("\n", timeout=60)
    assert said[0] == "single"
    assert "UserModuleWarning" in said[2]
    assert str(folder / "helpers.py") in said[2]
    assert str(other / "helpers.py") in said[2]
    assert home.script(other, text).splitlines() == ["single", "mine", "[]"]


def test_uploaded_files_are_there_for_all(
    home: Home, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """``client.upload_file`` of a module and of a zip, from a folder that is on nobody's path."""
    import zipfile

    other = tmp_path_factory.mktemp("upload")
    (other / "uploaded.py").write_text("def f(x): return x + 5\n")
    with zipfile.ZipFile(other / "zipped.zip", "w") as archive:
        archive.writestr("zipped/__init__.py", "def f(x): return x + 6\n")
    said = home.script(
        folder,
        f"""
        client.upload_file({str(other / "uploaded.py")!r})
        client.upload_file({str(other / "zipped.zip")!r})
        def use(x):
            import uploaded, zipped
            return uploaded.f(x), zipped.f(x)
        print(client.submit(use, 1).result())
        client.restart()
        sys.path.append({str(other)!r}), sys.path.append({str(other / "zipped.zip")!r})
        import uploaded, zipped
        print(client.submit(uploaded.f, 1).result(), client.submit(zipped.f, 1).result())
        """,
    )
    assert [line for line in said.splitlines() if line[0] in "(6"] == ["(6, 7)", "6 7"]


def test_a_module_that_was_loaded_from_a_file_under_another_name(home: Home, folder: Path) -> None:
    """As Prefect loads a flow whose name is taken, pytest a test, and others a plugin."""
    (folder / "flows").mkdir()
    (folder / "flows" / "json.py").write_text("import helpers\ndef f(x): return helpers.double(x) + 1\n")
    said = home.script(
        folder,
        """
        import importlib.util, types
        from prefect.utilities.importtools import load_script_as_module
        loaded = load_script_as_module(os.path.abspath("flows/json.py"))
        print(loaded.__name__.startswith("__prefect_loader_"), client.submit(loaded.f, 2).result())
        def load(name):
            spec = importlib.util.spec_from_file_location(name, "helpers.py")
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
        for parent in ("checks", "checks.unit"):
            sys.modules[parent] = types.ModuleType(parent)
        print(client.submit(load("checks.unit.test_one").double, 2).result())
        """,
    )
    assert said.splitlines() == ["True 5", "4"]


def test_a_client_in_an_event_loop(home: Home, folder: Path) -> None:
    """Its submit cannot wait for the cluster, so what it says of the path goes before the work."""
    (folder / "late").mkdir()
    (folder / "late" / "later.py").write_text("def f(x): return x + 1\n")
    said = home.script(
        folder,
        """
        import asyncio
        from distributed import Security
        async def main():
            ours = type(client)
            async with ours(client.scheduler.address, security=client.security, asynchronous=True) as another:
                import helpers
                assert await another.submit(helpers.double, 2) == 4
                sys.path.insert(0, "late")
                import later
                assert await another.submit(later.f, 2) == 3
                return set((await another.run(later.f, 4)).values())
        print(asyncio.run(main()))
        """,
    )
    assert said == "{5}\n"


def test_a_notebook_and_what_is_edited_beside_it(
    home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own folder is on the path, and ``%autoreload`` brings edits to the workers, however it makes them."""
    import nbclient
    import nbformat

    edit = (
        "import pathlib; source = pathlib.Path('helpers.py')\n"
        "_ = source.write_text(source.read_text().replace('return {} * x', 'return {} * x'))"
    )
    cells = [
        "%load_ext autoreload\n%autoreload 2\nimport helpers\nfrom helpers import double, Point",
        CONNECT,
        "def cell(x): return helpers.double(x), double(x)\n"
        "client.submit(helpers.double, 2).result(), client.submit(cell, 3).result()",
        edit.format(2, 2000),
        "client.submit(double, 2, pure=False).result(), client.submit(cell, 3, pure=False).result(), "
        "client.submit(lambda x: helpers.Point(x).doubled(), 2).result()",
        "%autoreload complete",
        edit.format(2000, 30),
        "sorted(set(client.run(lambda: (__import__('helpers').double(2), double(2))).values()))",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    nbclient.NotebookClient(
        book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    answers = [
        output.data["text/plain"] for cell in book.cells for output in cell.outputs if "data" in output
    ]
    told = [output.text for cell in book.cells for output in cell.outputs if output.output_type == "stream"]
    assert answers[:2] == ["(4, (6, 6))", "(4000, (6000, 6000), Point(x=4, colour=<Colour.RED: 'red'>))"]
    assert answers[2:] == ["[(60, 60)]"]
    assert not any("UserModuleWarning" in text for text in told)
