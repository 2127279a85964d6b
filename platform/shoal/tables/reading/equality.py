"""Equality deletes: refused, unless they concern no row any more.

Why it exists: an equality delete says which values are gone, not which rows, and applying it is a join that this
reader does not have. After Spark has applied them by rewriting the data files, Iceberg keeps the delete files in
the table for some commits, or for ever; such a table can be read, and has to be, or the advice in the error would
be of no use. What it must not do: open data files.

A delete concerns data files of a lower sequence number, in its own partition; in all, if it was written without
partitions (https://iceberg.apache.org/spec/#scan-planning).
"""

from __future__ import annotations

from typing import Any

from pyiceberg.manifest import ManifestContent
from pyiceberg.table import DataScan, FileScanTask, IncrementalAppendScan
from pyiceberg.table.snapshots import Snapshot

from shoal.tables.errors import NotSupportedError
from shoal.tables.pyiceberg_private import DataFile, DataFileContent, FileIO, Planner, TableMetadata
from shoal.tables.storage import storage_error, told

APPLY = (
    "CALL shoal.system.rewrite_data_files(table => '{name}', "
    "options => map('delete-file-threshold', '1', 'use-starting-sequence-number', 'false'))"
)
"""Rewrites every data file that has deletes, as of now: with the sequence number that the files began with, the
deletes would still seem to concern files that were written meanwhile."""
REWRITE_ALL = "CALL shoal.system.rewrite_data_files(table => '{name}', options => map('rewrite-all', 'true'))"
"""Rewrites every file as the table is now. Without the option Spark rewrites files of an unfit size alone, if any."""
TO_PARQUET = (
    f"ALTER TABLE shoal.{{name}} SET TBLPROPERTIES ('write.format.default' = 'parquet'); {REWRITE_ALL}"
)
"""As long as the property says otherwise, Spark would rewrite them as what they are."""


def refuse(metadata: TableMetadata, io: FileIO, snapshot_id: int | None, name: str) -> None:
    """Raise :class:`NotSupportedError` if the snapshot's equality deletes concern rows. One look at its summary,
    if it has none."""
    snapshot = metadata.snapshot_by_id(snapshot_id) if snapshot_id is not None else None
    summary = snapshot.summary.additional_properties if snapshot is not None and snapshot.summary else {}
    count = int(summary.get("total-equality-deletes") or 0)
    if snapshot is None or not count:
        return
    with told(f"A metadata file of {name} could not be read", metadata.location, io=io, table=name):
        idle = _idle(metadata, io, snapshot)
    if not idle:
        raise _refusal(f"The table {name} has {count} equality deletes", name)


def files_of(scan: DataScan | IncrementalAppendScan, name: str = "namespace.table") -> list[FileScanTask]:
    """The data files of a scan, each with what is deleted in it. ``name``: the table's, for errors.

    Raises :class:`NotSupportedError` for equality deletes, :class:`StorageError` for metadata that is gone.
    """
    try:
        return list(scan.plan_files())
    except (ValueError, NotImplementedError) as error:
        if "equality deletes" not in str(error):
            raise
        snapshot = scan.snapshot() if isinstance(scan, DataScan) else None
        if snapshot is None or not _idle(scan.table_metadata, scan.io, snapshot):
            raise _refusal(f"The table {name} has equality deletes", name) from error
        planner = Planner(scan.table_metadata, scan.io, scan.row_filter, scan.case_sensitive)
        return list(
            planner.plan_files(
                snapshot.manifests(scan.io),
                lambda entry: entry.data_file.content != DataFileContent.EQUALITY_DELETES,
            )
        )
    except OSError as error:
        raise storage_error(
            error, scan.table_metadata.location, "A metadata file of the table could not be read", io=scan.io
        ) from error


def _refusal(what: str, name: str) -> NotSupportedError:
    return NotSupportedError(
        f"{what}, which say which values are gone, not which rows: they cannot be applied here.",
        hint=f"Have Spark apply them once: {APPLY.format(name=name)}",
    )


def _idle(metadata: TableMetadata, io: FileIO, snapshot: Snapshot) -> bool:
    """Whether no data file is older than an equality delete that could concern it."""
    everywhere, by_partition = -1, dict[tuple[Any, ...], int]()
    unpartitioned = {i for i, spec in metadata.specs().items() if spec.is_unpartitioned()}
    manifests = snapshot.manifests(io)
    for manifest in manifests:
        if manifest.content == ManifestContent.DELETES:
            for entry in manifest.fetch_manifest_entry(io, discard_deleted=True):
                if entry.data_file.content == DataFileContent.EQUALITY_DELETES:
                    number = entry.sequence_number or 0
                    if manifest.partition_spec_id in unpartitioned:
                        everywhere = max(everywhere, number)
                    else:
                        where = _place(entry.data_file, manifest.partition_spec_id)
                        by_partition[where] = max(by_partition.get(where, -1), number)
    return all(
        (entry.sequence_number or 0)
        >= max(everywhere, by_partition.get(_place(entry.data_file, manifest.partition_spec_id), -1))
        for manifest in manifests
        if manifest.content == ManifestContent.DATA
        for entry in manifest.fetch_manifest_entry(io, discard_deleted=True)
    )


def _place(file: DataFile, spec_id: int) -> tuple[Any, ...]:
    return (spec_id, *(file.partition[i] for i in range(len(file.partition))))
