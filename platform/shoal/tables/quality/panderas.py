"""Schemas of pandera as rules.

Why it exists: teams that have pandera schemas use them as they are. pandera is asked one partition at a time, as a
pandas frame, on whatever engine: its own backend for Spark does not say which rows fail. What it must not do: import
pandera unless a schema of pandera's was given, or let it change a frame.
"""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from shoal.tables.errors import RuleError
from shoal.tables.types.schemas import check_columns

_NOT_ABOUT_ROWS = "A rule has to say of each row whether it fails."
_AS_STORED = "Values are checked as they are, and coerce= is not applied: name the type that the column has."
_NULLABLE: dict[pa.DataType, Any] = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}
"""What pandas would turn into floats or objects where a null is among them."""


def as_schema(expect: Any) -> Any:
    """The ``DataFrameSchema`` of pandas frames that was given, also as a model; ``None`` for anything else.

    It is a copy without what would change the frame before it is checked, or hide rows that fail; see :func:`_strict`.

    Raises :class:`RuleError` for pandera's schemas of other frames, and for what cannot be said of rows.
    """
    if "pandera" not in sys.modules or not _of_pandera(expect):
        return None
    import pandera.pandas as pandera

    if isinstance(expect, type) and issubclass(expect, pandera.DataFrameModel):
        expect = expect.to_schema()
    if isinstance(expect, pandera.DataFrameSchema):
        return _strict(expect)
    raise RuleError(
        f"expect= is pandera's {type(expect).__module__}.{type(expect).__name__}.",
        hint="Give a DataFrameSchema or DataFrameModel of pandera.pandas: it is used for Dask and Spark, too.",
    )


def _strict(given: Any) -> Any:
    """A copy of a schema that looks at every row as it is: nothing is coerced, filled in, parsed, dropped or left out.

    Raises :class:`RuleError`.
    """
    schema = copy.deepcopy(given)
    if schema.index is not None:
        raise RuleError(
            "The schema has index=, and a frame's unnamed index is not stored: its labels say nothing of the rows.",
            hint="Leave index= out. A named index level becomes a column: give a Column of its name.",
        )
    schema.coerce = False
    if schema.strict == "filter":
        schema.strict = False
    for part in (schema, *schema.columns.values()):
        part.parsers, part.drop_invalid_rows = [], False
    for column in schema.columns.values():
        column.coerce, column.default = False, None
    for where, check in _checks(schema):
        if check.raise_warning:
            raise RuleError(
                f"The check {_said(check)!r} of {where} has raise_warning=True: rows that break it would be written.",
                hint="Leave it out, or write with on_failure='warn'.",
            )
        if check.groupby is not None:
            raise RuleError(
                f"The check {_said(check)!r} of {where} has groupby=, which judges groups.",
                hint=_NOT_ABOUT_ROWS,
            )
        check.n_failure_cases = None
    return schema


def _checks(schema: Any) -> Iterator[tuple[str, Any]]:
    yield from (("the frame", check) for check in schema.checks)
    for name, column in schema.columns.items():
        yield from ((repr(name), check) for check in column.checks)


def _of_pandera(given: Any) -> bool:
    kinds = given.__mro__ if isinstance(given, type) else type(given).__mro__
    return any(kind.__module__.split(".")[0] == "pandera" for kind in kinds)


def names(schema: Any) -> tuple[str, ...]:
    """The rules of a schema: one for each of its columns' types and checks, and for each check of whole rows."""
    found = []
    for name, column in schema.columns.items():
        if column.dtype is not None:
            found.append(f"{name}: dtype('{column.dtype}')")
        if not column.nullable:
            found.append(f"{name}: not_nullable")
        if column.unique:
            found.append(f"{name}: field_uniqueness")
        found += [f"{name}: {_said(check)}" for check in column.checks]
    return tuple(dict.fromkeys([*found, *(_said(check) for check in schema.checks)]))


def _said(check: Any) -> str:
    return str(check.error or check.name or "check")


def check(schema: Any, columns: Sequence[str], where: str, parts: int) -> None:
    """Raise :class:`ColumnNotFoundError` or :class:`RuleError` for what cannot be checked partition by partition."""
    wanted = [str(n) for n, column in schema.columns.items() if column.required and not column.regex]
    check_columns(wanted, columns, f"{where}, and the schema needs it")
    whole = [str(name) for name, column in schema.columns.items() if column.unique]
    whole += [str(name) for name in schema.unique or ()]
    if whole and parts > 1:
        raise RuleError(
            f"Whether {', '.join(map(repr, whole))} is unique cannot be told: the frame has {parts} partitions, "
            "and rules are checked in each by itself.",
            hint='Take unique= out of the schema. mode="upsert" with keys= refuses keys that are there twice.',
        )


def as_pandas(schema: Any, table: pa.Table) -> pd.DataFrame:
    """A table as pandas has it, each value as it is: integers with a null among them stay integers.

    A column has the nullable type of pandas where the schema asks for it, or where there is a null.
    """
    found = {}
    for name in table.column_names:
        column, wanted = table.column(name), _wanted(schema, name)
        exact = _NULLABLE.get(column.type)
        text = isinstance(wanted, pd.StringDtype) and _is_text(column.type)
        if text or isinstance(wanted, pd.ArrowDtype):
            kind = wanted
        else:
            kind = exact if exact is not None and (column.null_count or wanted == exact) else None
        found[name] = column.to_pandas(types_mapper=None if kind is None else lambda _, kind=kind: kind)
    return pd.DataFrame(found, index=pd.RangeIndex(table.num_rows))


def _wanted(schema: Any, name: str) -> Any:
    for known, column in schema.columns.items():
        if known == name or (column.regex and re.match(str(known), name)):
            dtype = column.dtype or schema.dtype
            return getattr(dtype, "type", None)
    return getattr(schema.dtype, "type", None)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def masks(schema: Any, frame: pd.DataFrame, where: str) -> dict[str, np.ndarray[Any, Any]]:
    """Rule -> which rows fail it, for the rules that some rows fail.

    Raises :class:`RuleError` for a rule that fails, and not for rows: a check of a whole column's mean, or one that
    raised an error of its own.
    """
    from pandera.config import ValidationDepth, config_context
    from pandera.errors import SchemaError, SchemaErrors

    plain = frame.reset_index(drop=True)
    try:
        # Whatever the environment says: a gate that checks nothing would be passed by every row.
        every = config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA)
        with warnings.catch_warnings(), every:
            warnings.simplefilter("ignore", FutureWarning)  # pandera's own use of pandas
            schema.validate(plain, lazy=True, inplace=False)
    except SchemaErrors as errors:
        cases = errors.failure_cases
    except SchemaError as error:
        raise RuleError(f"pandera could not check {where}: {error}", hint=_NOT_ABOUT_ROWS) from error
    else:
        return {}
    found: dict[str, np.ndarray[Any, Any]] = {}
    for case in cases.itertuples(index=False):
        column = f"{case.column}: " if case.schema_context == "Column" else ""
        name = f"{column}{case.check}"
        if not isinstance(case.index, (int, np.integer)):
            raise RuleError(
                f"The rule {name!r} failed for {where}, and not for single rows of it: {case.failure_case}.",
                hint=_AS_STORED if str(case.check).startswith("dtype(") else _NOT_ABOUT_ROWS,
                rule=name,
            )
        found.setdefault(name, np.zeros(len(plain), dtype=bool))[case.index] = True
    return found
