"""What people write as a filter -> an Iceberg expression.

Why it exists: ``filters=`` takes SQL-like text, Dask's lists of tuples, or PyIceberg's own expressions, and a
mistake in one should be told in the table's words before anything runs. What it must not do: guess; a value
that does not fit its column is an error.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from typing import Any

from pyiceberg import expressions as ex
from pyiceberg import types as iceberg
from pyiceberg.expressions.literals import literal
from pyiceberg.expressions.parser import parse
from pyiceberg.schema import Schema

from shoal.errors import ShoalError
from shoal.tables.errors import FilterError
from shoal.tables.pyiceberg_private import BooleanExpression, bind
from shoal.tables.reading.logic import inside_many, spelled_out
from shoal.tables.reading.misread import EXAMPLE, find_mistake
from shoal.tables.types.schemas import check_columns

Filters = str | BooleanExpression | Sequence[Any] | None

# PyIceberg's expression classes take their arguments by position, which their types do not say.
_new: Any = ex

_OPERATORS: dict[str, Any] = {
    "==": ex.EqualTo,
    "=": ex.EqualTo,
    "!=": ex.NotEqualTo,
    "<": ex.LessThan,
    "<=": ex.LessThanOrEqual,
    ">": ex.GreaterThan,
    ">=": ex.GreaterThanOrEqual,
}


def as_expression(
    filters: Filters, schema: Schema, table: str, *, negated: bool = False
) -> BooleanExpression:
    """Read a filter and check it against a table's columns.

    Text as in SQL's ``where`` (``"dep_delay > 0 and carrier in ('AA', 'UA')"``), a list of ``(column,
    operator, value)`` tuples joined by "and", a list of such lists joined by "or", or a PyIceberg expression.
    All of them mean SQL's logic, as Spark has it: a comparison with null is unknown, also under a ``not``, and
    what is unknown is left out; NaN is above every number. ``negated``: what it is false for, by the same logic.

    Raises :class:`FilterError`, :class:`ColumnNotFoundError`.
    """
    if filters is None:
        return ex.AlwaysFalse() if negated else ex.AlwaysTrue()
    if isinstance(filters, BooleanExpression):
        expression = filters
    elif isinstance(filters, str):
        _only_prefixes(filters)
        try:
            expression = parse(_without_kinds(filters))
        except Exception as error:  # pyparsing's errors have no common base that is public
            raise _misread(filters, error) from error
    elif isinstance(filters, (list, tuple)):
        expression = _from_lists(filters)
    else:
        raise FilterError(
            f"{filters!r} ({type(filters).__name__}) is not a filter.",
            hint="Give text (\"delay > 0\"), tuples ([('delay', '>', 0)]) or a PyIceberg expression.",
        )
    names = [schema.find_column_name(i) or "" for i in schema.field_ids]
    for column in sorted(columns_of(expression)):
        if column not in names:
            _refuse_inside(column, schema, filters, table)
            check_columns([column], [n for n in names if not inside_many(n, schema)], table)
    try:
        meant = spelled_out(ex.Not(expression) if negated else expression, schema)
        bind(schema, meant, case_sensitive=True)
    except Exception as error:  # PyIceberg raises TypeError, ValueError and its own, by the literal's type
        reason = error.message if isinstance(error, ShoalError) else error
        raise FilterError(
            f"The filter {filters!r} does not fit the columns of {table}: {reason}",
            hint=getattr(error, "hint", "") or "Is each value of its column's type?",
        ) from error
    return meant


def _refuse_inside(column: str, schema: Schema, filters: object, table: str) -> None:
    """Refuse what is inside a list or a map, also by a path that leaves ``element`` out, as people write it."""
    if (reason := inside_many(column, schema)) is not None:
        raise FilterError(
            f"The filter {filters!r} does not fit the columns of {table}: {reason}",
            hint="Read the column, and filter the frame.",
        )


def _misread(text: str, error: Exception) -> FilterError:
    mistake = find_mistake(_without_kinds(text))
    if mistake is None:
        place = getattr(error, "loc", None)
        if not isinstance(place, int):
            reason = str(error)
            short = reason if len(reason) < 200 else f"{reason[:190]} ..."
            return FilterError(f"The filter {text!r} cannot be read: {short}", hint=EXAMPLE)
        # The parser's own words are its grammar.
        return FilterError(
            f"The filter {text!r} cannot be read at character {place + 1}.", hint=EXAMPLE, at=place + 1
        )
    return FilterError(
        f"The filter {text!r} cannot be read at character {mistake.at}: found {mistake.found}, "
        f"expected {mistake.expected}.",
        hint=mistake.hint,
        at=mistake.at,
    )


_TEXTS = re.compile(r"""(?P<like>\blike\s*)?'(?P<text>(?:[^'\\]|''|\\.)*)'""", re.IGNORECASE | re.DOTALL)
_KINDS = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|\b(?P<kind>timestamp|date)\b(?=\s*')""", re.IGNORECASE)
_PREFIX = re.compile(r"[^_%\\]*(?:\\?%)?", re.DOTALL)


def _without_kinds(text: str) -> str:
    """``timestamp '…'`` and ``date '…'`` as the texts alone, where they stood: what they are is the column's to say."""
    return _KINDS.sub(lambda found: " " * len(found[0]) if found["kind"] else found[0], text)


def _only_prefixes(text: str) -> None:
    """Refuse patterns that PyIceberg would take literally: SQL's ``_`` is any one character."""
    for found in _TEXTS.finditer(text):
        if found["like"] and not _PREFIX.fullmatch(found["text"]):
            raise FilterError(
                f"The filter {text!r} has the pattern {found['text']!r}, and only the start of a text is matched.",
                hint="Write like 'abc%', without _ and escapes, or read the column and filter the frame.",
            )


def _from_lists(filters: Sequence[Any]) -> BooleanExpression:
    items = list(filters)
    if not items:
        return ex.AlwaysTrue()
    if all(isinstance(item, list) for item in items):
        result: BooleanExpression = ex.AlwaysFalse()
        for item in items:
            result = ex.Or(result, _from_lists(item))
        return result
    if len(items) == 3 and isinstance(items[0], str) and isinstance(filters, tuple):
        items = [filters]
    result = ex.AlwaysTrue()
    for item in items:
        result = ex.And(result, _predicate(item))
    return result


def _predicate(item: Any) -> Any:
    if not (isinstance(item, tuple) and len(item) == 3 and isinstance(item[0], str)):
        raise FilterError(
            f"{item!r} is not (column, operator, value).", hint='For example ("dep_delay", ">", 0).'
        )
    column, operator, value = item
    value = plain(value)
    match str(operator).lower():
        case "in" | "not in" as known:
            if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
                raise FilterError(
                    f"{item!r}: {value!r} is not a list of values.", hint='For example ("a", "in", [1, 2]).'
                )
            values = [_comparable(item, plain(v)) for v in value]
            return _new.In(column, values) if known == "in" else _new.NotIn(column, values)
        case "is" if value is None:
            return _new.IsNull(column)
        case "is not" if value is None:
            return _new.NotNull(column)
        case known if known in _OPERATORS:
            return _OPERATORS[known](column, _comparable(item, value))
    raise FilterError(
        f"{operator!r} is not an operator that filters know.",
        hint=f"Known: {', '.join([*_OPERATORS, 'in', 'not in', 'is'])}",
    )


def _comparable(item: Any, value: Any) -> Any:
    """The value, if a literal can be made of it."""
    import pandas as pd

    missing = (
        value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)
    )
    try:
        if not missing:
            literal(value)
            return value
    except (TypeError, ValueError) as error:
        raise FilterError(
            f"{item!r}: {value!r} ({type(value).__name__}) cannot be compared with a column.",
            hint="Values are numbers, text, booleans, dates, times, UUIDs or bytes.",
        ) from error
    nan = isinstance(value, float)
    raise FilterError(
        f"{item!r}: nothing can be compared with {value!r}: no row would pass, whatever it holds.",
        hint=f'Ask for NaN with the text "{item[0]} is nan".'
        if nan
        else f'Ask for nulls with ("{item[0]}", "is", None) or ("{item[0]}", "is not", None).',
    )


def exact_literal(value: Any, kind: iceberg.IcebergType) -> Any:
    """A value as the literal of a comparison that Iceberg decides exactly as pandas does, or ``None``.

    Only values of the column's own kind: pandas and Iceberg convert others by rules of their own.
    """
    import pandas as pd

    value = plain_timestamp(value) if isinstance(kind, _TIMES) else plain(value)
    if value is None or value is pd.NA or value != value:
        return None
    match kind:
        case iceberg.IntegerType() | iceberg.LongType():
            bits = 31 if isinstance(kind, iceberg.IntegerType) else 63
            fits = type(value) is int and -(2**bits) <= value < 2**bits
            return value if fits else None
        case iceberg.DoubleType():
            if type(value) is int and abs(value) <= 2**53:
                return float(value)
            return value if type(value) is float else None
        case iceberg.StringType():
            return value if type(value) is str else None
        case iceberg.DateType():
            return value if type(value) is dt.date else None
        case iceberg.TimestampType():
            return value if isinstance(value, dt.datetime) and value.tzinfo is None else None
        case iceberg.TimestamptzType():
            return value.astimezone(dt.UTC) if isinstance(value, dt.datetime) and value.tzinfo else None
        case iceberg.DecimalType(precision=precision, scale=scale) if isinstance(value, Decimal):
            _, digits, exponent = value.as_tuple()
            fits = isinstance(exponent, int) and -exponent <= scale and len(digits) <= precision
            with localcontext(prec=2 * precision + scale):  # by default it rounds to 28 digits, or refuses
                return value.quantize(Decimal(1).scaleb(-scale)) if fits else None
        case iceberg.BooleanType():
            return value if type(value) is bool else None
    return None


_TIMES = (iceberg.TimestampType, iceberg.TimestamptzType)


def plain_timestamp(value: Any) -> Any:
    """A timestamp as a ``datetime``, unless it holds fractions of a microsecond; anything else: ``None``."""
    import numpy as np
    import pandas as pd

    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, pd.Timestamp):
        return None if value is pd.NaT or value.nanosecond else value.to_pydatetime(warn=False)
    return value if isinstance(value, dt.datetime) else None


def plain(value: Any) -> Any:
    """A NumPy or pandas scalar as the plain Python value that Iceberg's literals are made of."""
    import numpy as np
    import pandas as pd

    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, pd.Timestamp) and value is not pd.NaT:
        return value.to_pydatetime(warn=False)
    return value.item() if isinstance(value, np.generic) else value


def columns_of(expression: BooleanExpression) -> set[str]:
    """The columns that a filter looks at."""
    match expression:
        case ex.And(left=left, right=right) | ex.Or(left=left, right=right):
            return columns_of(left) | columns_of(right)
        case ex.Not(child=child):
            return columns_of(child)
    term = getattr(expression, "term", None)
    name = getattr(term, "name", None)
    return {name} if isinstance(name, str) else set()
