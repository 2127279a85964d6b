"""How a frame's columns and a table's columns differ, and what would make them alike.

Why it exists: a write that does not fit is refused before anything is written, with every difference at
once. What it must not do: touch the catalog or data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import pyarrow as pa
from pyiceberg import types as iceberg
from pyiceberg.schema import Schema

from shoal.errors import UsageError
from shoal.tables.errors import ColumnNotFoundError, SchemaMismatchError, TypeNotSupportedError
from shoal.tables.pyiceberg_private import iceberg_type
from shoal.tables.types.dtypes import for_iceberg, storable, widened


@dataclass(frozen=True)
class Difference:
    """One column in which a frame and a table differ."""

    column: str
    """Of a field inside of a column: its path, as ``trip.gate``, ``stops.element.gate``, ``by_day.value.gate``."""
    kind: str
    """``"missing"`` (only the table has it), ``"new"`` (only the frame has it), ``"type"``."""
    detail: str
    evolves: bool
    """``evolve=True`` can make it right: a new column, a wider type, a missing column that may be null."""
    path: tuple[str, ...] = ()
    """The path, where the table is to be changed there."""
    arrow: pa.DataType | None = None
    """What the frame has there."""


def frame_schema(meta: pd.DataFrame) -> pa.Schema:
    """The Arrow types of a Dask frame's columns, by its (empty) meta frame.

    Raises :class:`TypeNotSupportedError` for columns whose type says nothing (``object``) or that Iceberg
    does not have.
    """
    unknown, fields = [], []
    for name in meta.columns:
        if not isinstance(name, str):
            raise UsageError(
                f"Column names have to be text, and {name!r} is {type(name).__name__}.",
                hint="Rename it: df.columns = [str(name) for name in df.columns]",
            )
        series: Any = meta[name]
        if isinstance(series, pd.DataFrame):
            raise UsageError(f"The column {name!r} appears more than once.")
        dtype = series.dtype
        if pd.api.types.is_object_dtype(dtype):
            unknown.append(name)
            continue
        try:
            fields.append(pa.field(name, _arrow_of(dtype)))
        except (pa.ArrowException, TypeError, NotImplementedError) as error:
            raise TypeNotSupportedError(
                f"The column {name!r} has the type {dtype}, which a table cannot store.", column=name
            ) from error
    if unknown:
        raise TypeNotSupportedError(
            f"The type of {', '.join(map(repr, unknown))} is 'object', which could be anything.",
            hint='Say what it is, for example df.astype({"price": pd.ArrowDtype(pa.decimal128(12, 2))}); with '
            'dtype_backend="pyarrow", dd.read_parquet keeps the types of structs and lists.',
            columns=unknown,
        )
    return pa.schema(fields)


def _arrow_of(dtype: Any) -> pa.DataType:
    if isinstance(dtype, pd.ArrowDtype):
        return dtype.pyarrow_dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _arrow_of(dtype.categories.dtype) if dtype.categories.dtype != object else pa.large_string()
    if isinstance(dtype, pd.StringDtype):
        return pa.large_string()
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pa.timestamp(dtype.unit, tz=str(dtype.tz))
    return pa.array(pd.Series([], dtype=dtype), from_pandas=True).type


def new_table_schema(frame: pa.Schema) -> pa.Schema:
    """The columns of a table made for a frame. Raises :class:`TypeNotSupportedError` naming every column
    whose type Iceberg does not have."""
    stored = [(f, for_iceberg(f.type)) for f in frame]
    empty = [f.name for f in frame if pa.types.is_null(f.type)]
    if empty:
        raise TypeNotSupportedError(
            f"All values of {', '.join(map(repr, empty))} are null, so the type of the column is not known.",
            hint=f"Give it one, for example df.astype({{{empty[0]!r}: 'string[pyarrow]'}}).",
            columns=empty,
        )
    refused = {f.name: str(f.type) for f, kind in stored if kind is None}
    if refused:
        raise TypeNotSupportedError(
            "Iceberg has no type for "
            + ", ".join(f"{name} ({kind})" for name, kind in refused.items())
            + ".",
            hint="Convert such columns first; a duration, for example, to seconds: df.d.dt.total_seconds().",
            columns=refused,
        )
    if not stored:
        raise UsageError("The frame has no columns, so there is nothing to make a table of.")
    return pa.schema([pa.field(f.name, kind, nullable=f.nullable) for f, kind in stored])


def differences(frame: pa.Schema, table: Schema, *, widen: bool = False) -> list[Difference]:
    """Every column in which the frame cannot be stored in the table as it is. Order does not matter.

    ``widen``: a frame's wider type counts too, also where its values might fit.
    """
    have = {f.name: f.type for f in frame}
    found = []
    for column in table.fields:
        if column.name not in have:
            need = "which must not be null" if column.required else "and the frame does not have it"
            found.append(
                Difference(
                    column.name, "missing", f"{column.field_type}, {need}", evolves=not column.required
                )
            )
            continue
        found += _within((column.name,), column.field_type, have[column.name], widen=widen)
    known = {column.name for column in table.fields}
    return found + [_new((name,), kind, [*known, *have]) for name, kind in have.items() if name not in known]


def _within(
    path: tuple[str, ...], kind: iceberg.IcebergType, arrow: pa.DataType, *, widen: bool
) -> list[Difference]:
    """Where what a frame has at a path cannot be stored in what the table has there, field by field."""
    t = pa.types
    match kind:
        case iceberg.StructType(fields=fields) if t.is_struct(arrow):
            have = {arrow.field(i).name: arrow.field(i).type for i in range(arrow.num_fields)}
            known = [f.name for f in fields]
            found = []
            for f in fields:
                if f.name in have:
                    found += _within((*path, f.name), f.field_type, have[f.name], widen=widen)
                elif f.required:
                    detail = f"{f.field_type}, which must not be null"
                    found.append(Difference(".".join((*path, f.name)), "missing", detail, evolves=False))
            return found + [
                _new((*path, name), kind, [*known, *have]) for name, kind in have.items() if name not in known
            ]
        case iceberg.ListType() if t.is_list(arrow) or t.is_large_list(arrow) or t.is_fixed_size_list(arrow):
            return _within((*path, "element"), kind.element_type, arrow.value_type, widen=widen)
        case iceberg.MapType() if t.is_map(arrow):
            keys = _within((*path, "key"), kind.key_type, arrow.key_type, widen=widen)
            return [
                *(replace(d, detail=f"{d.detail}; keys of maps never change", evolves=False) for d in keys),
                *_within((*path, "value"), kind.value_type, arrow.item_type, widen=widen),
            ]
    wider = widened(kind, arrow)
    if storable(arrow, kind) and not (widen and wider is not None):
        return []
    detail = f"the table has {kind}, the frame {arrow}"
    return [Difference(".".join(path), "type", detail, wider is not None, path, arrow)]


def _new(path: tuple[str, ...], kind: pa.DataType, others: Sequence[str]) -> Difference:
    """A column, or a field of one, that only the frame has."""
    name, shown = path[-1], ".".join(path)
    alike = next((other for other in others if other != name and other.lower() == name.lower()), None)
    if alike is not None:
        detail = f"{kind}, and {alike!r} differs from it by case alone, which Spark does not tell apart"
        return Difference(shown, "new", detail, evolves=False)
    stored = for_iceberg(kind)
    if stored is not None and (pair := alike_by_case(iceberg_type(stored))) is not None:
        inside = f"{kind}, whose fields {pair[0]!r} and {pair[1]!r} differ by case alone"
        return Difference(shown, "new", f"{inside}, which Spark does not tell apart", evolves=False)
    return Difference(shown, "new", f"{kind}, and the table does not have it", stored is not None, path, kind)


def alike_by_case(kind: iceberg.IcebergType) -> tuple[str, str] | None:
    """Two fields side by side, by their paths, whose names differ by case alone; ``None`` if there are none."""
    match kind:
        case iceberg.StructType(fields=fields):
            seen: dict[str, str] = {}
            for column in fields:
                before = seen.setdefault(column.name.lower(), column.name)
                if before != column.name:
                    return before, column.name
                if (inside := alike_by_case(column.field_type)) is not None:
                    return f"{column.name}.{inside[0]}", f"{column.name}.{inside[1]}"
        case iceberg.ListType():
            return alike_by_case(kind.element_type)
        case iceberg.MapType():
            return alike_by_case(kind.key_type) or alike_by_case(kind.value_type)
    return None


def refuse_alike_by_case(schema: Schema, table: str) -> None:
    """Raise :class:`UsageError` for a new table that Spark could not read: to it ``id`` and ``ID`` are one name."""
    pair = alike_by_case(schema.as_struct())
    if pair is not None:
        one, other = pair
        rename = (
            f"Rename one: df.rename(columns={{{other!r}: {other + '_2'!r}}})"
            if "." not in other
            else "Rename one of the fields."
        )
        raise UsageError(
            f"The columns {one!r} and {other!r} of the new table {table} differ by case alone. Spark does not "
            "tell them apart, and could not read the table.",
            hint=rename,
            columns=[one, other],
        )


def check(name: str, frame: pa.Schema, table: Schema, *, evolve: bool) -> list[Difference]:
    """Raise :class:`SchemaMismatchError` unless the frame fits the table, or would after evolving it."""
    found = differences(frame, table, widen=evolve)
    wrong = [d for d in found if not (evolve and d.evolves)]
    if wrong:
        lines = "\n".join(f"  {d.column}: {d.kind}: {d.detail}" for d in wrong)
        curable = not evolve and all(d.evolves for d in wrong)
        raise SchemaMismatchError(
            f"The frame does not fit the table {name}:\n{lines}",
            hint="evolve=True changes the table so that it fits (and fills missing columns with nulls)."
            if curable
            else _renaming(wrong, table)
            or _to_whole_numbers(wrong, table)
            or "Change the frame's columns, or write to another table.",
            differences=[(d.column, d.kind, d.detail) for d in wrong],
        )
    return found


def _renaming(wrong: Sequence[Difference], table: Schema) -> str:
    """How the frame gets the table's spelling, if all that is wrong is upper and lower case."""
    spelled = {column.name.lower(): column.name for column in table.fields}
    names = {d.column: spelled.get(d.column.lower()) for d in wrong if d.kind == "new"}
    missing = {d.column for d in wrong if d.kind == "missing"}
    if not names or None in names.values() or not missing <= set(names.values()):
        return ""
    if any(d.kind == "type" for d in wrong):
        return ""
    return f"df.rename(columns={names!r}) spells them as the table does."


def _to_whole_numbers(wrong: Sequence[Difference], table: Schema) -> str:
    """How whole numbers that pandas made floats, for want of a value, become whole again."""
    whole = (iceberg.IntegerType, iceberg.LongType)
    for d in wrong:
        if not (
            d.kind == "type" and len(d.path) == 1 and d.arrow is not None and pa.types.is_floating(d.arrow)
        ):
            return ""
        if not isinstance(table.find_type(d.column), whole):
            return ""
    return f"Whole numbers with gaps among them: df.astype({dict.fromkeys((d.column for d in wrong), 'Int64')!r})."


def check_columns(names: Sequence[str], known: Sequence[str], what: str) -> None:
    """Raise :class:`ColumnNotFoundError` if one of the names is not known, with the ones that are like it."""
    import difflib

    for name in names:
        if name not in known:
            similar = difflib.get_close_matches(str(name), list(known), n=2)
            raise ColumnNotFoundError(
                f"There is no column {name!r} in {what}.",
                hint=f"Did you mean {' or '.join(map(repr, similar))}?"
                if similar
                else f"It has: {', '.join(known)}",
                column=name,
                similar=similar,
            )
