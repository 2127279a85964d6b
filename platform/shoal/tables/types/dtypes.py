"""pandas and Arrow types <-> Iceberg types.

Why it exists: a column must have one type in every partition, with nulls or without, and in both engines.
NumPy's integers turn into floats where a null appears, so columns are Arrow-backed. What it must not do:
look at data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from pyiceberg import types as iceberg

from shoal.errors import UsageError
from shoal.tables.types import uuids

Backend = Literal["pyarrow", "numpy_nullable"]

STRING = pd.StringDtype("pyarrow")
"""Dask's own type for text, so that such columns join and compare with those of any other Dask frame."""

_NULLABLE: dict[pa.DataType, Any] = {
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.float32(): pd.Float32Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


def types_mapper(backend: Backend) -> Callable[[pa.DataType], Any]:
    """For ``pyarrow.Table.to_pandas``: which pandas type an Arrow type becomes.

    ``"pyarrow"``: Arrow-backed, text as Dask's string type. ``"numpy_nullable"``: pandas' masked integers,
    floats and booleans (``Int64``, ...), all else as above.
    """
    if backend not in ("pyarrow", "numpy_nullable"):
        raise UsageError(
            f"dtype_backend={backend!r} is not known.",
            hint='Use "pyarrow" (the default) or "numpy_nullable".',
        )

    def pandas_type(arrow: pa.DataType) -> Any:
        if pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
            return STRING
        if backend == "numpy_nullable" and arrow in _NULLABLE:
            return _NULLABLE[arrow]
        return pd.ArrowDtype(arrow)

    return pandas_type


def to_pandas(table: pa.Table, backend: Backend) -> pd.DataFrame:
    """An Arrow table as a frame with the types above, UUIDs as text; the table is used up."""
    for i, field in enumerate(table.schema):
        if field.type == pa.uuid():
            table = table.set_column(i, field.name, uuids.as_text(table.column(i)))
    frame: pd.DataFrame = table.to_pandas(
        types_mapper=types_mapper(backend), ignore_metadata=True, split_blocks=True, self_destruct=True
    )
    return frame


def storable(arrow: pa.DataType, target: iceberg.IcebergType) -> bool:
    """Whether values of an Arrow type may be stored in a column of an Iceberg type.

    Yes where every value keeps its meaning; a value that does not fit (an integer too large for ``int``, or for
    ``double`` to hold it exactly, a fraction of a microsecond) is found when it is met, and named. No where meaning
    would change: text to number (UUIDs are written as text, too), a time without zone to one with, double to float.
    """
    t = pa.types
    if t.is_dictionary(arrow):
        return storable(arrow.value_type, target)
    if t.is_null(arrow):
        return True
    match target:
        case iceberg.BooleanType():
            return bool(t.is_boolean(arrow))
        case iceberg.IntegerType() | iceberg.LongType():
            return bool(t.is_integer(arrow))
        case iceberg.FloatType():
            return bool(t.is_float16(arrow) or t.is_float32(arrow) or t.is_integer(arrow))
        case iceberg.DoubleType():
            return bool(t.is_floating(arrow) or t.is_integer(arrow))
        case iceberg.DecimalType(precision=_, scale=scale):
            return bool(t.is_integer(arrow) or (t.is_decimal(arrow) and arrow.scale <= scale))
        case iceberg.DateType():
            return bool(t.is_date(arrow))
        case iceberg.TimeType():
            return bool(t.is_time(arrow))
        case iceberg.TimestampType() | iceberg.TimestampNanoType():
            return bool(t.is_date(arrow) or (t.is_timestamp(arrow) and arrow.tz is None))
        case iceberg.TimestamptzType() | iceberg.TimestamptzNanoType():
            return bool(t.is_timestamp(arrow) and arrow.tz is not None)
        case iceberg.StringType():
            return bool(t.is_string(arrow) or t.is_large_string(arrow) or t.is_string_view(arrow))
        case iceberg.BinaryType():
            return bool(t.is_binary(arrow) or t.is_large_binary(arrow) or t.is_fixed_size_binary(arrow))
        case iceberg.FixedType():
            return bool(t.is_binary(arrow) or t.is_large_binary(arrow) or t.is_fixed_size_binary(arrow))
        case iceberg.UUIDType():
            of_bytes = arrow == pa.uuid() or (t.is_fixed_size_binary(arrow) and arrow.byte_width == 16)
            return bool(of_bytes or storable(arrow, iceberg.StringType()))
        case iceberg.ListType():
            is_list = t.is_list(arrow) or t.is_large_list(arrow) or t.is_fixed_size_list(arrow)
            return bool(is_list) and storable(arrow.value_type, target.element_type)
        case iceberg.MapType():
            return (
                bool(t.is_map(arrow))
                and storable(arrow.key_type, target.key_type)
                and storable(arrow.item_type, target.value_type)
            )
        case iceberg.StructType():
            if not t.is_struct(arrow):
                return False
            have = {arrow.field(i).name: arrow.field(i).type for i in range(arrow.num_fields)}
            return all(
                f.name in have and storable(have[f.name], f.field_type)
                if f.required or f.name in have
                else True
                for f in target.fields
            ) and set(have) <= {f.name for f in target.fields}
    return False


def widened(current: iceberg.IcebergType, arrow: pa.DataType) -> iceberg.IcebergType | None:
    """The wider type that a column would need to hold an Arrow type, by Iceberg's rules of promotion.

    int -> long, float -> double, a decimal's precision at the same scale. ``None``: it cannot be widened so.
    https://iceberg.apache.org/spec/#schema-evolution
    """
    t = pa.types
    if isinstance(current, iceberg.IntegerType) and t.is_integer(arrow) and arrow.bit_width == 64:
        return iceberg.LongType()
    if isinstance(current, iceberg.FloatType) and t.is_float64(arrow):
        return iceberg.DoubleType()
    match current:
        case iceberg.DecimalType(precision=precision, scale=scale) if t.is_decimal(arrow):
            if arrow.scale == scale and arrow.precision > precision:
                return iceberg.DecimalType(arrow.precision, arrow.scale)
    return None


def for_iceberg(arrow: pa.DataType) -> pa.DataType | None:
    """The Arrow type with a direct Iceberg counterpart in which a new column of this type is stored.

    Small integers become ``int`` or ``long``, every timestamp microseconds (with a zone: UTC), categories
    their values. ``None``: Iceberg has no such type (durations, half floats in maps, unions, ...).
    """
    t = pa.types
    if t.is_dictionary(arrow):
        return for_iceberg(arrow.value_type)
    if t.is_integer(arrow):
        return pa.int32() if arrow.bit_width <= 16 or arrow == pa.int32() else pa.int64()
    if t.is_float16(arrow):
        return pa.float32()
    if t.is_timestamp(arrow):
        return pa.timestamp("us", tz="UTC" if arrow.tz is not None else None)
    if t.is_time(arrow):
        return pa.time64("us")
    if t.is_date(arrow):
        return pa.date32()
    if t.is_string(arrow) or t.is_string_view(arrow):
        return pa.large_string()
    if t.is_binary(arrow) or t.is_binary_view(arrow):
        return pa.large_binary()
    if t.is_decimal(arrow):
        return (
            pa.decimal128(arrow.precision, arrow.scale)
            if arrow.precision <= 38 and arrow.scale >= 0
            else None
        )
    if t.is_list(arrow) or t.is_large_list(arrow) or t.is_fixed_size_list(arrow):
        value = for_iceberg(arrow.value_type)
        return pa.large_list(arrow.value_field.with_type(value)) if value is not None else None
    if t.is_map(arrow):
        key, item = for_iceberg(arrow.key_type), for_iceberg(arrow.item_type)
        if key is None or item is None:
            return None
        return pa.map_(arrow.key_field.with_type(key), arrow.item_field.with_type(item))
    if t.is_struct(arrow):
        fields = [arrow.field(i) for i in range(arrow.num_fields)]
        inner = [for_iceberg(f.type) for f in fields]
        if not fields or any(i is None for i in inner):
            return None
        return pa.struct([f.with_type(i) for f, i in zip(fields, inner, strict=True)])
    kept = (pa.bool_(), pa.float32(), pa.float64(), pa.large_string(), pa.large_binary(), pa.uuid())
    return arrow if arrow in kept or t.is_fixed_size_binary(arrow) else None
