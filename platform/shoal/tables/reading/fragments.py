"""A Parquet file opened for reading, with few requests.

Why it exists: over S3 every look at a file is a request of some 20 ms. A file's size is in the manifest, so nobody
asks for it; a file that is read in parts has one footer, so a process fetches it once; and columns that lie close
together are fetched in one go, some at a time.

What it must not do: choose rows or columns.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.io.pyarrow import PyArrowFileIO

from shoal.tables.credentials import on_s3
from shoal.tables.pyiceberg_private import FileIO

HOLE = 256 * 2**10
"""Bytes between two columns that are fetched along rather than asked for again: a request takes as long as these."""
LARGEST = 32 * 2**20
"""Bytes of one request at most. A process makes as many at once as Arrow has threads for it: 8, unless
``pyarrow.set_io_thread_count`` says otherwise."""
KEPT_FOOTERS = 32 * 2**20
"""Bytes of footers, as they are in files, that a process keeps; those that were used longest ago go first."""

_WRONG_SIZE = re.compile(r"InvalidRange|INVALID_RANGE|HTTP status 416|Unexpected end of stream|Tried reading")
_lock = threading.Lock()
_turns = tuple(threading.Lock() for _ in range(32))
_kept: OrderedDict[tuple[str, int, int], Any] = OrderedDict()


def file_format(**read_options: Any) -> ds.ParquetFileFormat:
    """Parquet, as it is read from everywhere."""
    return ds.ParquetFileFormat(
        read_options=ds.ParquetReadOptions(**read_options),
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(
            pre_buffer=True,
            cache_options=pa.CacheOptions(hole_size_limit=HOLE, range_size_limit=LARGEST, lazy=False),
        ),
    )


@contextmanager
def opened(path: str, size: int, io: FileIO, as_format: ds.ParquetFileFormat, *, keep: bool) -> Iterator[Any]:
    """A file as a fragment. ``size``: in bytes; 0 where it is not known. ``keep``: its footer is wanted again."""
    fragment = None
    if size > 0 and on_s3(path) and isinstance(io, PyArrowFileIO):
        try:
            fragment = _by_size(path, size, io, as_format, keep)
        except (pa.ArrowInvalid, OSError) as error:
            # A manifest may be wrong about a size. What else is wrong is told by the next look.
            if isinstance(error, OSError) and not _WRONG_SIZE.search(str(error)):
                raise
    if fragment is not None:
        yield fragment
        return
    with io.new_input(path).open() as stream:
        yield as_format.make_fragment(stream)


def _by_size(path: str, size: int, io: PyArrowFileIO, as_format: ds.ParquetFileFormat, keep: bool) -> Any:
    scheme, bucket, key = io.parse_location(path, io.properties)
    filesystem = io.fs_by_scheme(scheme, bucket)
    if keep:
        return _kept_fragment(key, size, filesystem, as_format)
    fragment = as_format.make_fragment(key, filesystem, file_size=size)
    _ = fragment.metadata  # fetched now
    return fragment


def _kept_fragment(key: str, size: int, filesystem: Any, as_format: ds.ParquetFileFormat) -> Any:
    # By which connection, too: with other keys it is another. A fragment holds its connection, so ids stay apart.
    known_as = (key, size, id(filesystem))
    with _turns[hash(known_as) % len(_turns)]:
        with _lock:
            found = _kept.get(known_as)
            if found is not None:
                _kept.move_to_end(known_as)
                return found
        fragment = as_format.make_fragment(key, filesystem, file_size=size)
        _ = fragment.metadata  # fetched now
        with _lock:
            _kept[known_as] = fragment
            while sum(f.metadata.serialized_size for f in _kept.values()) > KEPT_FOOTERS and len(_kept) > 1:
                _kept.popitem(last=False)
    return fragment
