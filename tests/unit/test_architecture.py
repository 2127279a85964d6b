"""docs/architecture.md against the code: its picture, its rooms, and the modules that its tour names."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoal

PACKAGE = Path(shoal.__file__).parent
ROOT = PACKAGE.parents[1]
DOC = (ROOT / "docs" / "architecture.md").read_text()
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]

ROOMS = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
ROOMS -= {"__init__", "__main__"}


def section(title: str) -> str:
    return DOC.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_picture_shows_the_layers_that_the_linter_keeps() -> None:
    drawn = section("The picture").split("```")[1].strip().splitlines()
    (rooms,) = (contract for contract in SETTINGS["contracts"] if contract["name"] == "Rooms")
    kept = [layer.replace(" | ", " · ") for layer in rooms["layers"]]
    assert [layer for layer in kept if layer != "__main__"] == drawn
    assert rooms["exhaustive"], "a new room has to be placed"


def test_each_room_has_its_paragraph() -> None:
    described = re.findall(r"^### (\w+)\n(\S.*)", section("The rooms"), re.MULTILINE)
    assert sorted(name for name, _ in described) == sorted(ROOMS)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_each_room_says_what_it_is_for(room: str) -> None:
    face = PACKAGE / room / "__init__.py" if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
    assert face.read_text().startswith('"""'), f"{face} has no docstring"


def test_above_the_homes_nobody_names_one() -> None:
    """Imports for types alone, and modules that are named by text, are hidden from the linter."""
    one = re.compile(r"\bhomes[./](local|fake)\b|\bLocalHome\b")
    naming = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if file.relative_to(PACKAGE).parts[0] != "homes" and one.search(file.read_text())
    }
    assert naming == set()


def test_engines_name_neither_head_nor_home() -> None:
    upper = re.compile(r"shoal\.(head|homes)\b")
    assert [file.name for file in (PACKAGE / "engines").rglob("*.py") if upper.search(file.read_text())] == []


Stop = tuple[
    str, list[tuple[Path, str]]
]  # a room, and the modules that are named there, each with what in it


def tour() -> list[Stop]:
    """The stops of the way through the code, as the page tells them."""
    told = re.findall(
        r"^\d\. \*\*(\w+)\*\*:(.*?)(?=^\d\.|\Z)", section("A way through the code"), re.M | re.S
    )
    stops = []
    for room, text in told:
        named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*)((?:\.[A-Za-z_]+)+)`", text)
        stops.append((room, [(PACKAGE / room / f"{module}.py", what[1:]) for module, what in named]))
    return stops


def test_the_tour_visits_at_most_six_rooms_and_names_what_is_there() -> None:
    stops = tour()
    assert (stops[0][0], stops[0][1][0][1], stops[-1][0]) == ("client", "dask", "engines"), (
        "from the call to a worker"
    )
    assert 1 < len(stops) <= 6
    for room, named in stops:
        assert named, room
        for file, path in named:
            body = ast.parse(file.read_text()).body
            for name in path.split("."):
                found = [node for node in body if getattr(node, "name", None) == name]
                assert found, f"there is no {path} in {file}"
                body = getattr(found[0], "body", [])


def test_each_stop_of_the_tour_is_called_by_the_one_before_but_for_one_climb_back() -> None:
    stops = tour()
    climbs = []
    for at, (room, _) in enumerate(stops[1:], start=1):
        callers = [
            earlier
            for earlier in range(at)
            if any(re.search(rf"\bshoal\.{room}\b", file.read_text()) for file, _ in stops[earlier][1])
        ]
        assert callers, f"nothing on the tour leads to {room}"
        if at - 1 not in callers:
            climbs.append((stops[at - 1][0], stops[max(callers)][0]))
    assert climbs == [("planning", "client")]


# What is started by its name: the module that names it, and how.
BY_NAME = {
    "main": ("homes/local/ahead.py", r'"shoal\.head", cluster_id, engine, "local", \*more'),
    "dask_setup": ("engines/dask/host.py", r'"distributed\.worker\.preload": \[WORKER_SETUP\]'),
}


def test_what_the_tour_names_is_called_by_what_it_names_before() -> None:
    """In the order in which it is read; the first one is called by the user."""
    stops = [(file, path) for _, named in tour() for file, path in named]
    for at, (file, path) in enumerate(stops[1:], start=1):
        if path in BY_NAME:
            caller, how = BY_NAME[path]
            assert re.search(how, (PACKAGE / caller).read_text()), path
            assert PACKAGE / caller in [earlier for earlier, _ in stops[:at]]
            continue
        name = path.split(".")[0]
        users = [earlier for earlier, _ in stops[:at] if uses(earlier, name)]
        assert users, f"nothing on the tour before it uses {path} of {file}"


def uses(file: Path, name: str) -> bool:
    """Whether a module imports or calls what is called so."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    return any(
        name == (node.id if isinstance(node, ast.Name) else getattr(node, "name", ""))
        for node in nodes
        if isinstance(node, (ast.Name, ast.alias))
    )


def test_the_tour_ends_in_a_forked_worker() -> None:
    room, named = tour()[-1]
    assert [file.stem for file, _ in named] == ["forking", "host", "worker_setup"]
    setup = importlib.import_module(f"shoal.{room}.dask.security").WORKER_SETUP
    assert setup == f"shoal.{room}.dask.worker_setup"


def types_named(source: str) -> Iterator[str]:
    """The names that a module gives to types: classes, aliases and what makes a class by a call. Not type variables."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and re.match(r"_?[A-Z][A-Za-z0-9]*[a-z]", target.id):
                made = ast.unparse(node.value.func) if isinstance(node.value, ast.Call) else ""
                if made.rpartition(".")[2] not in ("TypeVar", "ParamSpec"):
                    yield target.id
        elif type(node).__name__ == "TypeAlias":  # `type X = ...`, from Python 3.12 on
            yield node.name.id  # type: ignore[attr-defined]


def test_the_name_of_a_type_stands_for_one_thing() -> None:
    """Of a private one, too: whoever reads a name has one thing in mind."""
    where: dict[str, list[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        for name in types_named(file.read_text()):
            where.setdefault(name.lstrip("_"), []).append(str(file.relative_to(PACKAGE)))
    assert {name: files for name, files in where.items() if len(files) > 1} == {}


@pytest.mark.parametrize(
    "source",
    [
        "class Key: ...",
        "Key = tuple[str, str]",
        "Key = Callable[[], str]",
        "Key: TypeAlias = 'tuple[str, str]'",
        "Key = NewType('Key', str)",
        "Key = TypedDict('Key', {'a': int})",
        "_Key = Annotated[str, 1]",
    ],
)
def test_every_way_of_naming_a_type_is_found(source: str) -> None:
    assert [name.lstrip("_") for name in types_named(source)] == ["Key"]


def test_the_glossary_names_what_there_is() -> None:
    """A name in the glossary is that of a class, in the module that is given for it."""
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| `(\w+)` in `([\w/]+)` \|", section("Words"), re.MULTILINE)
    assert len(rows) > 20
    for word, name, module in rows:
        tree = ast.parse((PACKAGE / f"{module}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}, word
    words = [word for word, _, _ in rows]
    assert words == sorted(words, key=str.lower)
    assert len(set(words)) == len(words)
