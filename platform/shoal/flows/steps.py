"""The steps of an analytics flow: which file gives which table, and on which engine.

Why it exists: a step that is not there, two steps for one table or an empty query are told before a
cluster is started.

What it must not do: run anything, or know Prefect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.errors import UsageError
from shoal.flows import script
from shoal.flows.errors import ScriptError
from shoal.words import listed

Given = str | Path | Callable[..., Any]
_NUMBER = re.compile(r"^\d+[_.-]?")
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_VIEW = ".view.sql"


@dataclass(frozen=True)
class FlowStep:
    """One step, which gives the rows of one table, or a view for the steps after it."""

    name: str
    """Of the table in the output's namespace, or of the view."""
    source: str
    """The file or function, as messages name it."""
    query: str = ""
    """In Spark's SQL; empty where a function gives the rows."""
    function: Callable[..., Any] | None = None
    """Called on a Dask cluster."""
    view: bool = False

    @property
    def engine(self) -> str:
        """ "spark" or "dask"."""
        return "dask" if self.function is not None else "spark"


def check(given: object) -> list[Given]:
    """Steps that can be looked for: folders, files and functions in order; UsageError."""
    one = isinstance(given, (str, Path)) or callable(given)
    every = [given] if one else list(given) if isinstance(given, Sequence) else []
    for each in every:
        text = str(each)
        if not callable(each) and (not isinstance(each, (str, Path)) or not text.strip()):
            every = []
    if not every:
        raise UsageError(
            f"steps={given!r} is neither a folder nor a list of steps",
            hint="For example 'sql/daily/', or ['sql/by_day.sql', 'trend.py:trend'].",
        )
    return every  # type: ignore[return-value]


def find(given: Sequence[Given], folder: Path) -> list[FlowStep]:
    """The steps, in order; files are below ``folder``. Imports the functions' files. ScriptError."""
    steps = [step for each in given for step in _steps(each, folder)]
    for kind in (False, True):
        names = [step.name for step in steps if step.view is kind]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            sources = listed([step.source for step in steps if step.name == twice[0] and step.view is kind])
            raise ScriptError(
                f"{sources} give the same {'view' if kind else 'table'}, {twice[0]!r}",
                hint="Give each a name of its own: what follows the number in a file's name is the table's.",
            )
    if not any(not step.view for step in steps):
        raise ScriptError(f"{listed([s.source for s in steps])} give views alone", hint="At least one table.")
    return steps


def _steps(given: Given, folder: Path) -> list[FlowStep]:
    if callable(given):
        name = getattr(given, "__name__", "")
        return [FlowStep(_name(name, name or repr(given)), name or repr(given), function=given)]
    text = str(given)
    if ".py:" in text:
        return [FlowStep(_name(text.rpartition(":")[2], text), text, function=script.function(text, folder))]
    if text.endswith(".sql"):
        return [_of_file(text, folder)]
    place = folder / Path(text).expanduser()
    if not place.is_dir():
        raise ScriptError(
            f"the steps {text} are not there: {place} is not a folder",
            hint="Its path is that below the project folder; a step ends in .sql, or is 'file.py:function'.",
        )
    names = [file.name for file in place.glob("*.sql") if not file.name.startswith((".", "_"))]
    files = sorted(names, key=_in_order)
    if not files:
        raise ScriptError(f"there is no .sql file in {place}", hint="Write a query there: 10_by_day.sql")
    return [_of_file(f"{text.rstrip('/')}/{name}", folder) for name in files]


def _in_order(name: str) -> tuple[float, str]:
    """2_a.sql comes before 10_b.sql, and what has no number comes last."""
    number = re.match(r"\d+", name)
    return (int(number.group()) if number else float("inf"), name)


def _of_file(name: str, folder: Path) -> FlowStep:
    text = script.query(name, folder).text
    last = Path(name).name
    view = last.endswith(_VIEW)
    word = _NUMBER.sub("", last.removesuffix(_VIEW).removesuffix(".sql"))
    return FlowStep(_name(word, name), name, text, view=view)


def _name(word: str, source: str) -> str:
    if not _NAME.fullmatch(word):
        raise ScriptError(
            f"{source} cannot name a table: {word!r}",
            hint="Lower-case letters, digits and underscores, which may follow a number: 10_by_day.sql",
        )
    return word
