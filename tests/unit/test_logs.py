"""What is logged: one logger per room, in a form that a program can read where it is asked for, and no bare print."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoal
from shoal.machine import logs

PACKAGE = Path(shoal.__file__).parent
# What runs in a head or a worker, where nobody reads what is printed but by its log.
SILENT = {
    "engines",
    "governor",
    "head",
    "homes",
    "machine",
    "model",
    "planning",
    "project",
    "quota",
    "tables",
}
# What answers people in their own process.
SPEAKING = {"cli", "client", "display", "flows", "install", "prefect"}


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    ours, root = logging.getLogger("shoal"), logging.getLogger()
    before = (ours.handlers[:], ours.propagate, ours.level, root.handlers[:])
    formatters = [(handler, handler.formatter) for handler in root.handlers]
    yield
    ours.handlers[:], ours.propagate, level, root.handlers[:] = before
    ours.setLevel(level)
    for handler, formatter in formatters:
        handler.setFormatter(formatter)


def files(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def test_every_room_is_silent_or_speaks_to_people() -> None:
    rooms = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
    assert rooms - {"_defaults"} == SILENT | SPEAKING


@pytest.mark.parametrize("room", sorted(SILENT))
def test_nothing_is_printed_where_a_head_runs(room: str) -> None:
    printing = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file in files(room)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_each_room_has_one_logger() -> None:
    for file in PACKAGE.rglob("*.py"):
        for name in re.findall(r"logging\.getLogger\(\"(shoal[\w.]*)\"\)", file.read_text()):
            room = file.relative_to(PACKAGE).parts[0]
            assert name == f"shoal.{room}" or (
                name == "shoal" and file.name in ("logs.py", "worker_setup.py")
            )


def told(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    for name in (logs.LEVEL, logs.FORMAT, "SHOAL_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = io.StringIO()
    logs.set_up(out)
    room = logging.getLogger("shoal.head")
    room.debug("it looks")
    room.info("it runs (pid %s)", 7)
    try:
        raise OSError("no space")
    except OSError:
        room.exception("it could not write")
    return out.getvalue().splitlines()


def test_lines_for_people_are_as_dasks(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = told(monkeypatch)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]+ - shoal\.head - INFO - it runs \(pid 7\)", first)
    assert second.endswith(" - shoal.head - ERROR - it could not write")


def test_lines_for_pods_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.loads(line) for line in told(monkeypatch, SHOAL_LOG_FORMAT="json", SHOAL_CLUSTER="c1")]
    assert [line["message"] for line in lines] == ["it runs (pid 7)", "it could not write"]
    assert {line["cluster"] for line in lines} == {"c1"}
    assert [line["level"] for line in lines] == ["info", "error"]
    assert "OSError: no space" in lines[1]["exception"]
    assert re.fullmatch(r"[\d-]+T[\d:.]+\+00:00", lines[0]["time"])


def test_with_json_others_write_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    theirs, handler = logging.getLogger("somebodys.library"), logging.StreamHandler(out)
    theirs.addHandler(handler)
    try:
        told(monkeypatch, SHOAL_LOG_FORMAT="json")
        theirs.warning("100 % full")
    finally:
        theirs.removeHandler(handler)
    assert json.loads(out.getvalue())["message"] == "100 % full"


def test_the_level_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("it looks" in line for line in told(monkeypatch, SHOAL_LOG="debug"))
    assert len([line for line in told(monkeypatch, SHOAL_LOG="error") if " - " in line]) == 1


@pytest.mark.parametrize(("name", "value"), [("SHOAL_LOG", "loud"), ("SHOAL_LOG_FORMAT", "xml")])
def test_a_setting_that_is_not_known_is_told(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert any(f"{name}={value} is not known" in line for line in told(monkeypatch, **{name: value}))


def test_a_users_process_that_does_not_ask_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(logs.LEVEL, raising=False)
    before = logging.getLogger("shoal").handlers[:]
    logs.set_up_if_asked()
    assert logging.getLogger("shoal").handlers == before
