"""Which modules are the user's, where they lie, what changed, and how another process follows. No cluster."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from shoal.engines.dask.code import Clients
from shoal.machine.importing import at_hand
from shoal.machine.modules import Code, Installed, ModuleWatch, Version, found_by, is_users, merged, paths

OWN = Installed(("/py/lib/python3.11", "/py/lib/python311.zip"), ("/py/lib/python3.11/site-packages",))


def test_the_users_entries_are_told_from_the_interpreters_and_keep_their_side() -> None:
    entries = [
        "",
        "/py/lib/python311.zip",
        "/py/lib/python3.11",
        "/py/lib/python3.11/lib-dynload",
        "/project/lib/",
        "relative",
        "/py/lib/python3.11/site-packages",
        "/editable/src",
        "/project/lib",
        None,
    ]
    front, back = paths(entries, "/project", OWN)
    assert front == ("/project", "/project/lib", "/project/relative")
    assert back == ("/editable/src",)


@pytest.mark.parametrize(
    ("name", "file", "users"),
    [
        ("helpers", "/project/helpers.py", True),
        ("pkg.sub", "/editable/src/pkg/sub.py", True),
        ("pandas", "/py/lib/python3.11/site-packages/pandas/__init__.py", False),
        ("json", "/py/lib/python3.11/json/__init__.py", False),
        ("python311zip", "/py/lib/python3.11x/helpers.py", True),
        ("__main__", "/project/main.py", False),
        ("shoal.units", "/editable/shoal/units.py", False),
        ("shoals", "/project/shoals.py", True),
        ("sys", None, False),
    ],
)
def test_whose_a_module_is(name: str, file: str | None, users: bool) -> None:
    assert is_users(name, file, OWN) is users


@pytest.mark.parametrize(
    ("name", "file", "found"),
    [
        ("helpers", "/project/helpers.py", True),
        ("pkg", "/project/pkg/__init__.py", True),
        ("pkg.sub", "/project/pkg/sub.py", True),
        ("fast", "/project/fast.cpython-311-x86_64-linux-gnu.so", True),
        ("__prefect_loader_1__", "/project/flow.py", False),
        ("helpers", "/elsewhere/helpers.py", False),
        ("tests.test_one", "/project/test_one.py", False),
    ],
)
def test_what_no_path_leads_to_is_known(name: str, file: str, found: bool) -> None:
    assert found_by(name, file, ("/project",)) is found


def test_code_is_the_same_after_the_wire_also_from_a_newer_client() -> None:
    code = Code(("/a",), ("/b",), {"m": Version("/a/m.py", 1, 2)}, ("m",))
    said = json.loads(json.dumps(code.written() | {"later": 1}))
    assert Code.read(said) == code
    assert Code.read({}) == Code()


def test_of_two_clients_the_first_counts_until_it_is_gone() -> None:
    clients = Clients()
    first = Code(("/a",), (), {"helpers": Version("/a/helpers.py", 1, 1)})
    second = Code(("/b",), (), {"helpers": Version("/b/helpers.py", 2, 1), "own": Version("/b/own.py", 1, 1)})
    assert clients.tell("one", first, ["one"]) == []
    [said] = clients.tell("two", second, ["one", "two"])
    assert "/a/helpers.py" in said
    assert "/b/helpers.py" in said
    assert clients.all().front == ("/a", "/b")
    assert clients.all().versions["helpers"].file == "/a/helpers.py"
    assert clients.tell("two", second, ["two"]) == []
    assert clients.all().front == ("/b", "/a"), "what one told stays for what it left running"
    assert clients.all().versions["helpers"].file == "/b/helpers.py"


def test_of_one_file_the_newest_version_counts() -> None:
    old, new = Version("/a/m.py", 1, 5), Version("/a/m.py", 2, 4)
    for order in ((old, new), (new, old)):
        assert merged(Code(versions={"m": version}) for version in order).versions["m"] == new


def test_a_look_tells_what_is_new_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "module_of_a_look.py").write_text("X = 1\n")
    watch = ModuleWatch()
    code = watch.look()
    assert code is not None
    assert str(tmp_path) in code.front
    assert watch.look() is code, "until it was told"
    watch.acknowledged(code)
    assert watch.look() is None
    module = importlib.import_module("module_of_a_look")
    monkeypatch.setitem(sys.modules, "module_of_a_look", module)
    code = watch.look()
    assert code is not None
    assert code.versions["module_of_a_look"].size == 6
    watch.acknowledged(code)
    (tmp_path / "module_of_a_look.py").write_text("X = 222\n")
    assert watch.look() is None, "an edit alone is not followed: this process has the old code"
    assert watch.edited() == ["module_of_a_look"]
    assert watch.edited() == []
    importlib.reload(module)
    code = watch.look()
    assert code is not None
    assert code.versions["module_of_a_look"].size == 8
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    again = watch.look()
    assert again is not None
    assert again.front[:2] == (str(tmp_path / "more"), str(tmp_path))


def run(folder: Path, text: str) -> str:
    """In a process of its own, for what it does to the import system."""
    script = (
        "import sys\nfrom shoal.machine.importing import bring\n"
        "from shoal.machine.modules import Code, version_of\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script + textwrap.dedent(text)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_are_executed_anew_in_place_and_in_the_order_of_their_imports(tmp_path: Path) -> None:
    (tmp_path / "top.py").write_text("from base import VALUE\nimport base\nTOP = VALUE\n")
    (tmp_path / "base.py").write_text("VALUE = 1\n")
    said = run(
        tmp_path,
        """
        import pathlib
        def code():
            files = {name: version_of(str(pathlib.Path(f"{name}.py").absolute())) for name in ("top", "base")}
            return Code((str(pathlib.Path.cwd()),), (), files)
        assert bring(code()) == []
        import top, base
        before = top, base
        pathlib.Path("top.py").write_text("from base import VALUE\\nTOP = VALUE + 100\\n")
        pathlib.Path("base.py").write_text("VALUE = 22\\n")
        assert bring(code()) == []
        print(top.TOP, before == (sys.modules["top"], sys.modules["base"]), top.base is base)
        pathlib.Path("base.py").write_text("VALUE = 1 / 0\\n")
        print(bring(code()))
        print(sys.modules["base"] is base, top.TOP, bring(code()))
        """,
    )
    first, second, third = said.splitlines()
    assert first == "122 True True"
    assert "base" in second
    assert "ZeroDivisionError" in second
    assert third == "True 122 []"


def test_a_module_from_another_folder_takes_the_place_of_the_first_with_all_that_is_in_it(
    tmp_path: Path,
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "pkg").mkdir(parents=True)
        (tmp_path / folder / "pkg" / "__init__.py").write_text("")
        (tmp_path / folder / "pkg" / "sub.py").write_text(f"WHERE = {folder!r}\n")
    said = run(
        tmp_path,
        """
        import pathlib
        def code(folder):
            folder = pathlib.Path(folder).absolute()
            return Code((str(folder),), (), {"pkg": version_of(str(folder / "pkg" / "__init__.py"))})
        for folder in ("one", "two", "one"):
            assert bring(code(folder)) == []
            import pkg.sub
            print(sys.modules["pkg.sub"].WHERE)
            path = list(sys.path)
        bring(code("one"))
        assert path == sys.path, "again is the same"
        """,
    )
    assert said.split() == ["one", "two", "one"]


def test_nothing_stands_in_for_python_or_for_what_is_installed(tmp_path: Path) -> None:
    for name in ("colorsys", "psutil"):
        (tmp_path / f"{name}.py").write_text("MINE = 1\n")
    said = run(
        tmp_path,
        """
        import pathlib, psutil
        here = pathlib.Path.cwd()
        files = {name: version_of(str(here / f"{name}.py")) for name in ("colorsys", "psutil")}
        for line in bring(Code((str(here),), (), files)):
            print(line)
        print(bring(Code((str(here),), (), files)))
        import colorsys
        print(hasattr(colorsys, "MINE"), hasattr(sys.modules["psutil"], "MINE"))
        """,
    ).splitlines()
    assert "colorsys" in said[0]
    assert "standard library" in said[0]
    assert "psutil" in said[1]
    assert "installed" in said[1]
    assert said[2:] == ["[]", "False False"], "said once"


def test_what_no_path_leads_to_is_loaded_from_its_file_after_everything_else(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("WHERE = __name__\n")
    said = run(
        tmp_path,
        """
        import pathlib
        version = version_of(str(pathlib.Path("file.py").absolute()))
        names = ("odd", "checks", "checks.unit", "checks.unit.one", "string")
        bring(Code((), (), {"odd": version, "checks.unit.one": version, "string": version}, names))
        import odd, checks.unit.one, string
        print(odd.WHERE, checks.unit.one.WHERE, hasattr(string, "WHERE"))
        """,
    )
    assert said.split() == ["odd", "checks.unit.one", "False"]


def test_of_another_machines_modules_those_are_missing_that_are_neither_files_here_nor_installed(
    tmp_path: Path,
) -> None:
    here = tmp_path / "here.py"
    here.write_text("")
    gone = Version("/another/machine/x.py", 5, 5)
    code = Code(
        front=(str(tmp_path), "/another/machine"),
        back=("/another/editable",),
        versions={
            "here": Version(str(here), 1, 0),
            "lonely": gone,
            "lonely.part": gone,
            "psutil": gone,  # an editable installation there, an ordinary one here
            "numpy.own": gone,
            "queue": gone,
        },
        loose=("lonely", "here"),
    )
    kept, missing = at_hand(code)
    assert missing == ["lonely"]
    assert (kept.front, kept.back, kept.loose) == ((str(tmp_path),), (), ("here",))
    assert set(kept.versions) == {"here", "queue"}, "a name of Python's own is told of where it is brought"
