"""A partition's data in the table's types, or an error that names the column, the row and the value.

Why it exists: "ArrowInvalid: Integer value 3000000000 not in range" in a log of a hundred workers helps
nobody. What it must not do: change a value's meaning to make it fit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg import types as iceberg
from pyiceberg.schema import Schema

from shoal.tables.errors import SchemaMismatchError, TypeNotSupportedError, ValueNotRepresentableError
from shoal.tables.pyiceberg_private import schema_to_pyarrow
from shoal.tables.types import uuids
from shoal.tables.types.dtypes import storable


def fit(
    frame: pd.DataFrame | pa.Table, schema: Schema, table: str, number: int, expected: Sequence[str] = ()
) -> pa.Table:
    """The frame as Arrow with exactly the table's columns and types. Missing optional ones are null.

    ``expected``: columns that the whole frame has, so that each of its partitions has to have them.
    """
    target = schema_to_pyarrow(schema, include_field_ids=False)
    names = list(frame.columns) if isinstance(frame, pd.DataFrame) else frame.column_names
    extra = [name for name in names if name not in target.names]
    if extra:
        raise SchemaMismatchError(
            f"Partition {number} of the frame has columns that the table {table} does not have: {extra}.",
            hint="Its partitions differ from its meta: does a function in map_partitions add columns?",
        )
    lacking = [name for name in expected if name not in names]
    if lacking:
        raise SchemaMismatchError(
            f"Partition {number} of the frame written to {table} lacks columns that its meta has: {lacking}.",
            hint="Its partitions differ from its meta: does a function in map_partitions drop columns?",
            differences=[(name, "missing", f"partition {number} does not have it") for name in lacking],
        )
    arrays = []
    for wanted, column in zip(target, schema.fields, strict=True):
        if wanted.name not in names:
            array: Any = pa.nulls(len(frame), wanted.type)
        elif isinstance(frame, pa.Table):
            array = _cast(frame.column(wanted.name), wanted.type, column.field_type, wanted.name, number)
        else:
            array = _from_pandas(frame[wanted.name], wanted.type, column.field_type, number)
        _check_years(array, wanted.name, number)
        if column.required and array.null_count:
            row = pc.index(pc.is_null(array), True).as_py()
            raise _misfit(
                wanted.name, number, row, None, f"the column must not be null ({column.field_type})"
            )
        arrays.append(array)
    return pa.table(arrays, schema=pa.schema([f.remove_metadata() for f in target]))


def _from_pandas(series: pd.Series[Any], wanted: pa.DataType, kind: iceberg.IcebergType, number: int) -> Any:
    name = str(series.name)
    try:
        if series.dtype == object and not _extension(wanted):
            # Python objects say nothing of their type; the table does.
            raw: Any = pa.array(series, from_pandas=True)
        else:
            raw = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        row = _first_bad(len(series), lambda a, b: pa.array(series.iloc[a:b], from_pandas=True))
        raise _misfit(name, number, row, series.iloc[row], str(error)) from error
    return _cast(raw, wanted, kind, name, number)


def _extension(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType)


def _cast(array: Any, wanted: pa.DataType, kind: iceberg.IcebergType, name: str, number: int) -> Any:
    if array.type == wanted:
        return array
    if not storable(array.type, kind) and not _drifted(array.type, kind):
        raise SchemaMismatchError(
            f"Partition {number} of the frame has {array.type} in {name!r}, where the table has {kind}.",
            hint="Its meta says otherwise: does every partition make this column alike?",
            differences=[(name, "type", f"the table has {kind}, the partition {array.type}")],
        )
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    try:
        return _converted(array, wanted)
    except pa.ArrowNotImplementedError as error:
        raise TypeNotSupportedError(
            f"The column {name!r} ({array.type}) cannot be stored as {kind}: {error}", column=name
        ) from error
    except pa.ArrowInvalid as error:
        row = _first_bad(len(array), lambda a, b: _converted(array.slice(a, b - a), wanted))
        raise _misfit(
            name, number, row, array[row].as_py() if row is not None else None, str(error)
        ) from error


def _converted(array: Any, wanted: pa.DataType) -> Any:
    if not _extension(wanted):
        return array.cast(_on_the_way(array.type, wanted), safe=True).cast(wanted, safe=True)
    if wanted == pa.uuid() and storable(array.type, iceberg.StringType()):
        text = array.cast(pa.large_string())
        return uuids.from_text(text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text)
    return array.cast(wanted.storage_type).cast(wanted)


def _on_the_way(arrow: pa.DataType, wanted: pa.DataType) -> pa.DataType:
    """The type by way of which Arrow looks at values: an integer becomes a decimal of any size by its value only as a
    decimal of all its digits, also inside of structs, lists and maps."""
    t = pa.types
    if t.is_decimal(wanted) and t.is_integer(arrow):
        return pa.decimal128(20, 0)
    if t.is_struct(wanted) and t.is_struct(arrow):
        have = {arrow.field(i).name: arrow.field(i).type for i in range(arrow.num_fields)}
        kept = [wanted.field(i) for i in range(wanted.num_fields)]
        return pa.struct([f.with_type(_on_the_way(have.get(f.name, f.type), f.type)) for f in kept])
    if t.is_large_list(wanted) and (
        t.is_list(arrow) or t.is_large_list(arrow) or t.is_fixed_size_list(arrow)
    ):
        value = _on_the_way(arrow.value_type, wanted.value_type)
        return pa.large_list(wanted.value_field.with_type(value))
    if t.is_map(wanted) and t.is_map(arrow):
        key, item = (
            _on_the_way(arrow.key_type, wanted.key_type),
            _on_the_way(arrow.item_type, wanted.item_type),
        )
        return pa.map_(wanted.key_field.with_type(key), wanted.item_field.with_type(item))
    return wanted


_YEARS = {
    "date": ((dt.date.min - dt.date(1970, 1, 1)).days, (dt.date.max - dt.date(1970, 1, 1)).days),
    "us": (-62_135_596_800_000_000, 253_402_300_799_999_999),
}
"""Days, and microseconds, from 1970 to the first and the last of the years that Python's own dates have."""


def _check_years(array: Any, name: str, number: int) -> None:
    """Refuse years outside 1 to 9999, in which neither Python nor SQL's dates are."""
    if pa.types.is_date32(array.type):
        (least, most), whole = _YEARS["date"], pa.int32()
    elif pa.types.is_timestamp(array.type) and array.type.unit == "us":
        (least, most), whole = _YEARS["us"], pa.int64()
    else:
        return
    numbers = array.cast(whole)
    found = pc.min_max(numbers).as_py()
    if found["min"] is None or (least <= found["min"] and found["max"] <= most):
        return
    outside = pc.or_(pc.less(numbers, least), pc.greater(numbers, most))
    row = pc.index(pc.fill_null(outside, False), True).as_py()
    unit = "days" if whole == pa.int32() else "microseconds"
    value = f"{numbers[row].as_py()} {unit} from 1970"
    raise _misfit(name, number, row, value, "its year is outside 1 to 9999")


def _drifted(arrow: pa.DataType, kind: iceberg.IcebergType) -> bool:
    """pandas turns integers into floats where a null appears; the values are still whole numbers."""
    whole = isinstance(kind, (iceberg.IntegerType, iceberg.LongType))
    return bool(pa.types.is_float64(arrow) and whole)


def _first_bad(rows: int, convert: Callable[[int, int], Any]) -> int:
    """The first row that makes ``convert`` fail, by halving: some 20 conversions for a million rows."""
    low, high = 0, rows
    while high - low > 1:
        middle = (low + high) // 2
        try:
            convert(low, middle)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            high = middle
        else:
            low = middle
    return low


def _misfit(name: str, number: int, row: int, value: Any, reason: str) -> ValueNotRepresentableError:
    return ValueNotRepresentableError(
        f"The column {name!r} holds a value that its type cannot: {value!r}, "
        f"in row {row} of partition {number} ({reason.splitlines()[0]}).",
        hint="Correct the value, or give the column a wider type.",
        column=name,
        row=row,
        partition=number,
        value=value,
    )
