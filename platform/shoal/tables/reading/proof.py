"""Whether every row of a file passes a filter, and the filter as Arrow evaluates it.

Why it exists: a filter that is proved for a file is not evaluated for its rows, and its length is known without
opening it. PyIceberg's own proof takes a count of NaN or nulls that is missing for zero, and cannot look into
structs; so nothing is proved here but by what a file's metadata says. What it must not do: open files, or guess.

Both expect the form of a filter that :mod:`shoal.tables.reading.logic` makes.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg import expressions as ex
from pyiceberg import types as iceberg
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import BoundPredicate
from pyiceberg.expressions.visitors import BoundBooleanExpressionVisitor, visit
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform

from shoal.tables.pyiceberg_private import BooleanExpression, DataFile, bind, schema_to_pyarrow

_FLOATS = (iceberg.FloatType, iceberg.DoubleType)
_CUT_OFF = (iceberg.StringType, iceberg.BinaryType)


def whole_file(
    schema: Schema, specs: Mapping[int, PartitionSpec], row_filter: BooleanExpression
) -> Callable[[DataFile], bool]:
    """A test for "every row of this file passes the filter", by the file's statistics and partition."""
    bound = bind(schema, row_filter, case_sensitive=True)

    def proved(file: DataFile) -> bool:
        try:
            return visit(bound, _Proof(schema, specs.get(file.spec_id or 0), file))
        except TypeError:
            return False  # a partition's value that does not compare with its column's

    return proved


def without_nans(
    schema: Schema, specs: Mapping[int, PartitionSpec], row_filter: BooleanExpression
) -> Callable[[DataFile], bool]:
    """A test for "none of the columns that the filter looks at holds NaN in this file"."""
    terms: list[Any] = []

    def collect(expression: Any) -> None:
        if isinstance(expression, (ex.And, ex.Or)):
            collect(expression.left)
            collect(expression.right)
        elif isinstance(expression, BoundPredicate) and isinstance(
            expression.term.ref().field.field_type, _FLOATS
        ):
            terms.append(expression.term)

    collect(bind(schema, row_filter, case_sensitive=True))
    return lambda file: all(
        _Proof(schema, specs.get(file.spec_id or 0), file).visit_not_nan(term) for term in terms
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of all of a column's values in a file."""

    no_nulls: bool = False
    only_nulls: bool = False
    no_nans: bool = False
    only_nans: bool = False
    lower: Any = None
    upper: Any = None
    single: bool = False
    """``lower`` and ``upper`` are values that are there, not bounds that may have been cut off."""

    @property
    def ordered(self) -> bool:
        """Every value is there and between the bounds."""
        return self.no_nulls and self.no_nans


class _Proof(BoundBooleanExpressionVisitor[bool]):
    """True: proved for every row. False: not proved."""

    def __init__(self, schema: Schema, spec: PartitionSpec | None, file: DataFile) -> None:
        self._top = {f.field_id: f for f in schema.fields}
        self._spec = spec
        self._file = file

    def _known(self, term: Any) -> _Known:
        field = term.ref().field
        if field.field_id not in self._top or not isinstance(field.field_type, iceberg.PrimitiveType):
            return _Known()  # a field of a struct: writers count its nulls in more ways than one
        try:
            return self._by_partition(field) or self._by_statistics(field)
        except (ValueError, TypeError, ArithmeticError, IndexError, UnicodeError):
            return _Known()  # bounds that cannot be read prove nothing

    def _by_partition(self, field: iceberg.NestedField) -> _Known | None:
        if isinstance(field.field_type, _FLOATS):
            return None  # manifests hold them in half their bits
        for i, part in enumerate(self._spec.fields if self._spec is not None else ()):
            if part.source_id == field.field_id and isinstance(part.transform, IdentityTransform):
                value = self._file.partition[i]
                if value is None:
                    return _Known(only_nulls=True, no_nans=True)
                return _Known(no_nulls=True, no_nans=True, lower=value, upper=value, single=True)
        return None

    def _by_statistics(self, field: iceberg.NestedField) -> _Known:
        i, rows, file = field.field_id, self._file.record_count, self._file
        if (file.value_counts or {}).get(i, rows) != rows:
            return _Known()
        nulls, nans = (file.null_value_counts or {}).get(i), (file.nan_value_counts or {}).get(i)
        low, high = (file.lower_bounds or {}).get(i), (file.upper_bounds or {}).get(i)
        lower, upper = _value(field.field_type, low), _value(field.field_type, high)
        if any(isinstance(b, float) and math.isnan(b) for b in (lower, upper)):
            lower = upper = None
        return _Known(
            no_nulls=field.required or nulls == 0,
            only_nulls=nulls == rows,
            no_nans=not isinstance(field.field_type, _FLOATS) or nans == 0,
            only_nans=nans == rows,
            lower=lower,
            upper=upper,
            single=not isinstance(field.field_type, _CUT_OFF),
        )

    def visit_true(self) -> bool:
        return True

    def visit_false(self) -> bool:
        return False

    def visit_not(self, child_result: bool) -> bool:
        raise AssertionError("a filter that is spelled out has no negations")

    def visit_and(self, left_result: bool, right_result: bool) -> bool:
        return left_result and right_result

    def visit_or(self, left_result: bool, right_result: bool) -> bool:
        return left_result or right_result

    def visit_is_null(self, term: Any) -> bool:
        return self._known(term).only_nulls

    def visit_not_null(self, term: Any) -> bool:
        return self._known(term).no_nulls

    def visit_is_nan(self, term: Any) -> bool:
        return self._known(term).only_nans

    def visit_not_nan(self, term: Any) -> bool:
        return self._known(term).no_nans

    def visit_less_than(self, term: Any, literal: Any) -> bool:
        known = self._known(term)
        return known.ordered and known.upper is not None and bool(known.upper < literal.value)

    def visit_less_than_or_equal(self, term: Any, literal: Any) -> bool:
        known = self._known(term)
        return known.ordered and known.upper is not None and bool(known.upper <= literal.value)

    def visit_greater_than(self, term: Any, literal: Any) -> bool:
        known = self._known(term)
        return known.ordered and known.lower is not None and bool(known.lower > literal.value)

    def visit_greater_than_or_equal(self, term: Any, literal: Any) -> bool:
        known = self._known(term)
        return known.ordered and known.lower is not None and bool(known.lower >= literal.value)

    def visit_equal(self, term: Any, literal: Any) -> bool:
        known = self._known(term)
        one = known.single and known.lower is not None and known.lower == known.upper
        return known.ordered and bool(one) and bool(known.lower == literal.value)

    def visit_in(self, term: Any, literals: set[Any]) -> bool:
        known = self._known(term)
        one = known.single and known.lower is not None and known.lower == known.upper
        return known.ordered and bool(one) and known.lower in literals

    def visit_not_equal(self, term: Any, literal: Any) -> bool:
        return self._outside(self._known(term), {literal.value})

    def visit_not_in(self, term: Any, literals: set[Any]) -> bool:
        return self._outside(self._known(term), literals)

    @staticmethod
    def _outside(known: _Known, values: set[Any]) -> bool:
        """None of the values is there. NaN is unequal to all of them, null to none."""
        if not known.no_nulls:
            return False
        if known.only_nans:
            return True
        low, high = known.lower, known.upper
        return all((low is not None and v < low) or (high is not None and v > high) for v in values)

    def visit_starts_with(self, term: Any, literal: Any) -> bool:
        return False

    def visit_not_starts_with(self, term: Any, literal: Any) -> bool:
        return False


def _value(kind: Any, bound: bytes | None) -> Any:
    return None if bound is None else from_bytes(kind, bound)


@dataclass(frozen=True, slots=True)
class ArrowFilter:
    """A filter in two parts, both of which a row has to pass; ``None``: all rows do."""

    early: Any
    """For Arrow's scan, which skips row groups by their statistics."""
    late: Any
    """For what was read. Arrow takes a row group's bounds for those of its NaN too, and would skip rows of NaN
    that pass: not even ``x is NaN`` finds them where all other values are one."""


def arrow_filter(
    bound: BooleanExpression, file_schema: Schema, missing: dict[int, Any], *, nans: bool
) -> ArrowFilter:
    """A filter on the table's columns as Arrow expressions on one file's columns.

    ``missing``: the values of columns that the file does not hold, by field id. ``nans``: the file may hold NaN
    in the filter's columns.
    """
    early: list[Any] = []
    late: list[Any] = []
    pending = [bound]
    while pending:
        part = pending.pop()
        if isinstance(part, ex.And):
            pending += [part.right, part.left]
        elif not isinstance(part, ex.AlwaysTrue):
            visitor = _ToArrow(file_schema, missing, nans=nans)
            expression = visit(part, visitor)
            (late if visitor.row_by_row else early).append(expression)
    return ArrowFilter(
        *(functools.reduce(operator.and_, parts) if parts else None for parts in (early, late))
    )


def as_arrow(bound: BooleanExpression, schema: Schema) -> Any:
    """A filter as an Arrow expression on rows in memory, of the table's columns and types."""
    return visit(bound, _ToArrow(schema, {}, nans=True))


class _ToArrow(BoundBooleanExpressionVisitor[Any]):
    def __init__(self, file_schema: Schema, missing: dict[int, Any], *, nans: bool) -> None:
        self._file_schema = file_schema
        self._missing = missing
        self._nans = nans
        self._paths = {f.field_id: path for f, path in _leaves(file_schema.fields, ())}
        self.row_by_row = False
        """Statistics must not be asked: NaN that is there may pass, or Arrow cannot compare its statistics."""

    def _column(self, term: Any) -> tuple[Any, pa.DataType]:
        field = term.ref().field
        wanted = _arrow_type(field.field_type)
        if field.field_id not in self._paths:
            value = self._missing.get(field.field_id, field.initial_default)
            return pc.scalar(pa.scalar(value, wanted)), wanted
        column = pc.field(*self._paths[field.field_id])
        there = self._file_schema.find_field(field.field_id)
        if isinstance(field.field_type, iceberg.UUIDType):
            column, wanted = column.cast(pa.binary(16)), pa.binary(16)
            self.row_by_row = True
        elif field.field_type.is_primitive and there.field_type != field.field_type:
            column = column.cast(wanted)
        return column, wanted

    def _meets_nan(self, kind: pa.DataType) -> None:
        self.row_by_row |= self._nans and pa.types.is_floating(kind)

    def visit_true(self) -> Any:
        return pc.scalar(True)

    def visit_false(self) -> Any:
        return pc.scalar(False)

    def visit_not(self, child_result: Any) -> Any:
        raise AssertionError("a filter that is spelled out has no negations")

    def visit_and(self, left_result: Any, right_result: Any) -> Any:
        return left_result & right_result

    def visit_or(self, left_result: Any, right_result: Any) -> Any:
        return left_result | right_result

    def visit_is_null(self, term: Any) -> Any:
        return self._column(term)[0].is_null()

    def visit_not_null(self, term: Any) -> Any:
        return self._column(term)[0].is_valid()

    def visit_is_nan(self, term: Any) -> Any:
        column, kind = self._column(term)
        self._meets_nan(kind)
        return pc.is_nan(column) if self._nans else pc.scalar(False)

    def visit_not_nan(self, term: Any) -> Any:
        column, _ = self._column(term)
        return column.is_null() | ~pc.is_nan(column)

    def visit_less_than(self, term: Any, literal: Any) -> Any:
        column, kind = self._column(term)
        return column < pa.scalar(literal.value, kind)

    def visit_less_than_or_equal(self, term: Any, literal: Any) -> Any:
        column, kind = self._column(term)
        return column <= pa.scalar(literal.value, kind)

    def visit_greater_than(self, term: Any, literal: Any) -> Any:
        column, kind = self._column(term)
        return column > pa.scalar(literal.value, kind)

    def visit_greater_than_or_equal(self, term: Any, literal: Any) -> Any:
        column, kind = self._column(term)
        return column >= pa.scalar(literal.value, kind)

    def visit_equal(self, term: Any, literal: Any) -> Any:
        column, kind = self._column(term)
        return column == pa.scalar(literal.value, kind)

    def visit_not_equal(self, term: Any, literal: Any) -> Any:
        column, kind = self._column(term)
        self._meets_nan(kind)
        return column != pa.scalar(literal.value, kind)

    def visit_in(self, term: Any, literals: set[Any]) -> Any:
        column, kind = self._column(term)
        return column.isin(_value_set(literals, kind))

    def visit_not_in(self, term: Any, literals: set[Any]) -> Any:
        column, kind = self._column(term)
        self._meets_nan(kind)
        return column.is_valid() & ~column.isin(_value_set(literals, kind))

    def visit_starts_with(self, term: Any, literal: Any) -> Any:
        return pc.starts_with(self._column(term)[0], pattern=literal.value)

    def visit_not_starts_with(self, term: Any, literal: Any) -> Any:
        return ~pc.starts_with(self._column(term)[0], pattern=literal.value)


def _leaves(fields: Any, above: tuple[str, ...]) -> Any:
    for f in fields:
        yield f, (*above, f.name)
        if isinstance(f.field_type, iceberg.StructType):
            yield from _leaves(f.field_type.fields, (*above, f.name))


@functools.lru_cache(maxsize=1024)  # for each column of each filter of each file
def _arrow_type(kind: iceberg.IcebergType) -> pa.DataType:
    field = iceberg.NestedField(1, "x", kind, required=False)
    return schema_to_pyarrow(Schema(field), include_field_ids=False).field(0).type


def _value_set(literals: set[Any], kind: pa.DataType) -> pa.Array:
    values = list(literals)
    if pa.types.is_floating(kind) and any(v == 0 for v in values):
        values += [0.0, -0.0]  # equal, but not to Arrow's look-up
    return pa.array(values, kind)
