"""Rows of an id, a key and a value, as upserts and changes of schema are tried on them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

import shoal


def rows(ids: Any, value: str = "old") -> pa.Table:
    ids = list(ids)
    return pa.table(
        {"id": pa.array(ids, pa.int64()), "k": [f"k{i % 3}" for i in ids], "v": [value] * len(ids)}
    )


def state(name: str, **how: Any) -> dict[int, str]:
    found = shoal.read_table(name, **how).compute()
    assert found.id.is_unique
    return dict(zip(found.id.tolist(), found.v.tolist(), strict=True))
