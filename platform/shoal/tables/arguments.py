"""What people hand to the functions of tables, checked before anything is done with it.

Why it exists: a number where a list of names belongs should be told in the words of whoever wrote it, not in those
of the library that stumbles over it three calls later. What it must not do: touch the catalog or data.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from dask.utils import parse_bytes

from shoal.errors import UsageError
from shoal.tables.errors import TypeNotSupportedError


def names(given: object, what: str, example: str) -> list[str]:
    """One name, or several, as a list; ``None``: none. Raises :class:`UsageError` for anything else, and for a
    name that is there twice."""
    if given is None:
        return []
    listed = [given] if isinstance(given, str) else given
    if isinstance(listed, (bytes, Mapping)) or not isinstance(listed, (Collection, pd.Index)):
        raise UsageError(
            f"{what}={given!r} is neither a name nor a list of names.", hint=f"For example {example}."
        )
    found = list(listed)
    wrong = [name for name in found if not isinstance(name, str)]
    if wrong:
        raise UsageError(
            f"{what}={given!r} holds {wrong[0]!r}, which is {type(wrong[0]).__name__}; names are text.",
            hint=f"For example {example}.",
        )
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise UsageError(
            f"{what}= names {', '.join(map(repr, twice))} more than once.", hint="Name each once."
        )
    return found


def flag(given: object, what: str) -> None:
    """Raise :class:`UsageError` for what is neither True nor False: of what deletes, ``None`` must not mean yes."""
    if not isinstance(given, (bool, np.bool_)):
        raise UsageError(f"{what}={given!r} is neither True nor False.", hint=f"For example {what}=True.")


def size(given: object, what: str) -> int:
    """Bytes: a whole number, or text with a unit. Raises :class:`UsageError`."""
    try:
        value = parse_bytes(given) if isinstance(given, (str, int, float)) else 0
    except (ValueError, OverflowError):
        value = 0
    if value < 1 or isinstance(given, bool):
        raise UsageError(
            f"{what}={given!r} is not a size.", hint='For example "128 MiB", or a number of bytes.'
        )
    return int(value)


def properties(given: object) -> dict[str, str]:
    """Properties of a table or a snapshot: names and values are text. Raises :class:`UsageError`."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UsageError(f"properties={given!r} is not a mapping.", hint='For example {"owner": "nyc"}.')
    for key, value in given.items():
        if not isinstance(key, str) or value is None or not isinstance(value, (str, int, float)):
            raise UsageError(
                f"The property {key!r}: {value!r} is not text.", hint='For example {"owner": "nyc"}.'
            )
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in given.items()
    }


def number(found: Mapping[str, str], key: str, default: int) -> int:
    """A table's property that is a whole number above 0. Raises :class:`UsageError`."""
    text = found.get(key)
    if text is None:
        return default
    if not text.strip().isdigit() or int(text) < 1:
        raise UsageError(
            f"The table's property {key} is {text!r}, which is not a whole number above 0.",
            hint=f"Set it again, or take it out; without it, it is {default}.",
        )
    return int(text)


def check_names(given: Sequence[object], what: str = "column") -> None:
    """Raise :class:`UsageError` unless these can be the names of a table's columns."""
    seen: set[object] = set()
    for name in given:
        if not isinstance(name, str):
            raise UsageError(
                f"The {what} {name!r} has a name that is {type(name).__name__}; names have to be text.",
                hint="Rename it: df.columns = [str(name) for name in df.columns]",
            )
        if not name:
            raise UsageError(
                f"A {what} has an empty name.", hint="Give it one: df.rename(columns={'': 'name'})"
            )
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UsageError(f"The name {name!r} cannot be stored: it holds half a character.") from None
        if name in seen:
            raise UsageError(
                f"The {what} {name!r} appears more than once.",
                hint="Drop or rename one; a named index becomes a column too: df.reset_index(drop=True).",
            )
        seen.add(name)


def pandas_schema(frame: pd.DataFrame) -> pa.Schema:
    """The Arrow types of a pandas frame's columns, by its values.

    Raises :class:`UsageError` for names, :class:`TypeNotSupportedError` for a column that Arrow cannot hold.
    """
    check_names(list(frame.columns))
    fields = []
    for name in frame.columns:
        try:
            fields.append(pa.Schema.from_pandas(frame[[name]], preserve_index=False).field(0))
        except (pa.ArrowException, ValueError, TypeError, NotImplementedError, OverflowError) as error:
            raise TypeNotSupportedError(
                f"The column {name!r} ({frame[name].dtype}) cannot be stored: {error}",
                hint="All its values have to be of one type that a table has; convert it with df.astype.",
                column=name,
            ) from error
    return pa.schema(fields)


def arrow_schema(schema: pa.Schema) -> pa.Schema:
    """An Arrow schema whose names can be those of a table's columns."""
    check_names(schema.names)
    return schema.remove_metadata()


def mapped_schema(given: Mapping[Any, Any]) -> pa.Schema:
    """A mapping of column to Arrow type as a schema."""
    check_names(list(given))
    for name, kind in given.items():
        if not isinstance(kind, pa.DataType):
            raise UsageError(
                f"The type of {name!r} is {kind!r}, which is not an Arrow type.",
                hint="For example {'id': pyarrow.int64()}.",
            )
    return pa.schema([pa.field(name, kind) for name, kind in given.items()])
