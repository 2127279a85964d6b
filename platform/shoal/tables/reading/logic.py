"""What a filter means: SQL's logic, spelled out so that nobody down the line has to know it.

Why it exists: PyIceberg's expressions leave to whoever evaluates them what null and NaN do in a negation and what
becomes of a literal that lies between two values of its column, and its evaluators (of partitions, of statistics,
of rows) answer differently. So every filter is rewritten once, here, into a form that leaves no choice. What it
must not do: look at files.

The form, in which ``!`` is a comparison by itself: no negations, ``AlwaysTrue``, ``AlwaysFalse``, ``and``, ``or``,
and predicates that are true or false, never unknown. Null passes ``IsNull`` and ``NotNaN`` alone; NaN passes
``NotEqualTo``, ``NotIn``, ``IsNaN`` and ``NotNull`` alone; every literal is a value of its column's type.
In SQL's logic, as Spark has it, NaN is above every number, which is written as ``x > 1 or x is NaN``.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import struct
from decimal import ROUND_FLOOR, Decimal, localcontext
from typing import Any

from pyiceberg import expressions as ex
from pyiceberg import types as iceberg
from pyiceberg.expressions.literals import (
    AboveMax,
    BelowMin,
    BooleanLiteral,
    DateLiteral,
    DecimalLiteral,
    DoubleLiteral,
    FloatLiteral,
    Literal,
    LongLiteral,
    StringLiteral,
    TimestampLiteral,
)
from pyiceberg.schema import Schema

from shoal.tables.errors import FilterError
from shoal.tables.pyiceberg_private import BooleanExpression

# PyIceberg's expression classes take their arguments by position, which their types do not say.
_new: Any = ex

_DAY = 86_400_000_000
_TIMES = (iceberg.TimestampType, iceberg.TimestamptzType)
_FLOATS = (iceberg.FloatType, iceberg.DoubleType)
Place = tuple[Any, int]
"""The greatest value of a column's type that is not above a literal, and whether the literal lies above it (1) or
is it (0). ``(None, 1)``: above all values; ``(None, -1)``: below all."""


def spelled_out(expression: BooleanExpression, schema: Schema) -> BooleanExpression:
    """The form above of a filter that means SQL's logic. Raises :class:`FilterError`."""
    return _by_what_is_null(_rewrite(expression, schema, negated=False), schema)


def _by_what_is_null(expression: Any, schema: Schema) -> BooleanExpression:
    """A required field is null where a struct above it is: what asks for one asks for the other.

    PyIceberg looks at the field alone, and takes it for never null.
    """
    match expression:
        case ex.And() | ex.Or():
            make: Any = ex.And if isinstance(expression, ex.And) else ex.Or
            both: BooleanExpression = make(
                _by_what_is_null(expression.left, schema), _by_what_is_null(expression.right, schema)
            )
            return both
        case ex.IsNull() | ex.NotNull():
            term: Any = expression.term
            again: Any = type(expression)
            asked: BooleanExpression = again(_innermost_optional(term.name, schema))
            return asked
    result: BooleanExpression = expression
    return result


def _innermost_optional(name: str, schema: Schema) -> str:
    """The field itself, or the struct whose null makes a required field null; without either, the field."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        above = ".".join(parts[:end])
        try:
            if not schema.find_field(above).required:
                return above
        except ValueError:
            continue  # a name with a dot in it
    return name


def _rewrite(expression: Any, schema: Schema, *, negated: bool) -> BooleanExpression:
    match expression:
        case ex.And() | ex.Or():
            left = _rewrite(expression.left, schema, negated=negated)
            right = _rewrite(expression.right, schema, negated=negated)
            both = isinstance(expression, ex.And) != negated
            return ex.And(left, right) if both else ex.Or(left, right)
        case ex.Not():
            return _rewrite(expression.child, schema, negated=not negated)
        case ex.AlwaysTrue() | ex.AlwaysFalse():
            return _always(isinstance(expression, ex.AlwaysTrue) != negated)
        case BooleanLiteral():
            return _always(expression.value != negated)
        case ex.UnboundPredicate():
            return _predicate(~expression if negated else expression, schema)
    raise FilterError(
        f"{expression!r} is not a filter on named columns.",
        hint='For example pyiceberg.expressions.EqualTo("carrier", "AA").',
    )


def _always(value: bool) -> BooleanExpression:
    return ex.AlwaysTrue() if value else ex.AlwaysFalse()


def _predicate(predicate: Any, schema: Schema) -> BooleanExpression:
    name = predicate.term.name
    kind = _type_of(name, schema)
    if isinstance(predicate, (ex.IsNull, ex.NotNull)):
        return predicate
    if isinstance(predicate, (ex.IsNaN, ex.NotNaN)):
        if isinstance(kind, _FLOATS):
            return predicate
        raise FilterError(f"{name!r} is {kind}, and only float and double can hold NaN.")
    if not isinstance(kind, iceberg.PrimitiveType):
        raise FilterError(
            f"{name!r} is {kind}, which compares with nothing.",
            hint="Compare a field of a struct by its path, such as s.a; a column as a whole can be null or not.",
        )
    if isinstance(predicate, (ex.In, ex.NotIn)):
        return _among(predicate, name, kind)
    if isinstance(predicate, (ex.StartsWith, ex.NotStartsWith)):
        if not isinstance(kind, iceberg.StringType):
            raise FilterError(f"{name!r} is {kind}, and only text starts with something.")
        return predicate if isinstance(predicate, ex.StartsWith) else _and_not_null(predicate, name)
    return _compared(predicate, name, kind)


def _type_of(name: str, schema: Schema) -> iceberg.IcebergType:
    """A column's type, or that of a field of a struct. Raises for what is inside a list or a map."""
    if (reason := inside_many(name, schema)) is not None:
        raise FilterError(reason, hint="Read the column, and filter the frame.")
    return schema.find_type(name)


def inside_many(name: str, schema: Schema) -> str | None:
    """Why a name says nothing of a row, if it is of something inside a list or a map."""
    parts = name.split(".")
    for i in range(1, len(parts)):
        try:
            above = schema.find_type(".".join(parts[:i]))
        except ValueError:
            continue  # a name with a dot in it
        if isinstance(above, (iceberg.ListType, iceberg.MapType)):
            return (
                f"{name!r} is inside {'.'.join(parts[:i])!r}, which is {above}: a row may hold many of them."
            )
    return None


def _not_null(name: str) -> BooleanExpression:
    result: BooleanExpression = _new.NotNull(name)
    return result


def _and_not_null(predicate: Any, name: str) -> BooleanExpression:
    return ex.And(predicate, _not_null(name))


def _compared(predicate: Any, name: str, kind: iceberg.PrimitiveType) -> BooleanExpression:
    value, side = _placed(predicate.literal, name, kind)
    if isinstance(predicate, (ex.EqualTo, ex.NotEqualTo)):
        if side:
            return ex.AlwaysFalse() if isinstance(predicate, ex.EqualTo) else _not_null(name)
        make: Any = type(predicate)
        again: BooleanExpression = make(name, value)
        return again if isinstance(predicate, ex.EqualTo) else _and_not_null(again, name)
    below = isinstance(predicate, (ex.LessThan, ex.LessThanOrEqual))
    if value is None:
        return _not_null(name) if below == (side > 0) else ex.AlwaysFalse()
    beside = _new.LessThanOrEqual if below else _new.GreaterThan
    make = beside if side else type(predicate)
    result: BooleanExpression = make(name, value)
    # NaN is above every number, so it is above every literal.
    return ex.Or(result, _new.IsNaN(name)) if isinstance(kind, _FLOATS) and not below else result


def _among(predicate: Any, name: str, kind: iceberg.PrimitiveType) -> BooleanExpression:
    placed = [_placed(literal, name, kind) for literal in predicate.literals]
    values = [value for value, side in placed if side == 0]
    if isinstance(predicate, ex.In):
        return _new.In(name, values) if values else ex.AlwaysFalse()
    return _and_not_null(_new.NotIn(name, values), name) if values else _not_null(name)


_WRITTEN = {
    iceberg.DateType: "'2026-01-31'",
    iceberg.TimeType: "'09:30:00'",
    iceberg.TimestampType: "'2026-01-31T09:30:00'",
    iceberg.TimestamptzType: "'2026-01-31T09:30:00+00:00'",
    iceberg.BooleanType: "true",
    iceberg.StringType: "'AA'",
    iceberg.UUIDType: "'f79c3e09-677c-4bbd-a479-3f349cb785e7'",
    iceberg.IntegerType: "40",
    iceberg.LongType: "40",
    iceberg.FloatType: "1.5",
    iceberg.DoubleType: "1.5",
    iceberg.DecimalType: "1.50",
}
"""A value of each type in a text filter."""


def _placed(literal: Literal[Any], name: str, kind: iceberg.PrimitiveType) -> Place:
    try:
        return place(_as_a_time(literal, kind), kind)
    except (TypeError, ValueError) as error:
        value = _as_given(literal)
        example = _in_form(value, kind) or _WRITTEN.get(type(kind))
        raise FilterError(
            f"{value!r} is not a value of {name!r}, which is {kind}.",
            hint=f"In a text filter it is written like this: {name} = {example}"
            if example
            else "Give such values in tuples, or in a PyIceberg expression.",
        ) from error


_TIME = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?(Z|[+-]\d\d:\d\d)?")


def _as_a_time(literal: Literal[Any], kind: iceberg.PrimitiveType) -> Literal[Any]:
    """A day or a time as people write it, in the one form that Iceberg reads; anything else as it is.

    A day is its midnight. With a zone where the column has none, or the other way round, it is not told what is meant.
    """
    if not isinstance(kind, _TIMES) or not isinstance(literal, (StringLiteral, DateLiteral)):
        return literal
    text = _as_given(literal)
    try:
        time = dt.datetime.fromisoformat(text) if _TIME.fullmatch(text) else None
    except ValueError:  # the 31st of February
        return literal
    if time is None or (time.tzinfo is None) != isinstance(kind, iceberg.TimestampType):
        return literal
    return StringLiteral(time.isoformat())


def _as_given(literal: Literal[Any]) -> Any:
    """A literal's value; of times, which are numbers in it, as text."""
    if isinstance(literal, DateLiteral):
        return (dt.date(1970, 1, 1) + dt.timedelta(days=literal.value)).isoformat()
    if isinstance(literal, TimestampLiteral):
        return (dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=literal.value)).isoformat()
    return literal.value


def _in_form(value: Any, kind: iceberg.PrimitiveType) -> str | None:
    """A time that was written otherwise (with a space, with Z, as a day) in the form that its column wants."""
    try:
        time = dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    match kind:
        case iceberg.TimestampType():
            plain = time if time.tzinfo is None else time.astimezone(dt.UTC).replace(tzinfo=None)
            return f"'{plain.isoformat()}'"
        case iceberg.TimestamptzType():
            return f"'{(time if time.tzinfo else time.replace(tzinfo=dt.UTC)).isoformat()}'"
        case iceberg.DateType():
            return f"'{time.date().isoformat()}'"
    return None


def place(literal: Literal[Any], kind: iceberg.PrimitiveType) -> Place:
    """Where a literal lies among the values of a type. Raises ``TypeError`` or ``ValueError`` if nowhere."""
    value = literal.value
    number = isinstance(value, (int, float, Decimal)) and type(literal) in (
        LongLiteral,
        DoubleLiteral,
        FloatLiteral,
        DecimalLiteral,
    )
    match kind:
        case iceberg.IntegerType() | iceberg.LongType() if number:
            return _whole(value, 31 if isinstance(kind, iceberg.IntegerType) else 63)
        case iceberg.FloatType() if number:
            return _single(value)
        case iceberg.DoubleType() if number:
            return DoubleLiteral(_float(value)), 0
        case iceberg.DecimalType() if number:
            return _decimal(value, kind)
        case iceberg.DateType() if isinstance(literal, TimestampLiteral):
            return DateLiteral(value // _DAY), int(value % _DAY > 0)
        case iceberg.DateType() | iceberg.TimeType() | iceberg.TimestampType() | iceberg.TimestamptzType():
            if number:
                raise TypeError(f"{value!r} is not a {kind}")
        case iceberg.BooleanType() | iceberg.IntegerType() | iceberg.LongType() | iceberg.DecimalType():
            if isinstance(literal, StringLiteral):
                raise TypeError(f"the text {value!r} is not a {kind}")
        case iceberg.FloatType() | iceberg.DoubleType() if isinstance(literal, StringLiteral):
            raise TypeError(f"the text {value!r} is not a {kind}")
        case iceberg.StringType() if not isinstance(literal, StringLiteral):
            raise TypeError(f"{value!r} is not text")
    converted: Any = literal.to(kind)
    if isinstance(converted, AboveMax):
        return None, 1
    if isinstance(converted, BelowMin):
        return None, -1
    return converted, 0


def _float(value: float | Decimal) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _whole(value: float | Decimal, bits: int) -> Place:
    if isinstance(value, float) and math.isinf(value):
        return None, 1 if value > 0 else -1
    floor = math.floor(value)
    if floor >= 2**bits:
        return None, 1
    return (LongLiteral(floor), int(floor != value)) if floor >= -(2**bits) else (None, -1)


def _single(value: float | Decimal) -> Place:
    """Among the floats of 32 bits, of the double that it is: so Spark compares floats, with whole numbers too."""
    exact = _float(value)
    try:
        (near,) = struct.unpack("<f", struct.pack("<f", exact))
    except OverflowError:
        near = math.copysign(math.inf, exact)
    if near > exact:
        (bits,) = struct.unpack("<i", struct.pack("<f", near))
        bits = bits - 1 if bits > 0 else -(2**31) + 1 if bits in (0, -(2**31)) else bits + 1
        (near,) = struct.unpack("<f", struct.pack("<i", bits))
    return FloatLiteral(near), int(near != exact)


def _decimal(value: float | Decimal, kind: iceberg.DecimalType) -> Place:
    if isinstance(value, float):
        if math.isinf(value):
            return None, 1 if value > 0 else -1
        value = repr(value)  # type: ignore[assignment] # what was written, not its neighbour in binary
    with localcontext() as context:
        context.prec = 400
        exact = Decimal(value)
        floor = exact.quantize(Decimal(1).scaleb(-kind.scale), rounding=ROUND_FLOOR)
        limit = Decimal(10) ** (kind.precision - kind.scale)
        if floor >= limit:
            return None, 1
        return (DecimalLiteral(floor), int(floor != exact)) if floor > -limit else (None, -1)
