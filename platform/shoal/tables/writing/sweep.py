"""Files of a write that did not become part of the table, deleted.

Why it exists: a task that Dask ran twice, a worker that was killed, a try that lost the race to its own retry
all leave files that nothing refers to. Every try writes under a folder of its own, so what is left over is
found by listing that folder. What it must not do: delete a file whose commit may have landed, or one that any
snapshot of a table refers to, whoever wrote it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

from pyiceberg.exceptions import ValidationError
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from shoal.errors import ShoalError
from shoal.tables.pyiceberg_private import DataFile


def run_folder(metadata: TableMetadata, branch: str, key: str, *, turn: int = 0, new: bool = False) -> str:
    """Where all tries of a run write: a folder of this table, branch, key and turn alone.

    ``new``: the table is made by the run itself. Each try would give it another uuid, so this folder is known by
    the branch and the key alone, and swept by :func:`sweep_new`. Up to 0.1 all folders were known by the key alone:
    those are never swept.
    """
    base = metadata.properties.get("write.data.path") or f"{metadata.location.rstrip('/')}/data"
    again = (f"turn {turn}",) if turn else ()
    run = "\0".join((*again, "" if new else str(metadata.table_uuid), branch, key))
    return f"{base.rstrip('/')}/run-{hashlib.sha256(run.encode()).hexdigest()[:20]}"


def sweep(io: FileIO, folder: str, keep: Collection[str]) -> int:
    """Delete every file under a folder but those to keep, then folders that are empty; count the deleted.

    What cannot be listed or deleted is left for the orphan clean-up: the write itself is done.
    """
    kept = {bare(path) for path in keep}
    deleted = 0
    with suppress(OSError):
        for path in list(files_under(io, folder)):
            if bare(path) not in kept:
                with suppress(OSError):
                    io.delete(path)
                    deleted += 1
        _remove_empty(io, folder)
    return deleted


def sweep_run(table: Table, load: Callable[[], Table], folder: str, keep: Collection[str] = ()) -> int:
    """Delete every file under a run's folder that nothing in the table refers to; count the deleted.

    ``load`` gives the table as it is now; it is asked only if there is anything but ``keep``, which is what the run
    itself has just put into the table. What cannot be listed, looked up or deleted is left.
    """
    kept = {bare(path) for path in keep}
    deleted = 0
    with suppress(OSError, ValueError, ShoalError):
        left = [path for path in files_under(table.io, folder) if bare(path) not in kept]
        if left:
            now = load()  # after the listing: what was listed and has landed since is in it
            if now.metadata.table_uuid != table.metadata.table_uuid:
                return 0  # renamed or dropped meanwhile
            kept = referred(now)
        for path in left:
            if bare(path) not in kept:
                with suppress(OSError):
                    table.io.delete(path)
                    deleted += 1
        _remove_empty(table.io, folder)
    return deleted


def sweep_new(table: Table, load: Callable[[], Table], folder: str, keep: Collection[str] = ()) -> int:
    """:func:`sweep_run` of the folder of a run that made the table.

    A table that was renamed or dropped stays where it was, and may have been made by a run of the same key. So nothing
    is deleted where another table has, or had, its metadata.
    """
    with suppress(OSError, ValueError):
        if alone(table):
            return sweep_run(table, load, folder, keep)
    return 0


def alone(table: Table) -> bool:
    """Whether no other table has, or had, its metadata where this one has its own: after a rename or a drop it may."""
    return stranger(table) is None


def stranger(table: Table) -> tuple[str, UUID | None] | None:
    """A metadata file beside this table's own that is another's, and whose; ``None`` if it cannot be read."""
    folder = table.metadata_location.rsplit("/", 1)[0]
    if bare(folder) != bare(f"{table.location().rstrip('/')}/metadata"):
        # A catalog that puts metadata elsewhere, so nobody can say.
        return table.metadata_location, table.metadata.table_uuid
    known = {bare(entry.metadata_file) for entry in table.metadata.metadata_log}
    known.add(bare(table.metadata_location))
    for path in files_under(table.io, folder):
        if path.endswith((".metadata.json", ".metadata.json.gz")) and bare(path) not in known:
            owner = _owner(table.io, path)
            if owner != table.metadata.table_uuid:
                return path, owner
    return None


def referred(table: Table, *, live: bool = False) -> set[str]:
    """Every data and delete file that any snapshot of the table refers to, on whatever branch; bare paths.

    ``live``: without those that a snapshot only says it took out, unless another still has them.
    """
    return {bare(file.file_path) for file in data_files(table.io, table.metadata.snapshots, live=live)}


def data_files(io: FileIO, snapshots: Iterable[Snapshot], *, live: bool) -> Iterator[DataFile]:
    """The data and delete files that snapshots refer to; each manifest is read once. ``live``: see :func:`referred`."""
    manifests = {m.manifest_path: m for snapshot in snapshots for m in snapshot.manifests(io)}
    for manifest in manifests.values():
        for entry in manifest.fetch_manifest_entry(io, discard_deleted=live):
            yield entry.data_file


def manifest_paths(io: FileIO, snapshots: Iterable[Snapshot]) -> Iterator[str]:
    """The manifest lists of snapshots, and the manifests in them."""
    for snapshot in snapshots:
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(io):
            yield manifest.manifest_path


def sweep_manifests(io: FileIO, metadata: TableMetadata, snapshot_id: int) -> None:
    """Delete the manifests of tries that did not become this snapshot, which has landed.

    A run's tries all write manifest lists under the snapshot's id, which name the manifests beside them.
    """
    snapshot = metadata.snapshot_by_id(snapshot_id)
    if snapshot is None:
        return
    folder = snapshot.manifest_list.rsplit("/", 1)[0]
    kept = snapshot.manifest_list.rsplit("/", 1)[1]
    with suppress(OSError, ValueError):
        names = {path.rsplit("/", 1)[1]: path for path in files_under(io, folder)}
        left: dict[str, str] = {}
        for name in names:
            if name.startswith(f"snap-{snapshot_id}-") and name != kept:
                attempt = name.removesuffix(".avro").split("-", 3)[3]
                left |= {n: p for n, p in names.items() if n == name or n.startswith(f"{attempt}-m")}
        if left:
            # A snapshot of this id that has expired, and was not forgotten by the snapshots made from it.
            stay = {bare(path) for path in manifest_paths(io, metadata.snapshots)}
        for path in left.values():
            if bare(path) not in stay:
                with suppress(OSError):
                    io.delete(path)


_VERSION = re.compile(r"(?:^|/)(\d{5,})-[0-9a-f-]{36}[^/]*\.metadata\.json$")


def sweep_metadata(table: Table) -> None:
    """Delete metadata files of commits to this table that came to nothing, whoever tried them.

    Every commit writes the file of the next version and then swaps the catalog's pointer from the one before.
    Of a version that the table has reached, all files but the one that it went through can never be swapped in.
    """
    current = _VERSION.search(table.metadata_location)
    if current is None:
        return  # a catalog that names its files otherwise
    known = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    versions = [int(found.group(1)) for path in known if (found := _VERSION.search(path))]
    kept = {bare(path) for path in known}
    with suppress(OSError):
        for path in list(files_under(table.io, table.metadata_location.rsplit("/", 1)[0])):
            found = _VERSION.search(path)
            if found is None or bare(path) in kept:
                continue
            if not min(versions) <= int(found.group(1)) <= int(current.group(1)):
                continue
            # Of this very table, not of one that was dropped from the same place; or nobody's, as no space was
            # left for it.
            owner = _owner(table.io, path)
            if owner == table.metadata.table_uuid or (owner is None and not _whole(table.io, path)):
                table.io.delete(path)


def sweep_creation(io: FileIO, metadata: TableMetadata) -> None:
    """Delete the metadata file of a table that is certain not to have come to be: somebody else was first."""
    places = load_location_provider(metadata.location, metadata.properties)
    folder = places.new_table_metadata_file_location(0).rsplit("/", 1)[0]
    with suppress(OSError):
        for path in list(files_under(io, folder)):
            found = _VERSION.search(path)
            if found is not None and int(found.group(1)) == 0 and _owner(io, path) == metadata.table_uuid:
                io.delete(path)


def _owner(io: FileIO, path: str) -> UUID | None:
    """The uuid of the table that a metadata file is of; None if it cannot be read, or not yet."""
    try:
        return FromInputFile.table_metadata(io.new_input(path)).table_uuid
    except (ValueError, OSError, ValidationError):
        return None


def _whole(io: FileIO, path: str) -> bool:
    with io.new_input(path).open() as stream:
        return bool(stream.read().rstrip().endswith(b"}"))


def delete_manifests(io: FileIO, snapshot: Snapshot) -> None:
    """Delete the manifest list and the manifests of a snapshot that is certain not to be any table's."""
    with suppress(OSError):
        for path in [
            *(manifest.manifest_path for manifest in snapshot.manifests(io)),
            snapshot.manifest_list,
        ]:
            with suppress(OSError):
                io.delete(path)


def bare(path: str) -> str:
    """A path without its scheme: ``file:/x``, ``file:///x`` and ``/x`` are one file."""
    if "://" in path:
        path = path.split("://", 1)[1]
    return path.removeprefix("file:")


def _filesystem(io: FileIO, folder: str) -> tuple[Any, str, str]:
    assert isinstance(io, PyArrowFileIO)
    scheme, netloc, path = PyArrowFileIO.parse_location(folder, io.properties)
    return io.fs_by_scheme(scheme, netloc), path, folder[: len(folder) - len(path)]


def listed(filesystem: Any, path: str) -> Iterator[Any]:
    """What Arrow says of everything in a folder and below it; nothing where there is no such folder.

    Of a local folder without links: Arrow follows them, and what they lead to is not the table's to delete.
    """
    import pyarrow.fs as pafs

    if not isinstance(filesystem, pafs.LocalFileSystem):
        yield from filesystem.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
        return

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for at, folders, names in os.walk(path, onerror=fail):
        there = (os.path.join(at, one) for one in (*folders, *names))
        yield from filesystem.get_file_info([one for one in there if not os.path.islink(one)])


def files_under(io: FileIO, folder: str) -> Iterator[str]:
    """Every file in a folder and below it; none where there is no such folder."""
    import pyarrow.fs as pafs

    if isinstance(io, PyArrowFileIO):
        filesystem, path, prefix = _filesystem(io, folder)
        for info in listed(filesystem, path):
            if info.type == pafs.FileType.File:
                yield prefix + info.path
    elif hasattr(io, "get_fs"):
        scheme, bare = folder.split("://", 1) if "://" in folder else ("file", folder)
        for found in io.get_fs(scheme).find(bare):
            yield f"{scheme}://{found}"


def _remove_empty(io: FileIO, folder: str) -> None:
    """Folders exist only on file systems; deepest first."""
    import pyarrow.fs as pafs

    if not isinstance(io, PyArrowFileIO) or not folder.startswith(("file:", "/")):
        return
    filesystem, path, _ = _filesystem(io, folder)
    folders = sorted(
        (i.path for i in listed(filesystem, path) if i.type == pafs.FileType.Directory), key=len, reverse=True
    )
    for found in [*folders, path]:
        if not filesystem.get_file_info(pafs.FileSelector(found, allow_not_found=True)):
            with suppress(OSError):
                filesystem.delete_dir(found)


def paths_of(table: Table, snapshot_id: int) -> list[str]:
    """The data files that a snapshot added; none if it has expired."""
    snapshot = table.metadata.snapshot_by_id(snapshot_id)
    if snapshot is None:
        return []
    return [
        entry.data_file.file_path
        for manifest in snapshot.manifests(table.io)
        if manifest.added_snapshot_id == snapshot_id
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        if entry.snapshot_id == snapshot_id
    ]
