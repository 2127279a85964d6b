"""How each column is stored inside a Parquet file: a dictionary, differences or plain, compressed or as it is.

Why it exists: looking for repeats where there are none (a key, a measurement), and compressing noise, is a
third of the time of a write and a quarter of that of every read, and saves next to nothing. Keys and times
that come in order are stored as differences (Parquet's DELTA_BINARY_PACKED): against Zstandard a fiftieth of
the bytes, a quarter of the time to write and a fifth to read. A few thousand rows tell which columns are so.
What it must not do: use an encoding that Iceberg's own readers lack. Its vectorized reader in Spark knows
differences since version 1.10, which Spark 4 needs anyway; :data:`DELTA_PROPERTY` is for tables that are also
read with an older one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DELTA_PROPERTY = "shoal.parquet.delta"
"""A table's property: ``"false"`` for no differences in its files. Default ``"true"``."""
DELTA = "DELTA_BINARY_PACKED"
SAMPLED_RUNS, SAMPLED_ROWS = 8, 1024
"""A sample is this many runs of this many neighbouring rows: repeats far apart show, and near ones too."""
WORTH_A_DICTIONARY = 0.9
"""Most distinct values per sampled value. 8,192 random picks of 40,000 values have 0.9, and 40,000 numbers
are a third of Parquet's limit of a dictionary (1 MiB); what overflows that was written for nothing."""
WORTH_COMPRESSING = 0.9
"""Most compressed bytes per byte. Zstandard takes 5 % off random floats, for half of a read's time."""

ROWS_PER_PAGE = 131_072
"""Rows of a page, at most, unless the table has ``write.parquet.page-row-limit``: with 8 bytes a value, 1 MiB,
which is also Parquet's usual limit. Pages of 20,000 rows, as Java writes them, are a tenth smaller after
Zstandard and take a fifth longer to write."""
ENOUGH_BYTES = 4096
"""Of fewer, a compressor's own frame would be the answer."""


def writer_options(
    first: pa.Table,
    codec: str,
    level: int | None,
    rows_per_page: int = ROWS_PER_PAGE,
    *,
    delta: bool = True,
) -> dict[str, Any]:
    """What ``pyarrow.parquet.ParquetWriter`` is told of a file that begins with the rows ``first``.

    ``codec``, ``level``: Parquet's name of the compression, ``"none"`` for none. ``rows_per_page``: at most.
    ``delta``: whether differences may be stored.
    """
    sample = _sample(first)
    dictionary: list[str] = []
    encodings: dict[str, str] = {}
    codecs: dict[str, str] = {}
    for column in sample.column_names:
        for path, values in _leaves(sample.column(column).combine_chunks(), column):
            if _repeats(values):
                dictionary.append(path)
                codecs[path] = codec
                continue
            own = pa.concat_arrays([values.drop_null()])  # a slice's buffers are its parent's
            codecs[path], size = _compressed(own, codec, level)
            packed = _packed(own) if delta else None
            if size is not None and packed is not None and packed <= size:
                encodings[path], codecs[path] = DELTA, "none"
    return {
        "compression": codecs,
        "compression_level": {p: level for p, c in codecs.items() if c != "none"} if level else None,
        "use_dictionary": dictionary or False,
        "column_encoding": encodings or None,
        "store_decimal_as_integer": True,
        "max_rows_per_page": rows_per_page,
        # The page index lets readers (Spark, pyarrow) skip pages inside a row group.
        "write_page_index": True,
    }


def _sample(table: pa.Table) -> pa.Table:
    rows = table.num_rows
    if rows <= SAMPLED_RUNS * SAMPLED_ROWS:
        return table
    gap = (rows - SAMPLED_ROWS) // (SAMPLED_RUNS - 1)
    return pa.concat_tables([table.slice(i * gap, SAMPLED_ROWS) for i in range(SAMPLED_RUNS)])


def _leaves(values: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A column's primitive columns, under the paths that Parquet gives them."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        values = values.storage if isinstance(values, pa.Array) else values.cast(kind.storage_type)
        kind = values.type
    if pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            yield from _leaves(pc.struct_field(values, i), f"{path}.{kind.field(i).name}")
    elif pa.types.is_map(kind):
        entries = pc.list_flatten(values.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))))
        yield from _leaves(pc.struct_field(entries, 0), f"{path}.key_value.key")
        yield from _leaves(pc.struct_field(entries, 1), f"{path}.key_value.value")
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _leaves(pc.list_flatten(values), f"{path}.list.element")
    else:
        yield path, values


def _repeats(values: Any) -> bool:
    """Whether a dictionary is worth looking for. Booleans are single bits already."""
    if pa.types.is_boolean(values.type):
        return False
    values = values.drop_null()
    return len(pc.unique(values)) <= len(values) * WORTH_A_DICTIONARY


def _compressed(values: Any, codec: str, level: int | None) -> tuple[str, int | None]:
    """The codec if compressing pays, else ``"none"``; and the sample's bytes then, if it is enough to say."""
    raw = values.buffers()[-1]  # of text, the letters
    if raw is None or raw.size < ENOUGH_BYTES:
        return codec, None
    if codec == "none":
        return codec, raw.size
    small = len(pa.Codec(codec, level).compress(raw, asbytes=True))
    return (codec, small) if small <= raw.size * WORTH_COMPRESSING else ("none", raw.size)


def _packed(values: Any) -> int | None:
    """Bytes of the sample as differences; None if it is too small, or of a type that is not stored so.

    In blocks of 128 differences, each less the block's smallest, in as many bits as the greatest of 32 needs
    (Parquet's format, "Delta Encoding").
    """
    kind = values.type
    if pa.types.is_int64(kind) or pa.types.is_timestamp(kind):
        numbers = values.view(pa.int64()).to_numpy()
    elif pa.types.is_int32(kind) or pa.types.is_date32(kind):
        numbers = values.view(pa.int32()).to_numpy().astype(np.int64)
    else:
        return None
    if len(numbers) <= 128:
        return None
    steps = np.diff(numbers)[: (len(numbers) - 1) // 128 * 128].reshape(-1, 128)  # wraps around, as Parquet's
    spread = (steps - steps.min(axis=1, keepdims=True)).astype(np.uint64).reshape(-1, 32).max(axis=1)
    bits = np.ceil(np.log2(spread.astype(np.float64) + 1))
    counted = bits.sum() * 32 / 8 + 14 * len(steps)  # a block's head: its smallest, and four numbers of bits
    return int(counted * len(numbers) / steps.size)
