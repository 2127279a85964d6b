"""PyIceberg's private parts that make one snapshot, and commit it.

Why it exists: as ``pyiceberg_private``, of which it is the other half. PyIceberg plans a commit, tries it, and tries it
again; here each is a step of its own, so that the one who commits decides about tries. What it must not do: decide.

Written against PyIceberg 0.12.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    ManifestContent,
    ManifestEntry,
    ManifestFile,
    ManifestWriter,
    ManifestWriterV2,
)
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update import (
    AssertCurrentSchemaId,
    AssertDefaultSpecId,
    AssertTableUUID,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.table.update.snapshot import _FastAppendFiles, _OverwriteFiles, _SnapshotProducer
from pyiceberg.typedef import EMPTY_DICT
from pyiceberg.utils.properties import property_as_int

from shoal.tables.pyiceberg_private import misleads

MANIFEST_SIZE, MANIFEST_BYTES = "commit.manifest.target-size-bytes", 8 * 2**20
"""A table's property for the bytes of a manifest, and what they are without it."""


class _Attempt(Transaction):
    """A transaction that works out the table's metadata once for each of its changes: PyIceberg copies all of it,
    with every snapshot, each time that somebody looks, and a commit looks seventeen times."""

    _known: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        base, updates = self._table.metadata, self._updates
        if self._known is None or self._known[0] is not base or self._known[1] is not updates:
            self._known = (base, updates, super().table_metadata)
        return self._known[2]


def begin(table: Table) -> Transaction:
    """A transaction for one commit to the table as it is."""
    return _Attempt(table)


def guard(transaction: Transaction, metadata: TableMetadata) -> None:
    """Make the commit fail if the schema or the partitioning is no longer what the files were written for.

    Without it a change between write and commit leaves files that point filters silently skip.
    """
    requirements: tuple[TableRequirement, ...] = (
        AssertTableUUID(uuid=metadata.table_uuid),
        AssertCurrentSchemaId.model_validate({"current-schema-id": metadata.current_schema_id}),
        AssertDefaultSpecId.model_validate({"default-spec-id": metadata.default_spec_id}),
    )
    transaction._stage((), requirements)


def io_of(transaction: Transaction) -> FileIO:
    """Through which files of the transaction's table are read, written and deleted."""
    io: FileIO = transaction._table.io
    return io


def append_producer(
    transaction: Transaction,
    snapshot_id: int,
    files: Iterable[DataFile],
    properties: dict[str, str],
    branch: str,
) -> _FastAppendFiles:
    """An append of these files as one snapshot under a given id (merging manifests if the table says so)."""
    producer = transaction._append_snapshot_producer(properties, branch=branch)
    producer._snapshot_id = snapshot_id
    for data_file in files:
        producer.append_data_file(data_file)
    return producer


def commit_once(transaction: Transaction) -> Table:
    """Hand a transaction to the catalog, once; the table with it.

    PyIceberg would wait and try again by itself, with a line for each try on standard error. Raises
    CommitFailedException once it is certain that nothing landed.
    """
    table: Table = transaction._table
    try:
        table._do_commit(updates=transaction._updates, requirements=transaction._requirements)
    except CommitFailedException:
        # A server may say so of a request that was sent twice and landed the first time.
        table.refresh()
        ids = [producer.snapshot_id for producer in transaction._snapshot_producers]
        if ids and all(table.metadata.snapshot_by_id(i) is not None for i in ids):
            return table
        discard_manifests(transaction)
        raise
    return table


def discard_manifests(transaction: Transaction) -> None:
    """Delete the manifests of a transaction that is certain not to have landed."""
    for producer in transaction._snapshot_producers:
        producer._clean_all_uncommitted()


class _Replace(_OverwriteFiles):
    """One snapshot that takes files out and puts files in.

    Whether it conflicts with other writers is decided by ``shoal.tables.writing.commit`` against a fresh look at the
    table, so PyIceberg's own retry must never re-plan it.
    """

    def _validate_concurrency(self) -> None:
        raise CommitFailedException("The branch moved; the replacement has to be planned again.")

    def _build_delete_files_partition_predicate(self) -> None:
        # PyIceberg looks for the files in manifests of their partitions, for which it has no NaN, and half of the
        # bits of other floating numbers: where there are some, in all manifests.
        schema = self._transaction.table_metadata.schema()
        specs = {file.spec_id for file in self._deleted_data_files}
        misled = {i for i in specs if any(misleads(field, schema) for field in self.spec(i).fields)}
        if not misled:
            super()._build_delete_files_partition_predicate()
        for spec_id in misled and specs:
            self.partition_filters[spec_id] = AlwaysTrue()


class _DeletesWriter(ManifestWriterV2):
    """Writes a manifest of delete files, for which PyIceberg has no writer."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class _Rewrite(_Replace):
    """The same rows in other files: a ``replace`` snapshot, without the delete files that concern none of the rest."""

    idle: frozenset[DataFile] = frozenset()
    """Those delete files."""

    def _build_delete_files_partition_predicate(self) -> None:
        # In every manifest: a predicate of thousands of partitions takes longer than looking.
        for spec_id in {file.spec_id for file in self._deleted_data_files}:
            self.partition_filters[spec_id] = AlwaysTrue()

    def _existing_manifests(self) -> list[ManifestFile]:
        return [left for manifest in super()._existing_manifests() for left in self._without_idle(manifest)]

    def _without_idle(self, manifest: ManifestFile) -> list[ManifestFile]:
        if manifest.content != ManifestContent.DELETES or not self.idle:
            return [manifest]
        entries = manifest.fetch_manifest_entry(self._io, discard_deleted=True)
        kept = [entry for entry in entries if entry.data_file not in self.idle]
        if len(kept) == len(entries):
            return [manifest]
        return [_manifest_of(self, ManifestContent.DELETES, manifest.partition_spec_id, kept)] if kept else []

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        # PyIceberg makes no summary of a replacement; its counts are those of an overwrite.
        data = self._deleted_data_files
        self._deleted_data_files = data | self.idle
        try:
            summary = super()._summary(snapshot_properties)
        finally:
            self._deleted_data_files = data
        return Summary(Operation.REPLACE, **summary.additional_properties)


class _Regroup(_Rewrite):
    """The same files in fewer manifests, neighbours by partition."""

    def _existing_manifests(self) -> list[ManifestFile]:
        snapshot = self._transaction.table_metadata.snapshot_by_name(self._target_branch)
        assert snapshot is not None, "there are manifests to put together"
        found: list[ManifestFile] = []
        for (content, spec_id), manifests, count in groups_of_manifests(
            snapshot.manifests(self._io), self._transaction.table_metadata.properties
        ):
            if count >= len(manifests):
                found += manifests
                continue
            entries = [e for m in manifests for e in m.fetch_manifest_entry(self._io, discard_deleted=True)]
            entries.sort(
                key=lambda e: repr([e.data_file.partition[i] for i in range(len(e.data_file.partition))])
            )
            step = max(1, -(-len(entries) // count))
            found += [
                _manifest_of(self, content, spec_id, entries[at : at + step])
                for at in range(0, len(entries), step)
            ]
        return found


def groups_of_manifests(
    manifests: Iterable[ManifestFile], properties: Mapping[str, str]
) -> list[tuple[tuple[ManifestContent, int], list[ManifestFile], int]]:
    """Manifests that may be put together, by content and partitioning, and how many they would be."""
    groups: dict[tuple[ManifestContent, int], list[ManifestFile]] = {}
    for manifest in manifests:
        groups.setdefault((manifest.content, manifest.partition_spec_id), []).append(manifest)
    target = property_as_int(dict(properties), MANIFEST_SIZE, MANIFEST_BYTES) or MANIFEST_BYTES
    return [
        (key, group, max(1, -(-sum(m.manifest_length for m in group) // target)))
        for key, group in groups.items()
    ]


def _manifest_of(
    producer: _SnapshotProducer[Any], content: ManifestContent, spec_id: int, entries: Iterable[ManifestEntry]
) -> ManifestFile:
    """A manifest of entries that the table has already."""
    if content == ManifestContent.DATA:
        writer: ManifestWriter = producer.new_manifest_writer(producer.spec(spec_id))
    else:
        writer = _DeletesWriter(
            producer.spec(spec_id),
            producer.schema(),
            producer.new_manifest_output(),
            producer.snapshot_id,
            producer._compression,
        )
    with writer:
        for entry in entries:
            writer.existing(entry)
    return writer.to_manifest_file()


def overwrite_producer(
    transaction: Transaction,
    table: Table,
    snapshot_id: int,
    remove: Iterable[DataFile],
    add: Iterable[DataFile],
    properties: dict[str, str],
    branch: str,
    *,
    rewrite: Literal["files", "manifests"] | None = None,
) -> _Replace:
    """A replacement of files as one snapshot under a given id. ``rewrite``: of the same rows, or of no files at all but
    their manifests; then ``remove`` may hold delete files, too."""
    taken_out = list(remove)
    exists = transaction.table_metadata.snapshot_by_name(branch) is not None
    kinds: dict[str | None, type[_Replace]] = {None: _Replace, "files": _Rewrite, "manifests": _Regroup}
    producer = kinds[rewrite](
        operation=Operation.OVERWRITE if exists and taken_out else Operation.APPEND,
        transaction=transaction,
        io=table.io,
        commit_uuid=uuid.uuid4(),
        snapshot_properties=properties,
        branch=branch,
    )
    producer._snapshot_id = snapshot_id
    for data_file in taken_out:
        if data_file.content == DataFileContent.DATA:
            producer.delete_data_file(data_file)
    if isinstance(producer, _Rewrite):
        producer.idle = frozenset(f for f in taken_out if f.content != DataFileContent.DATA)
    for data_file in add:
        producer.append_data_file(data_file)
    return producer
