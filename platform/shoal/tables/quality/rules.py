"""What people expect of rows -> rules that every engine decides alike.

Why it exists: one rule set has to mean the same on Dask, pandas, Arrow and Spark, and a rule on a column that is not
there has to be told before anything is written. Conditions are those of ``read_table(filters=)``, decided by the
same code, so ``filters="not (CONDITION)"`` finds in a table just the rows that fail. What it must not do: look at rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pyiceberg.schema import Schema

from shoal.errors import UsageError
from shoal.tables.errors import ColumnNotFoundError, FilterError, RuleError
from shoal.tables.pyiceberg_private import BooleanExpression
from shoal.tables.quality import panderas
from shoal.tables.reading.filters import as_expression, columns_of

Rules = str | BooleanExpression | Mapping[str, Any] | Sequence[Any] | Any
"""Conditions by name, a list of conditions, one condition, or a pandera schema."""
OnFailure = Literal["fail", "warn", "quarantine"]
_EXAMPLE = (
    'For example expect={"sane delay": "delay >= -60 and delay < 3000", "carrier": "carrier is not null"}.'
)


@dataclass(frozen=True)
class Condition:
    """A condition that rows should meet."""

    name: str
    text: str
    """As it was written."""
    columns: tuple[str, ...]
    failing: BooleanExpression
    """True where the condition is false. What is unknown, for a null, does not fail: as in SQL's ``check``."""


@dataclass(frozen=True)
class RuleSet:
    """Rules, checked against the columns that they are for."""

    conditions: tuple[Condition, ...] = ()
    schema: Any = None
    """Of pandera."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each rule."""
        return (*(c.name for c in self.conditions), *(panderas.names(self.schema) if self.schema else ()))

    def text_of(self, name: str) -> str:
        """A rule as it was written; its name where that says it."""
        return next((c.text for c in self.conditions if c.name == name), name)


def read_rules(expect: Rules, schema: Schema, where: str, *, parts: int = 1) -> RuleSet:
    """Read rules and check them against columns.

    ``where``: what has the columns, for messages. ``parts``: into how many the rows are divided; a rule about all of
    them together, such as uniqueness, is refused for more than one.

    Raises :class:`RuleError`, :class:`ColumnNotFoundError`.
    """
    given = panderas.as_schema(expect)
    if given is not None:
        panderas.check(given, [f.name for f in schema.fields], where, parts)
        return RuleSet(schema=given)
    return RuleSet(tuple(_condition(name, rule, schema, where) for name, rule in _named(expect)))


def _named(expect: Any) -> list[tuple[str, Any]]:
    if isinstance(expect, Mapping):
        named = list(expect.items())
    elif isinstance(expect, (str, BooleanExpression)):
        named = [(str(expect), expect)]
    elif isinstance(expect, Sequence) and not isinstance(expect, (bytes, tuple)):
        named = [(str(rule), rule) for rule in expect]
    else:
        raise RuleError(f"expect={expect!r} ({type(expect).__name__}) is not a set of rules.", hint=_EXAMPLE)
    if not named:
        raise RuleError("expect= holds no rule.", hint=_EXAMPLE)
    wrong = next((name for name, _ in named if not isinstance(name, str) or not name.strip()), None)
    if wrong is not None:
        raise RuleError(f"A rule has the name {wrong!r}; names are text.", hint=_EXAMPLE)
    names = [name for name, _ in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RuleError(
            f"expect= holds {', '.join(map(repr, twice))} more than once.", hint="Name each once."
        )
    return named


def _condition(name: str, rule: Any, schema: Schema, where: str) -> Condition:
    if not rule and not isinstance(rule, BooleanExpression):
        raise RuleError(f"The rule {name!r} is empty.", hint=_EXAMPLE)
    try:
        failing = as_expression(rule, schema, where, negated=True)
    except ColumnNotFoundError as error:
        raise ColumnNotFoundError(
            f"The rule {name!r} cannot be checked. {error.message}",
            hint=error.hint,
            rule=name,
            **error.values,
        ) from error
    except FilterError as error:
        raise RuleError(
            f"The rule {name!r} cannot be checked. {error.message}",
            hint=error.hint,
            rule=name,
            **error.values,
        ) from error
    return Condition(name, str(rule), tuple(sorted(columns_of(failing))), failing)


def check_action(on_failure: object, quarantine: object, *, rules: bool, table: str) -> None:
    """Raise :class:`UsageError` unless what is to happen to failing rows makes sense."""
    if on_failure not in ("fail", "warn", "quarantine"):
        raise UsageError(
            f"on_failure={on_failure!r} is not known.", hint='Use "fail", "warn" or "quarantine".'
        )
    if not rules and (on_failure != "fail" or quarantine is not None):
        raise UsageError("on_failure= and quarantine= go with expect=, which holds the rules.", hint=_EXAMPLE)
    if quarantine is not None and on_failure != "quarantine":
        raise UsageError('quarantine= names the table of on_failure="quarantine", which was not asked for.')
    if quarantine is not None and (not isinstance(quarantine, str) or quarantine == table):
        raise UsageError(
            f"quarantine={quarantine!r} is not the name of another table.",
            hint=f"Leave it out for {table}_quarantine.",
        )
