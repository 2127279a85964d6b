"""Daft, in an environment and a process of its own: it reads what it is told and says how many rows it saw.

Started by ``bench_tables.py``; a request is one line of JSON on standard input, the answer a number. What
it read are pandas frames with the dtypes that the others make, one per batch that Daft hands out.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import daft
import pandas as pd
import pyarrow as pa
from pyiceberg.catalog import load_catalog


def pandas_type(kind: pa.DataType) -> Any:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return pd.StringDtype("pyarrow") if text else pd.ArrowDtype(kind)


def answer(table: Any, columns: list[str] | None, at: list[str] | None) -> int:
    frame = daft.read_iceberg(table)
    if at is not None:
        low, high = (datetime.fromisoformat(t) for t in at)
        frame = frame.where((daft.col("at") >= low) & (daft.col("at") < high))
    if columns is None:
        return int(frame.count_rows())
    return sum(
        len(batch.to_pandas(types_mapper=pandas_type)) for batch in frame.select(*columns).to_arrow_iter()
    )


def main() -> None:
    name, properties, identifier = json.loads(sys.argv[1])
    catalog = load_catalog(name, **properties)
    print(daft.__version__, flush=True)
    for line in sys.stdin:
        print(answer(catalog.load_table(identifier), *json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
