"""Values in the place of ``:name`` and ``?`` in a query of Spark's.

Why it exists: Spark 4.1 drops them where a parser is plugged in, as Iceberg's is (SPARK-59672), so
``session.sql(query, args=...)`` finds every parameter unbound. Iceberg's own statements never took any.

What it must not do: let a value become more than a value.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from shoal.errors import UsageError
from shoal.words import did_you_mean, sentence

# Where a parameter cannot be comes first: texts, names in backticks, comments.
_TOKEN = re.compile(
    r"""(?<!\w)[rR]'[^']*' | (?<!\w)[rR]"[^"]*" | '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | `(?:[^`]|``)*`
    | --[^\n]* | /\*.*?\*/ | (?<![\w:)\]`'"]):(?P<name>[A-Za-z_]\w*) | (?P<mark>\?)""",
    re.DOTALL | re.VERBOSE,
)
_PLAIN = re.compile(r"[^'\\\x00-\x1f]*")
_LONG = 2**63


def bind(query: str, args: Mapping[str, Any] | Sequence[Any]) -> str:
    """The query with values as literals.

    Args:
        query: With ``:name`` for the values of a mapping, or ``?`` for those of a list.
        args: Numbers, texts, bytes, dates, times (without a zone: UTC), None, and lists of these. Those that the query
            does not name are passed over.

    Raises:
        UsageError: a parameter has no value, or one that cannot be a literal; or there are more or fewer values than
            marks.
    """
    if isinstance(args, Mapping):
        return _TOKEN.sub(lambda found: _named(found, args), query)
    marks = sum(1 for found in _TOKEN.finditer(query) if found["mark"])
    if marks != len(args):
        raise UsageError(
            f"the query has {marks} placeholders (?), and {len(args)} values were given",
            hint="One value for each ?.",
        )
    values = iter([literal(value, f"number {number}") for number, value in enumerate(args, 1)])
    return _TOKEN.sub(lambda found: next(values) if found["mark"] else found.group(), query)


def _named(found: re.Match[str], args: Mapping[str, Any]) -> str:
    name = found["name"]
    if name is None:
        return found.group()
    if name not in args:
        raise UsageError(
            f"the query has the parameter :{name}, which is given no value",
            hint=sentence(did_you_mean(name, args)),
        )
    return literal(args[name], f":{name}")


def literal(value: Any, name: str) -> str:
    """A value in Spark's SQL; UsageError with ``name`` where it is none."""
    value = value.item() if hasattr(value, "item") and not isinstance(value, (str, bytes)) else value
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return f"({value})" if -_LONG < value < _LONG else f"({value}BD)"
        case float():
            return f"({value!r}D)" if math.isfinite(value) else f"double('{value}')"
        case Decimal() if value.is_finite():
            return f"({value:f}BD)"
        case str():
            plain = _PLAIN.fullmatch(value)
            return f"'{value}'" if plain else f"decode(X'{value.encode().hex()}', 'UTF-8')"
        case bytes():
            return f"X'{value.hex()}'"
        case dt.datetime():
            return f"TIMESTAMP'{value.isoformat(' ')}'"
        case dt.date():
            return f"DATE'{value.isoformat()}'"
        case list() | tuple():
            return f"array({', '.join(literal(each, name) for each in value)})"
    raise UsageError(
        f"the value of the parameter {name} is of type {type(value).__name__}, which cannot be put into a query",
        hint="Numbers, texts, bytes, dates, times, None, and lists of these can.",
    )
