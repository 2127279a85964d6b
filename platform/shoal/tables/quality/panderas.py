"""Schemas of pandera as rules.

Why it exists: teams that have pandera schemas use them as they are. pandera is asked one partition at a time, as a
pandas frame, on whatever engine: its own backend for Spark does not say which rows fail. What it must not do: import
pandera unless a schema of pandera's was given, or let it change a frame.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from shoal.tables.errors import RuleError
from shoal.tables.types.schemas import check_columns

_NOT_ABOUT_ROWS = "A rule has to say of each row whether it fails."


def as_schema(expect: Any) -> Any:
    """The ``DataFrameSchema`` of pandas frames that was given, also as a model; ``None`` for anything else.

    Raises :class:`RuleError` for pandera's schemas of other frames.
    """
    if "pandera" not in sys.modules or not _of_pandera(expect):
        return None
    import pandera.pandas as pandera

    if isinstance(expect, type) and issubclass(expect, pandera.DataFrameModel):
        expect = expect.to_schema()
    if isinstance(expect, pandera.DataFrameSchema):
        return expect
    raise RuleError(
        f"expect= is pandera's {type(expect).__module__}.{type(expect).__name__}.",
        hint="Give a DataFrameSchema or DataFrameModel of pandera.pandas: it is used for Dask and Spark, too.",
    )


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


def masks(schema: Any, frame: pd.DataFrame, where: str) -> dict[str, np.ndarray[Any, Any]]:
    """Rule -> which rows fail it, for the rules that some rows fail.

    Raises :class:`RuleError` for a rule that fails, and not for rows: a check of a whole column's mean, or one that
    raised an error of its own.
    """
    from pandera.errors import SchemaError, SchemaErrors

    plain = frame.reset_index(drop=True)
    try:
        with warnings.catch_warnings():
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
                hint=_NOT_ABOUT_ROWS,
                rule=name,
            )
        found.setdefault(name, np.zeros(len(plain), dtype=bool))[case.index] = True
    return found
