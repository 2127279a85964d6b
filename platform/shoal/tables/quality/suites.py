"""Expectation suites of Great Expectations, as rules of ours.

Why it exists: teams have hundreds of expectations written down, and most of them are conditions on a row's values. What
it must not do: judge rows, need that library, or leave an expectation out silently.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import Any

from shoal.tables.errors import RuleError, SkippedExpectationWarning
from shoal.words import count

_HINT = (
    "A suite as Great Expectations saves it: JSON with a list `expectations`, each with a type and kwargs."
)
_IGNORED = {"column", "result_format", "catch_exceptions", "include_config", "batch_id", "severity"}


class _NoConditionError(Exception):
    """Why an expectation cannot be a condition on one row."""


def rules_from_suite(suite: str | PathLike[str] | Mapping[str, Any], *, skip: bool = False) -> dict[str, str]:
    """The expectations of a Great Expectations suite as rules for ``expect=``: conditions by name.

    Of columns' values: not null, null, in a set, not in a set, and between two bounds (also strictly).
    A null passes all but the first, as it does there. NaN is a value here, for which no bound holds.

    Args:
        suite: The file that Great Expectations saved (version 0.13 to 1), or what it holds.
        skip: Leave out expectations that are not about one row (uniqueness, statistics, patterns, ``mostly``),
            with a :class:`SkippedExpectationWarning`. Default: refuse the suite.

    Raises:
        RuleError: The suite cannot be read, holds nothing, or holds such expectations; all of them are named.
    """
    found = _expectations(suite)
    rules: dict[str, str] = {}
    others = []
    for number, each in enumerate(found, 1):
        try:
            name, condition = _rule(each)
        except _NoConditionError as why:
            others.append(f"expectation {number}, {_shown(each)}: {why}")
            continue
        if rules.get(name, condition) != condition:  # said twice differently: both hold
            name = f"{name} ({number})"
        rules[name] = condition
    if others and not skip:
        raise RuleError(
            f"{count(len(others), 'expectation')} of {len(found)} cannot be checked row by row:\n  "
            + "\n  ".join(others),
            hint="skip=True leaves them out, and says so. A pandera schema can say more of one column.",
        )
    if others:
        warnings.warn("Not checked: " + "; ".join(others), SkippedExpectationWarning, stacklevel=2)
    if not rules:
        raise RuleError("The suite holds no expectation that can be checked.", hint=_HINT)
    return rules


def _expectations(suite: Any) -> Sequence[Any]:
    said = suite
    if not isinstance(suite, Mapping):
        try:
            said = json.loads(Path(suite).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError) as error:
            raise RuleError(f"The suite {suite!r} cannot be read: {error}", hint=_HINT) from error
    found = said.get("expectations") if isinstance(said, Mapping) else None
    if not isinstance(found, list):
        raise RuleError(f"{suite!r} is not a suite: it has no list `expectations`."[:500], hint=_HINT)
    return found


def _shown(expectation: Any) -> str:
    if not isinstance(expectation, Mapping):
        return repr(expectation)[:80]
    kind, kwargs = _kind(expectation), expectation.get("kwargs")
    column = kwargs.get("column") if isinstance(kwargs, Mapping) else None
    return f"{kind} of {column}" if column else kind


def _kind(expectation: Mapping[str, Any]) -> str:
    return str(expectation.get("type") or expectation.get("expectation_type") or "without a type")


def _rule(expectation: Any) -> tuple[str, str]:
    if not isinstance(expectation, Mapping) or not isinstance(expectation.get("kwargs"), Mapping):
        raise _NoConditionError("it has no kwargs")
    kind, kwargs = _kind(expectation), dict(expectation["kwargs"])
    make = _KINDS.get(kind)
    if make is None:
        raise _NoConditionError(_REASONS.get(kind, "it is not about the values of one row"))
    if not isinstance(column := kwargs.get("column"), str) or not column or '"' in column:
        raise _NoConditionError(f"its column is {column!r}")
    if kwargs.pop("mostly", None) not in (None, 1, 1.0):
        raise _NoConditionError("a rule holds for every row, and mostly= lets some fail")
    if kwargs.pop("row_condition", None) is not None or kwargs.pop("condition_parser", None) is not None:
        raise _NoConditionError("it has a row_condition")
    quoted = f'"{column}"'
    condition = make(quoted, kwargs)
    if left := sorted(key for key in kwargs if key not in _IGNORED and kwargs[key] not in (None, False)):
        raise _NoConditionError(f"it has {', '.join(left)}")
    label = kind.removeprefix("expect_column_values_to_").replace("be_", "").replace("_", " ")
    return f"{column}: {label}", condition


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return format(Decimal(repr(value)), "f")
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    raise _NoConditionError(f"{value!r} is not a number, text or boolean")


def _not_null(column: str, kwargs: dict[str, Any]) -> str:
    return f"{column} is not null"


def _null(column: str, kwargs: dict[str, Any]) -> str:
    return f"{column} is null"


def _set(word: str) -> Callable[[str, dict[str, Any]], str]:
    def condition(column: str, kwargs: dict[str, Any]) -> str:
        values = kwargs.pop("value_set", None)
        if not isinstance(values, list) or not values:
            raise _NoConditionError(f"its value_set is {values!r}")
        # A null passes whatever the set holds; among its values it would make `not in` unknown for every row.
        return f"{column} {word} ({', '.join(_literal(value) for value in values if value is not None)})"

    return condition


def _between(column: str, kwargs: dict[str, Any]) -> str:
    parts = []
    for bound, strict, less in (("min_value", "strict_min", ">"), ("max_value", "strict_max", "<")):
        value, strictly = kwargs.pop(bound, None), kwargs.pop(strict, False)
        if value is not None:
            parts.append(f"{column} {less}{'' if strictly else '='} {_literal(value)}")
    if not parts:
        raise _NoConditionError("it has no bound")
    return " and ".join(parts)


_KINDS: Mapping[str, Callable[[str, dict[str, Any]], str]] = {
    "expect_column_values_to_not_be_null": _not_null,
    "expect_column_values_to_be_null": _null,
    "expect_column_values_to_be_in_set": _set("in"),
    "expect_column_values_to_not_be_in_set": _set("not in"),
    "expect_column_values_to_be_between": _between,
}
_REASONS = {
    "expect_column_values_to_be_unique": "uniqueness is about all rows together",
    "expect_compound_columns_to_be_unique": "uniqueness is about all rows together",
    "expect_column_values_to_match_regex": "conditions have no patterns",
    "expect_column_values_to_not_match_regex": "conditions have no patterns",
    "expect_column_values_to_be_of_type": "a table's columns have their types; what does not fit is refused anyway",
    "expect_column_to_exist": "a table's columns are checked anyway, when rows are written",
    "expect_table_row_count_to_be_between": "it is about all rows together",
}
