"""Which files a table needs, and which files there are.

Why it exists: whatever deletes files asks here what must stay, so that there is one answer: everything that any
snapshot refers to, whoever wrote it. What it must not do: delete.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pandas as pd
import pyarrow.fs as pafs
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from shoal.errors import UsageError
from shoal.tables.errors import NotSupportedError
from shoal.tables.writing.sweep import bare, data_files, listed, manifest_paths, referred

Age = str | dt.timedelta


@dataclass(frozen=True)
class FoundFile:
    """A file of a table's folders."""

    path: str
    bytes: int
    changed: dt.datetime
    """By the storage's clock."""
    filesystem: pafs.FileSystem = field(repr=False)
    key: str
    """What the file system calls it: whatever is in its name, as a path of PyIceberg's may not be."""

    def delete(self) -> None:
        """Delete the file. Raises ``OSError``."""
        self.filesystem.delete_file(self.key)


def needed(table: Table) -> set[str]:
    """Every file that the table needs as it is now: data, deletes, manifests, statistics, metadata; bare paths."""
    metadata = table.metadata
    found = referred(table, live=True)
    found |= {bare(path) for path in manifest_paths(table.io, metadata.snapshots)}
    found |= {bare(entry.statistics_path) for entry in metadata.statistics}
    found |= {bare(entry.statistics_path) for entry in getattr(metadata, "partition_statistics", None) or ()}
    found |= {bare(entry.metadata_file) for entry in metadata.metadata_log}
    return found | {bare(table.metadata_location)}


def data_of(io: FileIO, snapshots: Iterable[Snapshot]) -> dict[str, int]:
    """The data and delete files that snapshots refer to, with their bytes."""
    return {file.file_path: file.file_size_in_bytes for file in data_files(io, snapshots, live=True)}


def folders_of(table: Table) -> list[str]:
    """Where the table's files are: its own folder, and those that its properties name for data and metadata."""
    named = [table.location()]
    named += [
        table.properties[key] for key in ("write.data.path", "write.metadata.path") if key in table.properties
    ]
    found: list[str] = []
    for folder in (name.rstrip("/") for name in named):
        if not any(bare(f"{folder}/").startswith(bare(f"{above}/")) for above in found):
            found.append(folder)
    return found


def files_in(io: FileIO, folder: str) -> Iterator[FoundFile]:
    """Every file in a folder and below it, with its size and age. Raises :class:`NotSupportedError`.

    Links, and what they lead to, are left out.
    """
    if not isinstance(io, PyArrowFileIO):
        raise NotSupportedError(
            f"The age of files in {folder} is not known through {type(io).__name__}.",
            hint="Take py-io-impl out of the catalog's properties.",
        )
    scheme, netloc, path = PyArrowFileIO.parse_location(folder, io.properties)
    prefix = folder[: len(folder) - len(path)]
    filesystem = io.fs_by_scheme(scheme, netloc)
    for info in listed(filesystem, path):
        if info.type == pafs.FileType.File:
            changed = info.mtime or dt.datetime.now(dt.UTC)
            yield FoundFile(prefix + info.path, info.size, changed, filesystem, info.path)


def age(given: Age, what: str) -> dt.timedelta:
    """A duration, as text ("5 days", "12h") or as it is. Raises :class:`UsageError`."""
    try:
        if isinstance(given, str) and not given.strip().replace(".", "").isdigit():
            found = pd.Timedelta(given).to_pytimedelta()
        elif isinstance(given, dt.timedelta):
            found = given
        else:
            raise ValueError(given)
        if found < dt.timedelta(0):
            raise ValueError(given)
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise UsageError(
            f"{what}={given!r} is not a duration.",
            hint='A number with a unit: s, min, h, days or weeks, such as "5 days" or "12h".',
        ) from error
    return found


def refuse_without_deleting(table: Table, name: str) -> None:
    """Raise :class:`NotSupportedError` for a table whose files are not its own to delete (``gc.enabled=false``)."""
    if str(table.properties.get("gc.enabled", "true")).lower() == "false":
        raise NotSupportedError(
            f"{name} has the property gc.enabled=false: its files may be another table's too, so none are deleted.",
            hint="Set it to true if they are its own.",
        )
