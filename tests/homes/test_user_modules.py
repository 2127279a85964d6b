"""What a person's own modules do at home they do on a Dask cluster: one cluster, many clients as scripts."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest


def test_functions_and_classes_beside_the_script_run_by_name(own_home: Any, own_folder: Path) -> None:
    """``python main.py`` with ``helpers.py`` beside it, in every way in which Dask takes work."""
    for name in ("package/__init__.py", "space/inner.py"):
        (own_folder / name).parent.mkdir()
    (own_folder / "package" / "__init__.py").write_text("from .sub import triple\n")
    (own_folder / "package" / "sub.py").write_text("def triple(x): return 3 * x\n")
    (own_folder / "space" / "inner.py").write_text("def quadruple(x): return 4 * x\n")
    (own_folder / "lazy.py").write_text("VALUE = 42\n")
    said = own_home.script(
        own_folder,
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


def test_a_module_run_with_m_and_its_package(own_home: Any, own_folder: Path) -> None:
    """``python -m pkg.main``: its functions are of ``__main__``, and import their siblings by dots."""
    package = own_folder / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tools.py").write_text("def triple(x): return 3 * x\n")
    (package / "main.py").write_text(
        own_home.connect
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
    assert own_home.run(own_folder, "pkg.main", module=True) == "6 12\n"


def test_a_path_that_is_added_later(
    own_home: Any, own_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """``sys.path.append`` between connecting and submitting, and a folder that was not there before."""
    other = tmp_path_factory.mktemp("other")
    said = own_home.script(
        own_folder,
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


def test_workers_that_come_later_have_the_path_too(own_home: Any, own_folder: Path) -> None:
    """Added, killed and restarted workers, after all that a client said."""
    said = own_home.script(
        own_folder,
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


def test_nothing_of_the_user_shadows_the_standard_library(own_home: Any, own_folder: Path) -> None:
    """Files beside the script named like modules of Python, loaded by nobody here or loaded here."""
    at_the_end = own_folder / "more"
    at_the_end.mkdir()
    for file in ("colorsys", "sndhdr", "more/types", "more/platform", "more/yaml"):
        (own_folder / f"{file}.py").write_text("MINE = 1\n")
    said = own_home.script(
        own_folder,
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


def test_an_edited_module_reaches_the_workers_when_it_is_reloaded(own_home: Any, own_folder: Path) -> None:
    """Also through a module that took names of it, which is reloaded with it; unreloaded edits are told."""
    (own_folder / "pipeline.py").write_text(
        "from helpers import double\ndef run(x): return double(x) + OFFSET\nOFFSET = 0\n"
    )
    said = own_home.script(
        own_folder,
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


def test_a_script_that_was_edited_and_runs_again_runs_its_new_code(own_home: Any, own_folder: Path) -> None:
    """The cluster outlives the script, so its workers have the module as it was."""
    text = "import helpers\nprint(client.submit(helpers.double, 2, pure=False).result())"
    assert own_home.script(own_folder, text) == "4\n"
    helpers = own_folder / "helpers.py"
    helpers.write_text(helpers.read_text().replace("return 2 * x", "return 7 * x"))
    assert own_home.script(own_folder, text) == "14\n"
