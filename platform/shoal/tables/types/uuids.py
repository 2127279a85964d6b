"""UUIDs as text, and back.

Why it exists: pandas can neither print nor compare Arrow's UUIDs, and Spark has none and reads them as text; so frames
have text, in the one spelling by which equal ones are equal. What it must not do: look at them one by one in Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_HEX = np.array([list(b"%02x" % i) for i in range(256)], np.uint8)
_DASHES = (8, 13, 18, 23)
_DIGITS = [i for i in range(36) if i not in _DASHES]
_SPELLED = "^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of UUIDs as ``f79c3e09-677c-4bbd-a479-3f349cb785e7`` and the like; nulls stay."""
    return pa.chunked_array([_text(chunk) for chunk in column.chunks], pa.large_string())


def _text(chunk: Any) -> pa.Array:
    rows, raw = len(chunk), pc.fill_null(chunk.storage, bytes(16))
    found = np.frombuffer(raw.buffers()[1], np.uint8)[16 * raw.offset : 16 * (raw.offset + rows)]
    spelled = np.full((rows, 36), ord("-"), np.uint8)
    spelled[:, _DIGITS] = _HEX[found].reshape(rows, 32)
    offsets = np.arange(0, 36 * rows + 1, 36, dtype=np.int64)
    text = pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(spelled))
    return pc.if_else(pc.is_valid(chunk), text, None)


def from_text(column: pa.LargeStringArray) -> Any:
    """Text as UUIDs, whatever the case of its digits, with dashes or without; nulls stay.

    Raises pyarrow.ArrowInvalid if a text is none.
    """
    lower = pc.utf8_lower(column)
    wrong = pc.index(pc.match_substring_regex(lower, _SPELLED), False).as_py()
    if wrong >= 0:
        raise pa.ArrowInvalid(f"{column[wrong].as_py()!r} is not a UUID")
    digits = pc.fill_null(pc.replace_substring(lower, "-", ""), "0" * 32)
    raw = pa.py_buffer(bytes.fromhex("".join(digits.to_pylist())))
    found = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(digits), [None, raw])
    return pa.ExtensionArray.from_storage(pa.uuid(), pc.if_else(pc.is_valid(column), found, None))
