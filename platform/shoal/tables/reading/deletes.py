"""Which rows of a data file are deleted.

Why it exists: engines that merge on read leave the data file as it is and write down positions in it: in
Parquet files (format version 2) or as a bitmap in a Puffin file (a deletion vector, version 3). One such file
may hold the positions of thousands of data files, so only those of the one that is read are decoded. What it
must not do: guess. A vector whose checksum does not fit would bring deleted rows back in silence.

The layout of a vector is the Iceberg specification's, "deletion-vector-v1" in the Puffin specification.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from shoal.tables.errors import StorageError
from shoal.tables.pyiceberg_private import (
    DataFile,
    DataFileContent,
    FileFormat,
    FileIO,
    Record,
    puffin_file,
    read_deletes,
)
from shoal.tables.pyiceberg_private import bitmaps as decode
from shoal.tables.reading.fragments import file_format, opened
from shoal.tables.reading.plan import DeleteFile
from shoal.tables.storage import read_error
from shoal.words import count

_FORMAT = file_format()
_MAGIC = b"\xd1\xd3\x39\x64"


def kept_rows(
    deletes: Sequence[DeleteFile], path: str, rows: int, io: FileIO, table: str = "the table"
) -> pa.BooleanArray:
    """True for every row of the data file ``path`` (of ``rows`` rows) of ``table`` that is not deleted.

    Raises :class:`StorageError` for a delete file that is damaged, :class:`TableChangedError` for one that is
    gone.
    """
    keep = np.ones(rows, dtype=bool)
    for delete in deletes:
        try:
            for positions in _positions(delete, path, io):
                keep[positions] = False
        except OSError as error:
            raise read_error(error, delete.path, "delete file", table, io) from error
        except IndexError as error:
            raise _damaged(
                delete, f"it deletes rows that {path} ({count(rows, 'row')}) does not have"
            ) from error
    return pa.array(keep)


def _positions(delete: DeleteFile, path: str, io: FileIO) -> Iterator[Any]:
    if delete.format == "PUFFIN":
        yield from _from_puffin(delete, path, io)
    elif delete.format == "PARQUET":
        # One of them may hold the positions of thousands of data files.
        with opened(delete.path, getattr(delete, "size", 0), io, _FORMAT, keep=True) as fragment:
            # Delete files are sorted by path, so row groups of other data files are not even read.
            found = fragment.to_table(columns=["pos"], filter=ds.field("file_path") == path)
        yield found.column("pos").to_numpy()
    else:
        delete_file = DataFile.from_args(
            content=DataFileContent.POSITION_DELETES,
            file_path=delete.path,
            file_format=FileFormat(delete.format),
            partition=Record(),
            record_count=0,
            file_size_in_bytes=0,
        )
        yield from (p.to_numpy() for at, p in read_deletes(io, delete_file).items() if at == path)


def _from_puffin(delete: DeleteFile, path: str, io: FileIO) -> Iterator[Any]:
    with io.new_input(delete.path).open() as stream:
        content = stream.read()
    try:
        puffin = puffin_file(content)
    except ValueError as error:
        raise _damaged(delete, str(error)) from error
    for blob in puffin.footer.blobs:
        if blob.type == "deletion-vector-v1" and blob.properties.get("referenced-data-file") == path:
            framed = puffin.get_blob_payload(blob)
            length = int.from_bytes(framed[:4], "big")
            vector, checksum = framed[4 : 4 + length], framed[4 + length : 8 + length]
            if vector[:4] != _MAGIC or zlib.crc32(vector) != int.from_bytes(checksum, "big"):
                raise _damaged(delete, f"the checksum of the deletion vector for {path} does not fit")
            for key, bitmap in enumerate(decode(vector[4:])):
                yield np.asarray(bitmap.to_array(), dtype=np.int64) + (key << 32)


def _damaged(delete: DeleteFile, reason: str) -> StorageError:
    return StorageError(
        f"The delete file {delete.path} is damaged: {reason}.",
        hint="Restore it, or go back to a snapshot before it: shoal.rollback().",
    )
