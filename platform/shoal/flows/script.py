"""What a flow does with its rows: a function of the user's, or a query in a file.

Why it exists: a script that is not there, or that has no such function, is told before a cluster is started; and a
function gets to workers which do not have its file.

What it must not do: wrap what the user's own code raises.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pandas as pd
import pyarrow as pa

from shoal.errors import UsageError
from shoal.flows.errors import ScriptError
from shoal.machine.modules import installed
from shoal.tables.arguments import pandas_schema
from shoal.tables.types.dtypes import to_pandas
from shoal.words import did_you_mean, sentence

Transform = Callable[[pd.DataFrame], pd.DataFrame] | str | Path | None


@dataclass(frozen=True)
class Query:
    """A query in Spark's SQL; the rows are the view ``input``."""

    text: str
    name: str


@dataclass(frozen=True)
class Function:
    """A function of one part's rows, sent by value."""

    pickled: bytes
    name: str

    def __call__(self, part: pd.DataFrame) -> pd.DataFrame:
        """What the user's function gives. ScriptError where that is not a frame."""
        try:
            given = _loaded(self.pickled)(part)
        except Exception as error:  # the user's own, and it stays that
            columns = ", ".join(f"{name} {kind}" for name, kind in part.dtypes.items())
            error.add_note(
                f"{self.name} was called with the columns {columns}. Of text files the first rows say the types, "
                "or types={'COLUMN': 'double'} of the flow."
            )
            raise
        if not isinstance(given, pd.DataFrame):
            raise ScriptError(
                f"{self.name} gave {type(given).__name__}, not a DataFrame",
                hint="It is called with each part's rows as a pandas DataFrame, and returns those to write as one.",
            )
        named = [name for name in given.index.names if name is not None]
        return given.reset_index(named) if named else given

    def meta(self, sample: pd.DataFrame) -> pd.DataFrame:
        """The columns that it gives, by what it makes of some rows."""
        columns = pandas_schema(self(sample)).remove_metadata()
        fields = [f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in columns]
        return to_pandas(pa.schema(fields).empty_table(), "pyarrow")


@functools.lru_cache(maxsize=16)
def _loaded(pickled: bytes) -> Any:
    return pickle.loads(pickled)  # noqa: S301 - made by this flow's own process


def check(given: object) -> None:
    """UsageError for what can be neither a function nor a script."""
    if given is None or callable(given) or (isinstance(given, (str, Path)) and _form(str(given))):
        return
    raise UsageError(
        f"transform={given!r} is neither a function nor a script",
        hint="Give a function of a DataFrame, 'clean.py:clean', or 'clean.sql'.",
    )


def _form(given: str) -> str:
    name, _, function = given.rpartition(":")
    if given.endswith(".sql"):
        return "sql"
    return "python" if name.endswith(".py") and function.isidentifier() else ""


def load(given: Transform, folder: Path) -> Function | Query | None:
    """The function or query; of a script, from its file below ``folder``. ScriptError."""
    if given is None:
        return None
    if callable(given):
        return sent(given, getattr(given, "__qualname__", repr(given)))
    if _form(str(given)) == "sql":
        return query(str(given), folder)
    return sent(function(str(given), folder), str(given))


def sent(given: Callable[..., Any], name: str) -> Function:
    """A function of one part's rows, for workers. ScriptError."""
    return Function(packed(given, name), name)


def query(name: str, folder: Path) -> Query:
    """The query of a file below ``folder``. ScriptError."""
    file = _file(folder, name)
    text = file.read_text().strip().rstrip(";").strip()
    if not text:
        raise ScriptError(f"{file} is empty", hint="Write a query there: select ... from ...")
    return Query(text, name)


def function(given: str, folder: Path) -> Callable[..., Any]:
    """``"clean.py:clean"``: the function of a file below ``folder``. ScriptError."""
    name, _, wanted = given.rpartition(":")
    module = _module(_file(folder, name))
    found = getattr(module, wanted, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    raise ScriptError(
        f"{name} has no function {wanted!r}",
        hint=sentence(did_you_mean(wanted, known)) if known else f"Write it there: def {wanted}(...):",
    )


def _file(folder: Path, name: str) -> Path:
    file = folder / Path(name).expanduser()
    if not file.is_file():
        raise ScriptError(
            f"the script {name} is not there: {file}", hint="Its path is that below the project folder."
        )
    return file


def _module(file: Path) -> ModuleType:
    name = f"shoal_script_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:10]}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def by_value(given: object) -> Iterator[None]:
    """In the block, what comes from the same file as ``given`` is sent to workers whole, not by its module's name."""
    while isinstance(given, functools.partial):
        given = given.func
    module = sys.modules.get(getattr(given, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    own = (
        module is not None
        and file is not None
        and not installed().has(str(Path(file).absolute()))
        and module.__name__ not in (*cloudpickle.list_registry_pickle_by_value(), "__main__")
    )
    if own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        if own:
            cloudpickle.unregister_pickle_by_value(module)


def packed(given: object, name: str) -> bytes:
    """As it is sent to workers. ScriptError."""
    with by_value(given):
        try:
            made: bytes = cloudpickle.dumps(given)
            return made
        except Exception as error:  # whatever it refers to may refuse in its own way
            raise ScriptError(
                f"{name} cannot be sent to workers: {error}",
                hint="Open files, locks and connections inside of it, not around it.",
            ) from error
