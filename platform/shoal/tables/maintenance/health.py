"""``table_health``: what a table's files look like, and what maintenance would save.

Why it exists: a table becomes slow little by little, and nobody looks at its files. What it must not do: change
anything, or read data files.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass, field

from pyiceberg.manifest import DataFileContent
from pyiceberg.table import Table

from shoal.errors import ShoalError
from shoal.tables.arguments import number
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.maintenance.expiry import expire_snapshots
from shoal.tables.maintenance.orphans import remove_orphans
from shoal.tables.maintenance.packing import PackedFile, files_after, pack_small
from shoal.tables.storage import told
from shoal.tables.writing.files import TARGET_FILE_BYTES
from shoal.words import count

_MANY_SNAPSHOTS, _SKEWED = 100, 10.0


@dataclass(frozen=True)
class TableHealth:
    """The state of a table's files."""

    table: str
    rows: int
    files: int
    """Data files of the current snapshot."""
    bytes: int
    target_file_bytes: int
    small_files: int
    """Of less than three quarters of the target, with others like them in their partition to be put together with."""
    files_after_compaction: int
    """Data files if small ones were put together."""
    delete_files: int
    deleted_rows: int
    """Rows that delete files take out again at every read."""
    partitions: int
    skew: float
    """Bytes of the largest partition, over those of an average one."""
    snapshots: int
    oldest: dt.datetime | None
    """Of the snapshots."""
    refs: tuple[str, ...]
    """Its branches and tags."""
    manifests: int
    expirable_snapshots: int
    """Old enough to go, and that no branch or tag needs."""
    expirable_bytes: int
    """Of the files that only these need."""
    orphans: int | None
    """Files older than 3 days that nothing refers to; ``None`` where that cannot be told."""
    orphan_bytes: int | None
    advice: tuple[str, ...] = field(default=())
    """What to do, the most useful first; empty for a table in good order."""


def table_health(name: str, *, catalog: CatalogSettings | None = None) -> TableHealth:
    """Look at a table's files: how many and how large, deletes, snapshots, skew, and what maintenance would save.

    Reads metadata, and lists the table's folders.

    Raises :class:`TableNotFoundError`, :class:`StorageError`, :class:`CatalogUnavailableError`.
    """
    settled = catalogs.settings(catalog)
    table = catalogs.load(name, settled)
    with told(f"The metadata of {name} could not be read", table.location(), io=table.io, table=name):
        files = _files(table)
    target = number(table.properties, "write.target-file-size-bytes", TARGET_FILE_BYTES)
    groups = pack_small(
        (PackedFile("", place, size) for place, sizes in files.by_partition.items() for size in sizes), target
    )
    weights = [sum(sizes) for sizes in files.by_partition.values()]
    try:
        expired = expire_snapshots(name, dry_run=True, catalog=settled)
        old, old_bytes = len(expired.snapshots), expired.bytes
    except ShoalError:
        old = old_bytes = 0
    orphans: int | None = None
    orphan_bytes: int | None = None
    try:
        nobodys = remove_orphans(name, catalog=settled)
        orphans, orphan_bytes = len(nobodys.paths), nobodys.bytes
    except ShoalError:
        pass
    times = [snapshot.timestamp_ms for snapshot in table.metadata.snapshots]
    health = TableHealth(
        table=name,
        rows=files.rows,
        files=files.count,
        bytes=sum(weights),
        target_file_bytes=target,
        small_files=sum(map(len, groups)),
        files_after_compaction=files_after(files.count, groups, target),
        delete_files=files.deletes,
        deleted_rows=files.deleted,
        partitions=len(weights),
        skew=max(weights) * len(weights) / max(1, sum(weights)) if weights else 1.0,
        snapshots=len(times),
        oldest=dt.datetime.fromtimestamp(min(times) / 1000, dt.UTC) if times else None,
        refs=tuple(sorted(table.metadata.refs)),
        manifests=files.manifests,
        expirable_snapshots=old,
        expirable_bytes=old_bytes,
        orphans=orphans,
        orphan_bytes=orphan_bytes,
    )
    return TableHealth(**{**health.__dict__, "advice": tuple(_advice(health))})


@dataclass
class _CurrentFiles:
    by_partition: dict[str, list[int]]
    rows: int = 0
    count: int = 0
    deletes: int = 0
    deleted: int = 0
    manifests: int = 0


def _files(table: Table) -> _CurrentFiles:
    found = _CurrentFiles(defaultdict(list))
    current = table.metadata.current_snapshot()
    if current is None:
        return found
    for manifest in current.manifests(table.io):
        found.manifests += 1
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            file = entry.data_file
            if file.content == DataFileContent.DATA:
                values = [file.partition[i] for i in range(len(file.partition))]
                found.by_partition[repr((manifest.partition_spec_id, values))].append(file.file_size_in_bytes)
                found.rows += file.record_count
                found.count += 1
            else:
                found.deletes += 1
                found.deleted += file.record_count
    return found


def _advice(health: TableHealth) -> list[str]:
    said = []
    saved = health.files - health.files_after_compaction
    if saved > 0 and health.files_after_compaction * 2 <= health.files:
        said.append(
            f"{health.small_files:,} of {health.files:,} files are small; put together they would be "
            f"{health.files_after_compaction:,}: shoal tables compact {health.table}"
        )
    if health.delete_files:
        said.append(
            f"Every read applies {count(health.delete_files, 'delete file')} "
            f"({count(health.deleted_rows, 'row')}); to apply them once: shoal tables compact {health.table}"
        )
    if health.expirable_snapshots:
        said.append(
            f"{_are(health.expirable_snapshots, 'snapshot')} old enough to go, and no branch or tag needs "
            f"{'it' if health.expirable_snapshots == 1 else 'them'}: shoal tables expire {health.table}"
        )
    elif health.snapshots > _MANY_SNAPSHOTS:
        said.append(
            f"{health.snapshots:,} snapshots make each commit slower: "
            f"shoal tables expire {health.table} --older-than 1d"
        )
    if health.orphans:
        said.append(
            f"{_are(health.orphans, 'file')} nobody's: shoal tables remove-orphans {health.table} --delete"
        )
    if health.partitions > 1 and health.skew > _SKEWED:
        said.append(
            f"The largest partition has {health.skew:.0f} times the bytes of an average one: one task may do most of "
            "the work. Partition by another column, or by bucket(N, column)."
        )
    return said


def _are(number: int, one: str) -> str:
    return f"{count(number, one)} {'is' if number == 1 else 'are'}"
