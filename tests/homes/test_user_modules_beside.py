"""Modules of several clients, of uploads, loaders, event loops and notebooks on one Dask cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_two_clients_whose_modules_have_one_name(
    own_home: Any, own_folder: Path, tmp_path_factory: pytest.TempPathFactory
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
    (own_folder / "main.py").write_text(
        own_home.connect
        + "import helpers\nprint(client.submit(helpers.double, 1).result(), flush=True)\ninput()\n"
    )
    first = subprocess.Popen(
        [sys.executable, "main.py"],
        cwd=own_folder,
        env=own_home.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "2\n"
        said = own_home.script(other, text).splitlines()
        first.communicate("\n", timeout=60)
    assert said[0] == "single"
    assert "UserModuleWarning" in said[2]
    assert str(own_folder / "helpers.py") in said[2]
    assert str(other / "helpers.py") in said[2]
    assert own_home.script(other, text).splitlines() == ["single", "mine", "[]"]


def test_uploaded_files_are_there_for_all(
    own_home: Any, own_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """``client.upload_file`` of a module and of a zip, from a folder that is on nobody's path."""
    import zipfile

    other = tmp_path_factory.mktemp("upload")
    (other / "uploaded.py").write_text("def f(x): return x + 5\n")
    with zipfile.ZipFile(other / "zipped.zip", "w") as archive:
        archive.writestr("zipped/__init__.py", "def f(x): return x + 6\n")
    said = own_home.script(
        own_folder,
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


def test_a_module_that_was_loaded_from_a_file_under_another_name(own_home: Any, own_folder: Path) -> None:
    """As Prefect loads a flow whose name is taken, pytest a test, and others a plugin."""
    (own_folder / "flows").mkdir()
    (own_folder / "flows" / "json.py").write_text("import helpers\ndef f(x): return helpers.double(x) + 1\n")
    said = own_home.script(
        own_folder,
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


def test_a_client_in_an_event_loop(own_home: Any, own_folder: Path) -> None:
    """Its submit cannot wait for the cluster, so what it says of the path goes before the work."""
    (own_folder / "late").mkdir()
    (own_folder / "late" / "later.py").write_text("def f(x): return x + 1\n")
    said = own_home.script(
        own_folder,
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
    own_home: Any, own_folder: Path, monkeypatch: pytest.MonkeyPatch
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
        own_home.connect,
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
    for name, value in own_home.environment.items():
        monkeypatch.setenv(name, value)
    nbclient.NotebookClient(
        book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(own_folder)}}
    ).execute()
    answers = [
        output.data["text/plain"] for cell in book.cells for output in cell.outputs if "data" in output
    ]
    told = [output.text for cell in book.cells for output in cell.outputs if output.output_type == "stream"]
    assert answers[:2] == ["(4, (6, 6))", "(4000, (6000, 6000), Point(x=4, colour=<Colour.RED: 'red'>))"]
    assert answers[2:] == ["[(60, 60)]"]
    assert not any("UserModuleWarning" in text for text in told)
