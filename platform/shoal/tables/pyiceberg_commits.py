"""PyIceberg's private parts that make one snapshot, and commit it.

Why it exists: as ``pyiceberg_private``, of which it is the other half. PyIceberg plans a commit, tries it, and tries it
again; here each is a step of its own, so that the one who commits decides about tries. What it must not do: decide.

Written against PyIceberg 0.12.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import (
    AssertCurrentSchemaId,
    AssertDefaultSpecId,
    AssertTableUUID,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.table.update.snapshot import _FastAppendFiles, _OverwriteFiles

from shoal.tables.pyiceberg_private import misleads


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


def overwrite_producer(
    transaction: Transaction,
    table: Table,
    snapshot_id: int,
    remove: Iterable[DataFile],
    add: Iterable[DataFile],
    properties: dict[str, str],
    branch: str,
) -> _Replace:
    """A replacement of files as one snapshot under a given id."""
    taken_out = list(remove)
    exists = transaction.table_metadata.snapshot_by_name(branch) is not None
    producer = _Replace(
        operation=Operation.OVERWRITE if exists and taken_out else Operation.APPEND,
        transaction=transaction,
        io=table.io,
        commit_uuid=uuid.uuid4(),
        snapshot_properties=properties,
        branch=branch,
    )
    producer._snapshot_id = snapshot_id
    for data_file in taken_out:
        producer.delete_data_file(data_file)
    for data_file in add:
        producer.append_data_file(data_file)
    return producer
