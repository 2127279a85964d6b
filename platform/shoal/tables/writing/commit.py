"""One snapshot, exactly once.

Why it exists: the workers have written files; now they become part of the table, all or none, once or not at
all, whatever else is written meanwhile, and however often the same run is tried. What it must not do: write
data, or run inside a Dask task (Dask may run a task twice).

How "once" is kept: the snapshot's id is 63 bits of sha256(table's uuid, branch, run key). A table cannot hold
two snapshots of one id, so whoever comes second is refused by the catalog itself, looks the first one up and
returns it. A run's key is also kept as a table property, which survives the snapshot's expiry. A run whose rows
were rolled back has another id at its next turn.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import requests
from pyiceberg.exceptions import (
    CommitStateUnknownException,
    ServerError,
    ServiceUnavailableError,
    TableAlreadyExistsError,
    TooManyRequestsError,
    ValidationException,
)
from pyiceberg.table import Table, Transaction
from sqlalchemy.exc import DBAPIError

from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import (
    CatalogRefusedError,
    CatalogUnavailableError,
    CommitUnknownError,
    ConflictError,
    StorageError,
    TableChangedError,
)
from shoal.tables.pyiceberg_commits import (
    append_producer,
    begin,
    commit_once,
    discard_manifests,
    guard,
    io_of,
    overwrite_producer,
)
from shoal.tables.pyiceberg_private import CommitFailedException, DataFile, FileIO, TableMetadata
from shoal.tables.storage import renewing, storage_error
from shoal.tables.writing.points import WritePoint, reached
from shoal.tables.writing.runs import RUN_PROPERTY, find_run, run_property, snapshot_id_of
from shoal.tables.writing.sweep import delete_manifests, sweep_creation
from shoal.tables.writing.turns import turn

_log = logging.getLogger("shoal.tables")
COMMIT_SECONDS = 120.0
"""How long a commit is tried against other writers: 8 processes with 10 commits each need some 20 s."""
KEPT_RUNS = 500
"""Run keys remembered per table; the oldest go first. A property is some 100 bytes of every metadata file."""

_UNKNOWN = (
    *(CommitStateUnknownException, ServerError, ServiceUnavailableError, TooManyRequestsError),
    *(DBAPIError, requests.RequestException, ConnectionError, TimeoutError),
)


@dataclass(frozen=True)
class Landed:
    """Where the rows are: the snapshot, and whether an earlier try of the same run had put them there."""

    snapshot_id: int
    replayed: bool
    table: Table | None


Removal = Callable[[Table], Sequence[DataFile]]
"""Looks at the table as it is now and says which files a replacement takes out, or raises ConflictError."""
_Edit = Callable[[Transaction], None]
"""Further changes of the same commit, such as a wider schema."""


@dataclass(frozen=True)
class CommitRequest:
    """A commit to be made."""

    name: str
    base: TableMetadata
    """The table that the files were written for; its schema and partitioning have to hold still."""
    files: Sequence[DataFile]
    key: str
    """The run key, or the attempt's own random one."""
    remember: bool
    """Keep the key as a table property: only for keys that may come again."""
    attempt: str
    branch: str = "main"
    turn: int = 0
    """Of the run, when its files were written; see :mod:`shoal.tables.writing.runs`."""
    properties: dict[str, str] = field(default_factory=dict)
    removal: Removal | None = None
    rewrite: Literal["files", "manifests"] | None = None
    """What is put in has the rows of what is taken out, or nothing is, and only the manifests are others."""
    change: _Edit | None = None
    create: Callable[[], Transaction] | None = None
    """Makes the transaction that creates the table, if it is new."""
    even_empty: bool = False
    """Make a snapshot of a new table also without files, for what it tells."""
    seconds: float = COMMIT_SECONDS


def commit(request: CommitRequest, given: CatalogSettings) -> Landed:
    """Make the commit; on conflict plan it again against the table as it is now.

    Raises :class:`TableChangedError` (schema, partitioning or table are not what they were),
    :class:`ConflictError` (rows to be replaced were changed by someone else, or the table is too busy):
    nothing landed. Raises :class:`CommitUnknownError` when nobody can say: the files must stay.
    """
    start, wait, unknown, tries = time.monotonic(), 0.02, False, 0
    io = catalogs.access(given)
    while True:
        tries += 1
        late = time.monotonic() - start > request.seconds
        try:
            with turn(request.base.location, given):
                return renewing(io, lambda: _told_attempt(request, given, io))
        except (CommitFailedException, ValidationException, TableAlreadyExistsError) as error:
            if late:
                raise ConflictError(
                    f"The table {request.name} is busy: {tries} tries in {time.monotonic() - start:.0f} s "
                    f"all met another writer's commit ({error}).",
                    hint="Nothing was written. Run it again, or let fewer writers commit at once.",
                    tries=tries,
                ) from error
        except CatalogUnavailableError as error:
            if not unknown:
                raise  # it was tried for as long as the settings say
            if late:
                raise _unknown(request, error) from error
        except _UNKNOWN as error:
            # SQLite says for certain that it did nothing. Of all else, it may have landed, and trying again
            # is safe: a snapshot id cannot land twice.
            certain = _refused(error)
            unknown = unknown or not certain
            if certain and "full" in certain and not unknown:
                raise _no_space(request, error) from error
            if certain and not unknown and time.monotonic() - start > given.timeout:
                tried_for = time.monotonic() - start
                raise CatalogUnavailableError(
                    f"Could not commit to {request.name}: the catalog {given.shown_uri} refused for "
                    f"{tried_for:.1f} s ({certain}).",
                    hint="Nothing was written. Is no other process holding a lock on it?",
                    tried_for=tried_for,
                ) from error
            if late:
                raise _unknown(request, error) from error
        except StorageError as error:
            if unknown:
                raise _unknown(request, error) from error
            raise
        time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        wait = min(wait * 1.7, 1.0)


def _refused(error: Exception) -> str | None:
    """SQLite's words, if it says that a transaction came to nothing: locked, full, read-only."""
    cause = getattr(error, "orig", None)
    words = str(cause)
    known = ("locked", "is full", "readonly")
    return words if isinstance(cause, sqlite3.OperationalError) and any(w in words for w in known) else None


def _no_space(request: CommitRequest, error: Exception) -> StorageError:
    return StorageError(
        f"The commit to {request.name} could not be written: {error}",
        hint="Nothing was written: the table is as it was. Is there space, and permission to write?",
    )


def _told_attempt(request: CommitRequest, given: CatalogSettings, io: FileIO) -> Landed:
    try:
        return _attempt(request, given)
    except OSError as error:
        if isinstance(error, _UNKNOWN):
            raise
        # Of the manifests or the metadata, all of which come before the catalog is changed.
        what = f"The commit to {request.name} could not be written, and the table is as it was"
        raise storage_error(error, request.base.location, what, io=io, table=request.name) from error


def _unknown(request: CommitRequest, error: Exception) -> CommitUnknownError:
    return CommitUnknownError(
        f"The catalog did not say whether the commit to {request.name} landed ({error}).",
        hint="The written files were left in place. Run it again with the same run_key: it lands once.",
        table=request.name,
    )


def _attempt(request: CommitRequest, given: CatalogSettings) -> Landed:
    if (table := catalogs.find(request.name, given)) is None:
        if request.create is None:
            raise TableChangedError(
                f"The table {request.name} vanished while rows were written for it.",
                hint="Nothing was written. Was it dropped or renamed by someone else?",
            )
        return _create(request, given)
    metadata = table.metadata
    run = find_run(metadata, request.branch, request.key)
    if run.landed is not None:
        return _found(request, table, run.landed)
    if run.turn != request.turn:
        # Whoever landed this turn has deleted the files of all its other tries.
        raise ConflictError(
            f"Another try of the run {request.key!r} wrote to {request.name} and was rolled back meanwhile.",
            hint="Nothing was written. Run it again.",
        )
    if request.create is not None and not _same_shape(request.base, metadata):
        raise TableChangedError(
            f"Someone else made the table {request.name} meanwhile, with other columns or partitions.",
            hint="Nothing was written. Run it again to append to that table, or choose another name.",
        )
    if request.create is None:
        _check_still(request, metadata)
    transaction = begin(table)
    guard(transaction, metadata)
    if request.change is not None:
        request.change(transaction)
    snapshot_id = snapshot_id_of(metadata.table_uuid, request.branch, request.key, request.turn)
    _remember(request, transaction, metadata, snapshot_id)
    properties = _summary(request)
    with _discarding(transaction):
        if request.removal is None:
            append_producer(transaction, snapshot_id, request.files, properties, request.branch).commit()
        else:
            remove = request.removal(table)
            overwrite_producer(
                transaction,
                table,
                snapshot_id,
                remove,
                request.files,
                properties,
                request.branch,
                rewrite=request.rewrite,
            ).commit()
        reached(WritePoint.CLIENT_BEFORE_SWAP)
        _log.debug("%s: snapshot %s of %s files", request.name, snapshot_id, len(request.files))
        committed = commit_once(transaction)
    reached(WritePoint.CLIENT_AFTER_SWAP)
    # A snapshot of this id is there now; it may be another try's.
    return _found(request, committed, snapshot_id)


def _create(request: CommitRequest, given: CatalogSettings) -> Landed:
    assert request.create is not None
    transaction = request.create()
    metadata = transaction.table_metadata
    snapshot_id = snapshot_id_of(metadata.table_uuid, request.branch, request.key, request.turn)
    lands = bool(request.files) or request.even_empty
    if lands:  # a run that lands no row is not done, unless it is to be
        _remember(request, transaction, metadata, snapshot_id)
    try:
        with _discarding(transaction):
            if lands:
                append_producer(
                    transaction, snapshot_id, request.files, _summary(request), request.branch
                ).commit()
            reached(WritePoint.CLIENT_BEFORE_SWAP)
            table = transaction.commit_transaction()
    except (CommitFailedException, TableAlreadyExistsError):
        # Someone else made the table first. The metadata and the manifests of ours bear ids of their own, by
        # which no sweep of that table would find them.
        theirs = catalogs.load(request.name, given)
        if theirs.metadata.table_uuid != metadata.table_uuid:
            sweep_creation(io_of(transaction), metadata)
            ours = transaction.table_metadata.snapshot_by_id(snapshot_id)
            if ours is not None:
                delete_manifests(theirs.io, ours)
        raise
    reached(WritePoint.CLIENT_AFTER_SWAP)
    return Landed(snapshot_id if lands else 0, replayed=False, table=table)


@contextmanager
def _discarding(transaction: Transaction) -> Iterator[None]:
    """Delete the manifests if the commit certainly failed; PyIceberg does so for conflicts alone."""
    try:
        yield
    except Exception as error:
        files = isinstance(error, OSError) and not isinstance(error, _UNKNOWN)
        if files or _refused(error) or isinstance(error, CatalogRefusedError):
            discard_manifests(transaction)
        raise


def _found(request: CommitRequest, table: Table, snapshot_id: int) -> Landed:
    snapshot = table.metadata.snapshot_by_id(snapshot_id)
    attempt = (
        snapshot.summary.additional_properties.get("shoal.attempt") if snapshot and snapshot.summary else None
    )
    return Landed(snapshot_id, replayed=attempt != request.attempt, table=table)


def _summary(request: CommitRequest) -> dict[str, str]:
    kept = {"shoal.run-key": request.key} if request.remember else {}
    return {**request.properties, **kept, "shoal.attempt": request.attempt}


def _check_still(request: CommitRequest, now: TableMetadata) -> None:
    base = request.base
    if now.table_uuid != base.table_uuid:
        raise TableChangedError(
            f"The table {request.name} was dropped and recreated while rows were written for it.",
            hint="Nothing was written. Run it again if the new table is meant.",
        )
    if now.current_schema_id != base.current_schema_id:
        raise TableChangedError(
            f"The columns of {request.name} were changed by someone else while rows were written for it.",
            hint="Nothing was written. Run it again: it will be checked against the new columns.",
            before=str(base.schema()),
            now=str(now.schema()),
        )
    if now.default_spec_id != base.default_spec_id:
        raise TableChangedError(
            f"The partitioning of {request.name} was changed by someone else while rows were written for it.",
            hint="Nothing was written. Run it again: the files will be split again.",
        )


def _same_shape(one: TableMetadata, other: TableMetadata) -> bool:
    """Whether files written for one new table are right for another of the same name."""
    return (
        one.schema().as_struct() == other.schema().as_struct()
        and [(f.source_id, f.transform, f.name) for f in one.spec().fields]
        == [(f.source_id, f.transform, f.name) for f in other.spec().fields]
        and one.default_spec_id == other.default_spec_id
        and one.location == other.location
    )


def _remember(
    request: CommitRequest, transaction: Transaction, metadata: TableMetadata, snapshot_id: int
) -> None:
    if not request.remember:
        return
    runs = {k: v for k, v in metadata.properties.items() if k.startswith(RUN_PROPERTY)}
    if len(runs) >= KEPT_RUNS:
        oldest = sorted(runs, key=lambda k: int(runs[k].split("@")[-1]))[: len(runs) - KEPT_RUNS + 1]
        transaction.remove_properties(*oldest)
    value = f"{snapshot_id}@{time.time_ns() // 1_000_000}"
    transaction.set_properties({run_property(request.branch, request.key): value})
