"""How each column is stored inside a Parquet file: with a dictionary or without, compressed or as it is.

Why it exists: looking for repeats where there are none (a key, a measurement), and compressing noise, is a
third of the time of a write and a quarter of that of every read, and saves next to nothing. A few thousand
rows tell which columns are so. What it must not do: use an encoding that some reader of Iceberg tables lacks
(Iceberg's own reader in Spark knows the delta encodings only since its version 1.10).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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
    first: pa.Table, codec: str, level: int | None, rows_per_page: int = ROWS_PER_PAGE
) -> dict[str, Any]:
    """What ``pyarrow.parquet.ParquetWriter`` is told of a file that begins with the rows ``first``."""
    sample = _sample(first)
    dictionary: list[str] = []
    codecs: dict[str, str] = {}
    for column in sample.column_names:
        for path, values in _leaves(sample.column(column).combine_chunks(), column):
            if _repeats(values):
                dictionary.append(path)
                codecs[path] = codec
            else:
                codecs[path] = codec if _shrinks(values, codec, level) else "none"
    return {
        "compression": codecs,
        "compression_level": {p: level for p, c in codecs.items() if c != "none"} if level else None,
        "use_dictionary": dictionary or False,
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


def _shrinks(values: Any, codec: str, level: int | None) -> bool:
    """Whether compressing pays."""
    values = pa.concat_arrays([values.drop_null()])  # a slice's buffers are its parent's
    raw = values.buffers()[-1]  # of text, the letters
    if codec == "none" or raw is None or raw.size < ENOUGH_BYTES:
        return codec != "none"
    small = pa.Codec(codec, level).compress(raw, asbytes=True)
    return bool(len(small) <= raw.size * WORTH_COMPRESSING)
