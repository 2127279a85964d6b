"""``compact``: many small files become few, what is deleted is left out, and rows are put in order if asked to.

Why it exists: each write makes files of its own, and each delete a file beside them; reading pays for all of them every
time. What it must not do: change what the table says. The same rows are committed as one ``replace`` snapshot, or none;
a file that somebody else has changed meanwhile keeps what that one made of it.
"""

from __future__ import annotations

import math
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.system
import psutil
from pyiceberg.table import DataScan, FileScanTask, Table

from shoal.errors import UsageError
from shoal.tables import arguments
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import CommitUnknownError, ConflictError, StorageFullError
from shoal.tables.formats import refuse_newer
from shoal.tables.keys import hold_secrets
from shoal.tables.maintenance.packing import PackedFile, files_after, pack_all, pack_small
from shoal.tables.maintenance.rewriting import RewriteGroup, RowOrder, in_order, own_order, rewrite_group
from shoal.tables.pyiceberg_private import AlwaysTrue, DataFile, Record
from shoal.tables.reading.equality import files_of
from shoal.tables.reading.plan import Piece, pack_metadata, pieces_by_file
from shoal.tables.reading.scan import ScanContext
from shoal.tables.refs import check_branch
from shoal.tables.types.partitioning import check_sortable, parse_sorts
from shoal.tables.types.schemas import check_columns
from shoal.tables.writing.attempts import current_client, give_up, refuse_in_its_loop
from shoal.tables.writing.commit import CommitRequest
from shoal.tables.writing.files import (
    ROW_GROUP_BYTES,
    TARGET_FILE_BYTES,
    WriteContext,
    Written,
    delete_files,
)
from shoal.tables.writing.replace import floating, head
from shoal.tables.writing.sweep import bare, run_folder, sweep, sweep_run
from shoal.tables.writing.unsure import UnsureError, commit_surely
from shoal.words import count

_SORTED_SHARE = 0.25
"""Of a task's memory, what is sorted at a time; with its sorted copy and what is written of it, three times that."""
_ROLL_OVER = 1.25
"""Times the target at which a file that is being written ends after all: other encodings may make it larger."""


@dataclass(frozen=True)
class Compacted:
    """What was put together, or would be."""

    table: str
    snapshot_id: int
    """The ``replace`` snapshot; 0 if there was nothing to do."""
    rows: int
    """Rows that were rewritten; before deletes are applied, if it was a dry run."""
    files: int
    """Data files that were rewritten."""
    files_written: int
    """Data files that took their place."""
    bytes: int
    """Of the files that were rewritten."""
    bytes_written: int
    delete_files: int
    """Delete files that are no longer needed."""
    skipped_files: int
    """Files that others changed while they were rewritten, so that they stay as those left them."""
    dry_run: bool
    seconds: float


def compact(
    name: str,
    *,
    sort_by: Sequence[str] | str | None = None,
    zorder_by: Sequence[str] | str | None = None,
    target_size: int | str | None = None,
    branch: str = "main",
    dry_run: bool = False,
    catalog: CatalogSettings | None = None,
) -> Compacted:
    """Put a table's small files together, and apply its deletes, in one snapshot of the same rows.

    The workers of the current Dask client do the work, or local threads. Files of less than three quarters of
    ``target_size`` (default: the table's ``write.target-file-size-bytes``, else 512 MiB) are put together partition by
    partition; files with deleted rows, or of an earlier partitioning, are rewritten whatever their size. In a table
    with a sort order, the rows of each such group are in it, if they fit a quarter of a task's memory.

    ``sort_by`` (``"at"``, ``["carrier", "at desc"]``) or ``zorder_by`` (two columns or more) rewrite every file, with
    its rows in that order, unless nothing was written since they were put in it: of as many files at a time as fit a
    quarter of a task's memory. ``dry_run``: change nothing, and tell what would be done.

    Who writes meanwhile is not in the way: what is added stays beside, and a file of which somebody deletes or
    replaces rows is left to them (``skipped_files``). Readers of earlier snapshots go on; ``expire_snapshots`` deletes
    the old files.

    Raises :class:`UsageError`, :class:`NotSupportedError` (format version 3, equality deletes),
    :class:`StorageFullError` (no room for the new files beside the old ones), :class:`ConflictError` (every file was
    changed by others), :class:`TableChangedError`, :class:`StorageError`, :class:`CommitUnknownError`. After any but
    ``CommitUnknownError`` the table is as it was and the written files are deleted.
    """
    started = time.monotonic()
    refuse_in_its_loop(name, "compact")
    arguments.flag(dry_run, "dry_run")
    settled = catalogs.settings(catalog)
    table = catalogs.load(name, settled)
    check_branch(table, name, branch)
    order = _order(table, name, sort_by, zorder_by)
    refuse_newer(table, name, f"On Spark: CALL shoal.system.rewrite_data_files(table => '{name}')")
    target = (
        arguments.size(target_size, "target_size")
        if target_size is not None
        else arguments.number(table.properties, "write.target-file-size-bytes", TARGET_FILE_BYTES)
    )
    base = _tasks(table, name, branch)
    known = order is not None and in_order(table, branch, order, target)
    groups = [] if known else _groups(table, base, target, order)
    chosen = [base[file.path] for group in groups for file in group]
    nothing = Compacted(name, 0, 0, 0, 0, 0, 0, 0, 0, dry_run, 0.0)
    if not groups:
        return replace(nothing, seconds=time.monotonic() - started)
    if dry_run:
        return replace(
            nothing,
            rows=sum(task.file.record_count for task in chosen),
            files=len(chosen),
            files_written=files_after(len(chosen), groups, target),
            bytes=sum(task.file.file_size_in_bytes for task in chosen),
            delete_files=len(_idle(base, [task.file.file_path for task in chosen])),
            seconds=time.monotonic() - started,
        )
    job = _Compaction(table, name, branch, settled, base, target, order)
    own = order or own_order(table)
    room = _sortable_bytes() if order is None and own is not None else math.inf
    done = job.run(
        [_group(table, g, base, target, own if sum(f.weight for f in g) <= room else None) for g in groups]
    )
    return replace(done, seconds=time.monotonic() - started)


Tasks = Mapping[str, FileScanTask]


def _order(table: Table, name: str, sort_by: Any, zorder_by: Any) -> RowOrder | None:
    if sort_by is not None and zorder_by is not None:
        raise UsageError("sort_by= and zorder_by= contradict each other.", hint="Give one of them.")
    sorts = parse_sorts(sort_by)
    mixed = arguments.names(zorder_by, "zorder_by", '["x", "y"]')
    if zorder_by is not None and not 2 <= len(mixed) <= 8:
        raise UsageError(
            f"zorder_by={zorder_by!r} names {count(len(mixed), 'column')}; a z-order is of 2 to 8.",
            hint="One column is sorted by: sort_by=.",
        )
    wanted = sorts or [(column, True) for column in mixed]
    check_columns([column for column, _ in wanted], table.schema().as_arrow().names, f"the table {name}")
    for column, _ in wanted:
        check_sortable(column, table.schema().find_type(column))
    return RowOrder(tuple(wanted), zorder=bool(mixed)) if wanted else None


def _tasks(table: Table, name: str, branch: str) -> dict[str, FileScanTask]:
    """Each data file of a branch as it is now, with the delete files that may concern it."""
    snapshot_id = head(table, branch)
    if snapshot_id is None:
        return {}
    scan = DataScan(table.metadata, table.io, snapshot_id=snapshot_id)
    return {task.file.file_path: task for task in files_of(scan, name)}


def _groups(table: Table, base: Tasks, target: int, order: RowOrder | None) -> list[tuple[PackedFile, ...]]:
    spec_id = table.spec().spec_id
    pieces = pieces_by_file(list(base.values()), table.schema(), ROW_GROUP_BYTES)
    files = [
        PackedFile(
            path,
            (task.file.spec_id, repr([task.file.partition[i] for i in range(len(task.file.partition))])),
            task.file.file_size_in_bytes,
            sum(piece.weight for piece in pieces[path]),
            changed=bool(task.delete_files) or task.file.spec_id != spec_id,
        )
        for path, task in base.items()
    ]
    files.sort(key=lambda file: _lowest(table, base[file.path].file, order))
    if order is not None:
        return pack_all(files, _sortable_bytes())
    return pack_small(files, target)


def _lowest(table: Table, file: DataFile, order: RowOrder | None) -> tuple[bool, Any]:
    """Where a file comes among others: by the least value that it has in the first column of the order."""
    from pyiceberg.conversions import from_bytes

    field_id = None
    if order is not None:
        field_id = table.schema().find_field(order.columns[0][0]).field_id
    elif table.sort_order().fields:
        field_id = table.sort_order().fields[0].source_id
    bound = (file.lower_bounds or {}).get(field_id) if field_id is not None else None
    if bound is None or field_id is None:
        return False, 0
    kind = table.schema().find_type(field_id)
    try:
        return True, from_bytes(kind, bound)  # type: ignore[arg-type] # what has a bound is primitive
    except (ValueError, UnicodeDecodeError):
        return False, 0


def _sortable_bytes() -> float:
    """Bytes in memory that one task may sort at a time."""
    client = current_client()
    shares = []
    if client is not None:
        for worker in client.scheduler_info(n_workers=-1)["workers"].values():
            if worker.get("memory_limit"):
                shares.append(worker["memory_limit"] / max(1, worker["nthreads"]))
    if not shares:
        shares = [psutil.virtual_memory().available / max(1, dask.system.CPU_COUNT)]
    return max(float(ROW_GROUP_BYTES), _SORTED_SHARE * float(min(shares)))


def _group(
    table: Table, group: Sequence[PackedFile], base: Tasks, target: int, order: RowOrder | None
) -> RewriteGroup:
    """The group as its task gets it."""
    tasks = [base[file.path] for file in group]
    by_file = pieces_by_file(tasks, table.schema(), ROW_GROUP_BYTES)
    pieces: list[Piece] = [piece for file in group for piece in by_file[file.path]]
    # What is of another partitioning, or of floating numbers, of which manifests keep half the bits, is divided again.
    known = tasks[0].file.spec_id == table.spec().spec_id and not floating(table)
    partition: Record | None = tasks[0].file.partition if known else None
    outputs = max(1, round(sum(file.bytes for file in group) / target))
    return RewriteGroup(tuple(pieces), partition, order, outputs)


def _idle(tasks: Tasks, rewritten: Iterable[str]) -> list[DataFile]:
    """The delete files that concern none but these data files."""
    gone = set(rewritten)
    needed = {d.file_path for path, task in tasks.items() if path not in gone for d in task.delete_files}
    found = {d.file_path: d for path in gone for d in tasks[path].delete_files}
    return [file for path, file in found.items() if path not in needed]


class _FilesChangedError(ConflictError):
    """Others changed files of some groups; ``values["groups"]`` has their numbers."""


@dataclass(frozen=True)
class _Compaction:
    """A compaction of one table, from its groups to its snapshot."""

    table: Table
    name: str
    branch: str
    settled: CatalogSettings
    base: Tasks
    target: int
    order: RowOrder | None

    def run(self, groups: Sequence[RewriteGroup]) -> Compacted:
        """Write the groups, and commit those that nobody has changed meanwhile."""
        metadata, attempt = self.table.metadata, uuid.uuid4().hex
        folder = f"{run_folder(metadata, self.branch, attempt)}/{attempt}"
        paths = [sorted({piece.path for piece in group.pieces}) for group in groups]
        _refuse_without_room(folder, sum(self.base[p].file.file_size_in_bytes for g in paths for p in g))
        sized = metadata.model_copy(
            update={
                "properties": {
                    **metadata.properties,
                    "write.target-file-size-bytes": str(int(self.target * _ROLL_OVER)),
                }
            }
        )
        properties = hold_secrets(dict(self.table.io.properties))
        packed = pack_metadata(metadata, metadata.current_schema_id)
        scan = ScanContext(packed, self.name, AlwaysTrue(), "pyarrow", properties)
        context = WriteContext(
            pack_metadata(sized, metadata.current_schema_id), self.name, folder, io_properties=properties
        )
        written: list[list[Written]] = []
        try:
            job = partial(rewrite_group, scan=scan, context=context)
            task = dask.delayed(job, name="compact", pure=False, traverse=False)
            written = list(dask.compute(*[task(group) for group in groups]))
            return self._commit(attempt, folder, paths, written)
        except CommitUnknownError:
            raise
        except UnsureError as unsure:
            # The files may be the table's, so they are left.
            give_up(folder)
            raise unsure.cause from None
        except BaseException:
            give_up(folder)
            delete_files(self.table.io, [w.data_file.file_path for group in written for w in group])
            sweep(self.table.io, folder, ())
            raise

    def _commit(
        self, attempt: str, folder: str, paths: list[list[str]], written: list[list[Written]]
    ) -> Compacted:
        left, order, at = list(range(len(paths))), self.order, head(self.table, self.branch)
        mark = order.mark(self.table, self.target, at) if order is not None else {}
        while left:
            new = [w for i in left for w in written[i]]
            request = CommitRequest(
                name=self.name,
                base=self.table.metadata,
                files=[w.data_file for w in new],
                key=attempt,
                remember=False,
                attempt=attempt,
                branch=self.branch,
                removal=self._removal({i: paths[i] for i in left}),
                rewrite="files",
                properties=mark if len(left) == len(paths) else {},
            )
            try:
                landed = commit_surely(request, self.settled)
            except _FilesChangedError as error:
                left = [i for i in left if i not in error.values["groups"]]
                continue
            if landed.table is not None:
                keep = [w.data_file.file_path for w in new]
                sweep_run(landed.table, lambda: catalogs.load(self.name, self.settled), folder, keep)
            old = [self.base[path].file for i in left for path in paths[i]]
            return Compacted(
                table=self.name,
                snapshot_id=landed.snapshot_id,
                rows=sum(w.rows for w in new),
                files=len(old),
                files_written=len(new),
                bytes=sum(file.file_size_in_bytes for file in old),
                bytes_written=sum(w.data_file.file_size_in_bytes for w in new),
                delete_files=len(_idle(self.base, [file.file_path for file in old])),
                skipped_files=sum(map(len, paths)) - len(old),
                dry_run=False,
                seconds=0.0,
            )
        raise ConflictError(
            f"Others changed whatever was to be put together of {self.name}: {count(sum(map(len, paths)), 'file')}.",
            hint="Nothing was changed. Run it again when fewer replace or delete rows of it.",
        )

    def _removal(self, groups: Mapping[int, Sequence[str]]) -> Callable[[Table], Sequence[DataFile]]:
        base_head = head(self.table, self.branch)

        def plan(now: Table) -> list[DataFile]:
            same = head(now, self.branch) == base_head
            tasks: Tasks = self.base if same else _tasks(now, self.name, self.branch)
            changed = [
                i for i, group in groups.items() if not all(_same(self.base, tasks, path) for path in group)
            ]
            if changed:
                raise _FilesChangedError(f"{self.name}: files were changed by others.", groups=changed)
            rewritten = [path for group in groups.values() for path in group]
            return [*(tasks[path].file for path in rewritten), *_idle(tasks, rewritten)]

        return plan


def _same(before: Tasks, now: Tasks, path: str) -> bool:
    """Whether a data file is there still, with nothing more or less deleted of it."""
    if path not in now:
        return False
    then, today = before[path].delete_files, now[path].delete_files
    return {d.file_path for d in then} == {d.file_path for d in today}


def _refuse_without_room(folder: str, need: int) -> None:
    """Raise :class:`StorageFullError` for a local disk that has no room for the new files beside the old ones."""
    if "://" in folder and not folder.startswith("file://"):
        return
    place = Path(bare(folder))
    while not place.exists() and place != place.parent:
        place = place.parent
    refuse_if_full(need, shutil.disk_usage(place).free, str(place))


def refuse_if_full(need: int, free: int, place: str) -> None:
    """Raise :class:`StorageFullError` if fewer bytes are free than needed."""
    if need > free:
        raise StorageFullError(
            f"The files that would be put together have {need:,} bytes, and {free:,} are free at {place}: the old ones "
            "stay until their snapshots expire, so there has to be room for the new ones beside them.",
            hint="Nothing was written. Expire old snapshots first (shoal tables expire), or free some room.",
            need=need,
            free=free,
        )
