"""The one module that touches Dask's private expressions.

Why it exists: with an expression of our own, the columns, comparisons and ``len()`` that people write in
ordinary Dask reach the scan. Dask's expressions are private and change; where they do not fit any more,
``source.frame_of`` gives the same frame through Dask's public ``from_map``, only without push-down. What it
must not do: decide what a value means (``filters.exact_literal`` does), or push anything whose result could
differ from pandas': no ``!=``, no negation, for in those a null is true for one and false for the other.

Written against Dask 2026.8.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import dask.dataframe as dd
from dask._task_spec import DataNode, Task
from dask.dataframe.dask_expr._expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    And,
    Filter,
    Index,
    Isin,
    Lengths,
    Literal,
    NotNull,
    Or,
    PartitionsFiltered,
    Projection,
    _DelayedExpr,
)
from dask.dataframe.dask_expr._reductions import Len
from dask.dataframe.dask_expr.io.io import BlockwiseIO
from pyiceberg import expressions as iceberg

from shoal.tables.pyiceberg_private import BooleanExpression
from shoal.tables.reading.filters import exact_literal
from shoal.tables.reading.scan import read_partition
from shoal.tables.reading.source import Source

_new: Any = iceberg
_COMPARISONS: dict[type, tuple[str, str]] = {
    # Dask's class -> Iceberg's class, and the one for "value <op> column".
    EQ: ("EqualTo", "EqualTo"),
    LT: ("LessThan", "GreaterThan"),
    LE: ("LessThanOrEqual", "GreaterThanOrEqual"),
    GT: ("GreaterThan", "LessThan"),
    GE: ("GreaterThanOrEqual", "LessThanOrEqual"),
}
MOST_VALUES = 1000
"""``isin`` with more values than this is left to Dask: evaluating it per file costs more than it saves."""


class ReadIceberg(PartitionsFiltered, BlockwiseIO):  # type: ignore[misc] # Dask's classes have no types
    """The read of an Iceberg table, as a leaf of a Dask expression."""

    _parameters = ["source", "columns", "row_filter", "_partitions"]  # noqa: RUF012 - Dask's own convention
    _defaults = {"columns": None, "_partitions": None}  # noqa: RUF012 - as above
    _absorb_projections = True
    _filter_passthrough = True

    @functools.cached_property
    def _name(self) -> str:
        return f"read-iceberg-{self.deterministic_token}"

    @property
    def columns(self) -> list[Any]:
        given = self.operand("columns")
        return list(self.source.meta.columns) if given is None else list(given)

    @functools.cached_property
    def _meta(self) -> Any:
        return self.source.meta[self.columns]

    @property
    def _plan(self) -> Any:
        return self.source.plan(self.row_filter)[0]

    def __reduce__(self) -> Any:
        # It goes to the scheduler, which makes the tasks and cannot plan. Dask may have optimised without
        # asking for the partitions (a lone reduction does), so the plan is made here at the latest.
        if self.source.metadata is not None:
            _ = self._plan
        return super().__reduce__()

    def _divisions(self) -> tuple[None, ...]:
        return (None,) * (max(1, len(self._plan.partitions)) + 1)

    def _filtered_task(self, name: Any, index: int) -> Task:
        partitions = self._plan.partitions
        return Task(
            name,
            read_partition,
            partitions[index] if partitions else (),
            self.source.context_for(self.row_filter),
            self.columns,
            _data_producer=True,
        )

    def _tree_repr_argument_construction(self, i: int, op: Any, header: str) -> str:
        if self._parameters[i] == "source":
            return f"{header} {op!r}"
        return str(super()._tree_repr_argument_construction(i, op, header))

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        if isinstance(parent, Projection):
            return super()._simplify_up(parent, dependents)
        if isinstance(parent, Index) and self.columns:
            # The index is made of row counts, which need no column.
            return RowIndex(self.substitute_parameters({"columns": []}))
        if isinstance(parent, Filter) and self._filter_passthrough_available(parent, dependents):
            return self._push(parent)
        if isinstance(parent, Lengths) and (lengths := self._plan.lengths) is not None:
            return Literal(tuple((lengths or (0,))[i] for i in self._partitions))
        if isinstance(parent, Len):
            return self._length()
        return None

    def _length(self) -> Any:
        if not self._filtered:
            length = self.source.length(self.row_filter)
            return None if length is None else Literal(length)
        lengths = self._plan.lengths
        return None if lengths is None else Literal(sum((lengths or (0,))[i] for i in self._partitions))

    def narrowed(self, row_filter: BooleanExpression) -> ReadIceberg:
        """The same read of only those rows that pass a further filter."""
        both = iceberg.And(self.row_filter, row_filter)
        narrowed: ReadIceberg = self.substitute_parameters({"row_filter": both})
        return narrowed

    def _push(self, parent: Any) -> Any:
        if parent.frame._name != self._name or self._filtered:
            # A choice of partitions was made of this plan; another filter makes another plan.
            return None
        pushed, left = _split(parent.predicate, self)
        if pushed is None:
            return None
        narrowed = self.narrowed(pushed)
        return narrowed if left is None else Filter(narrowed, left.substitute(self, narrowed))


class RowIndex(Index):  # type: ignore[misc] # Dask's classes have no types
    """The index of a read: made of row counts alone, and where only its length matters, of none."""

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        read = self.frame
        if isinstance(read, ReadIceberg):
            if isinstance(parent, Len):
                return read._length()
            # Dask turns len(df[predicate]) into len(df.index[predicate]).
            if isinstance(parent, Filter) and parent.frame._name == self._name and not read._filtered:
                above = [ref() for ref in dependents[parent._name]]
                pushed = _convert(parent.predicate, read)
                if pushed is not None and all(isinstance(e, Len) for e in above if e is not None):
                    return RowIndex(read.narrowed(pushed))
        return super()._simplify_up(parent, dependents)


def _same_rows(node: Any, read: ReadIceberg) -> bool:
    """Whether a node is the same read, but perhaps of other columns."""
    return isinstance(node, ReadIceberg) and (
        node.source is read.source
        and node.row_filter == read.row_filter
        and node.operand("_partitions") == read.operand("_partitions")
    )


def _split(predicate: Any, read: ReadIceberg) -> tuple[BooleanExpression | None, Any]:
    """What of a predicate the scan can do exactly, and what is left to Dask (``None``: nothing)."""
    whole = _convert(predicate, read)
    if whole is not None:
        return whole, None
    if isinstance(predicate, And):
        left, left_rest = _split(predicate.left, read)
        right, right_rest = _split(predicate.right, read)
        if left is None and right is None:
            return None, predicate
        pushed = right if left is None else left if right is None else iceberg.And(left, right)
        rest = (
            left_rest
            if right_rest is None
            else right_rest
            if left_rest is None
            else And(left_rest, right_rest)
        )
        return pushed, rest
    return None, predicate


def _convert(predicate: Any, read: ReadIceberg) -> BooleanExpression | None:
    """A Dask predicate as an Iceberg expression that keeps exactly the same rows, or ``None``."""
    if isinstance(predicate, (And, Or)):
        left, right = _convert(predicate.left, read), _convert(predicate.right, read)
        if left is None or right is None:
            return None
        return iceberg.And(left, right) if isinstance(predicate, And) else iceberg.Or(left, right)
    if type(predicate) in _COMPARISONS:
        straight, flipped = _COMPARISONS[type(predicate)]
        for column, value, kind in (
            (predicate.left, predicate.right, straight),
            (predicate.right, predicate.left, flipped),
        ):
            name = _column(column, read)
            if name is not None:
                literal = _literal(name, value, read)
                return None if literal is None else getattr(_new, kind)(name, literal)
        return None
    if isinstance(predicate, Isin):
        name, values = _column(predicate.frame, read), _constants(predicate.operand("values"))
        if name is None or values is None or not 0 < len(values) <= MOST_VALUES:
            return None
        literals = [_literal(name, value, read) for value in values]
        if 0.0 in literals and read.source.is_floating(name):
            return None  # pandas tells 0.0 from -0.0 here, and nobody else does
        return None if any(v is None for v in literals) else _new.In(name, literals)
    if isinstance(predicate, NotNull):
        name = _column(predicate.frame, read)
        # pandas counts a float's NaN as null, Iceberg does not.
        if name is not None and not read.source.is_floating(name):
            return _new.NotNull(name)  # type: ignore[no-any-return] # _new is Any
    return None


def _column(node: Any, read: ReadIceberg) -> str | None:
    if isinstance(node, Projection) and node.ndim == 1 and _same_rows(node.frame, read):
        name = node.operand("columns")
        return name if isinstance(name, str) else None
    return None


def _literal(name: str, value: Any, read: ReadIceberg) -> Any:
    return None if hasattr(value, "_meta") else exact_literal(value, read.source.field_type(name))


def _constants(values: Any) -> Sequence[Any] | None:
    """The values of an ``isin``; Dask wraps them in a delayed constant."""
    if isinstance(values, _DelayedExpr):
        delayed = values.operand("obj")
        node = delayed.dask.get(delayed.key)
        values = node.value if isinstance(node, DataNode) else node
    if isinstance(values, (list, tuple, set, frozenset)):
        return list(values)
    tolist = getattr(values, "tolist", None)
    return tolist() if callable(tolist) and getattr(values, "ndim", 0) == 1 else None


class TableFrame(dd.DataFrame):  # type: ignore[misc] # Dask's classes have no types
    """A Dask frame whose rows are counted here, where the metadata is; Dask would ask the scheduler."""

    def __len__(self) -> int:
        read = self.expr
        length = read._length() if isinstance(read, ReadIceberg) else None
        return int(length.operand("value")) if length is not None else int(super().__len__())


def frame_of(source: Source, columns: Sequence[str] | None) -> dd.DataFrame:
    """The read as a Dask frame that takes part in Dask's own optimisation."""
    wanted = list(columns) if columns is not None else None
    return TableFrame(ReadIceberg(source, wanted, source.context.row_filter))
