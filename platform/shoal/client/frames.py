"""A large frame of the client's on its way into Spark: by a file that both can read, instead of by messages.

Why it exists: pyspark sends a frame as one relation that the server keeps as rows, several times over, in its heap:
100 MB end in "Java heap space" after minutes. A Parquet file in the cluster's own folder is read as any other
file, in parts.

What it must not do: change what comes out. Whatever a file would not give back alike goes pyspark's own way.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

LEAST = 16_000_000  # bytes from which on it goes by a file


def send_by_file(session: Any, folder: str) -> None:
    """Have a Spark Connect session of pyspark send large frames through ``folder``, which its server can read.

    It hooks in where pyspark uploads what is too large for one message, which is not in its public interface:
    where that is not as expected, frames go as they do without this.
    """
    upload = getattr(session, "_cache_local_relation", None)
    if upload is None:
        return

    def by_file(relation: Any, *limits: Any) -> Any:
        table = getattr(relation, "_table", None)
        if table is None or table.nbytes < LEAST or not _comes_out_alike(table.schema):
            return upload(relation, *limits)
        written = None
        with contextlib.suppress(OSError):  # a full disk
            written = _write(table, Path(folder))
        return upload(relation, *limits) if written is None else _read(session, written, table, relation)

    session._cache_local_relation = by_file


def _comes_out_alike(schema: Any) -> bool:
    import pyarrow.types as of

    alike = (
        of.is_signed_integer,
        of.is_float32,
        of.is_float64,
        of.is_boolean,
        of.is_string,
        of.is_large_string,
        of.is_binary,
        of.is_large_binary,
        of.is_date32,
        of.is_decimal128,
        lambda kind: of.is_timestamp(kind) and kind.unit == "us",
    )
    return all(field.nullable and any(each(field.type) for each in alike) for field in schema)


def _write(table: Any, folder: Path) -> Path:
    from pyarrow import parquet

    file = folder / f"frame-{uuid.uuid4().hex}.parquet"
    # Numbers for names: a frame may have a name twice, or one that Parquet does not know.
    plain = table.rename_columns([f"c{number}" for number in range(table.num_columns)])
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            parquet.write_table(plain, stream)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return file


def _read(session: Any, file: Path, table: Any, relation: Any) -> Any:
    """The plan that reads it, with the names and types that were asked for."""
    from pyspark.sql.types import StructType

    frame = session.read.parquet(file.as_uri()).toDF(*table.column_names)
    wanted = getattr(relation, "_schema", None)
    if wanted is not None:
        schema = StructType.fromJson(json.loads(wanted))
        frame = frame.toDF(*schema.fieldNames()).to(schema)
    return frame._plan
