"""``expire_snapshots``: old states forgotten, and the files that only they needed deleted.

Why it exists: every write leaves the state before it readable, which costs space without end. What it must not do:
take a snapshot that a branch or tag needs, or delete a file that any snapshot refers to.
"""

from __future__ import annotations

import datetime as dt
import operator
import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import PrivateAttr
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import AssertRefSnapshotId, AssertTableUUID, RemoveSnapshotsUpdate

from shoal.errors import UsageError
from shoal.tables import arguments
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.catalogs.reaching import reach
from shoal.tables.errors import ConflictError, SnapshotNotFoundError
from shoal.tables.formats import refuse_newer
from shoal.tables.maintenance.reachable import (
    Age,
    age,
    data_of,
    needed,
    refuse_without_deleting,
)
from shoal.tables.writing.sweep import bare

TRIES_SECONDS = 60.0
"""How long it is tried against writers that change the table meanwhile."""
_LASTS_MS = 5 * 24 * 3600 * 1000  # as in Iceberg
_ASK = -1  # bytes that only the storage knows


@dataclass(frozen=True)
class Expired:
    """What was expired, or would be."""

    table: str
    snapshots: tuple[int, ...]
    """Their ids, oldest first."""
    kept: int
    """Snapshots that are left."""
    files: int
    """Files that nothing else needed: data, deletes and manifests."""
    bytes: int
    """Of these files."""
    dry_run: bool
    left: int = 0
    """Files of those that could not be deleted; ``remove_orphans`` finds them."""


def expire_snapshots(
    name: str,
    *,
    older_than: Age | None = None,
    keep: int | None = None,
    snapshots: Sequence[int] | None = None,
    dry_run: bool = False,
    catalog: CatalogSettings | None = None,
) -> Expired:
    """Forget old snapshots of a table, and delete the files that only they needed.

    ``older_than``: a snapshot younger than this stays, also one that was rolled back (default: the table's
    ``history.expire.max-snapshot-age-ms``, else 5 days). ``keep``: the newest of each branch that stay whatever their
    age (default: its ``history.expire.min-snapshots-to-keep``, else 1). A branch that says of itself that it keeps more
    of them, or for longer, does. ``snapshots``: these ids, instead of an age. ``dry_run``: change nothing, and tell
    what would be done.

    What a branch or tag points to always stays. Who reads an expired snapshot at that moment may find its files gone.
    A ``run_key`` whose snapshot expired is still known.

    Raises :class:`UsageError` (one of ``snapshots`` is a branch's or tag's), :class:`SnapshotNotFoundError`,
    :class:`NotSupportedError` (``gc.enabled=false``, format version 3), :class:`ConflictError`: nothing was expired.
    """
    arguments.flag(dry_run, "dry_run")
    limit = None if older_than is None else age(older_than, "older_than")
    if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
        raise UsageError(
            f"keep={keep!r} is not a whole number above 0.", hint="keep=1 keeps each branch's head."
        )
    if snapshots is not None and not (older_than is None and keep is None):
        raise UsageError(
            "snapshots= and older_than= or keep= contradict each other.",
            hint="Give the ids alone, or an age.",
        )
    settled = catalogs.settings(catalog)
    start, wait = time.monotonic(), 0.05
    while True:
        table = catalogs.load(name, settled)
        refuse_without_deleting(table, name)
        statement = f"CALL shoal.system.expire_snapshots(table => '{name}')"
        refuse_newer(table, name, f"On Spark: {statement}", metadata_only=True)
        chosen = (
            _named(table, name, snapshots)
            if snapshots is not None
            else expirable(table.metadata, limit, keep)
        )
        ids = tuple(snapshot.snapshot_id for snapshot in chosen)
        candidates, kept = _files(table, chosen), len(table.metadata.snapshots) - len(ids)
        if dry_run or not ids:
            gone = _only_theirs(table, chosen, candidates)
            return Expired(name, ids, kept, len(gone), _sized(table, gone), dry_run)
        try:
            reach(settled, f"expire snapshots of {name}", lambda: _commit(table, ids))  # noqa: B023 - run here
            break
        except CommitFailedException as error:
            if time.monotonic() - start > TRIES_SECONDS:
                raise ConflictError(
                    f"{name} was changed by others all the while: {error}",
                    hint="Nothing was expired. Run it again when fewer write to it.",
                ) from error
        time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        wait = min(wait * 2, 1.0)
    # Loaded again, after the commit: whatever else has landed meanwhile keeps its files.
    now = catalogs.load(name, settled)
    must_stay = (
        needed(now) if now.metadata.table_uuid == table.metadata.table_uuid else {bare(p) for p in candidates}
    )
    gone = {path: size for path, size in candidates.items() if bare(path) not in must_stay}
    size, left = _sized(table, gone), 0
    for path in gone:
        try:
            with suppress(FileNotFoundError):
                table.io.delete(path)
        except OSError:
            left += 1
    return Expired(name, ids, kept, len(gone), size, dry_run=False, left=left)


def expirable(metadata: TableMetadata, limit: dt.timedelta | None, keep: int | None) -> list[Snapshot]:
    """The snapshots that are older than a limit and that neither a branch, within its own number and age, nor a tag
    needs; ``None``: as the table says."""
    if limit is None:
        lasts = arguments.number(metadata.properties, "history.expire.max-snapshot-age-ms", _LASTS_MS)
    else:
        lasts = int(limit.total_seconds() * 1000)
    if keep is None:
        keep = arguments.number(metadata.properties, "history.expire.min-snapshots-to-keep", 1)
    now = time.time() * 1000
    cutoff = now - lasts
    known = {s.snapshot_id: s for s in metadata.snapshots}
    stay = set()
    for ref in metadata.refs.values():
        number, since = 1, now
        if ref.snapshot_ref_type == SnapshotRefType.BRANCH:
            number = max(keep, ref.min_snapshots_to_keep or 1)
            since = now - (ref.max_snapshot_age_ms or 0)
        current = known.get(ref.snapshot_id)
        while current is not None and (number > 0 or current.timestamp_ms > since):
            stay.add(current.snapshot_id)
            current, number = known.get(current.parent_snapshot_id or 0), number - 1
    old = [s for s in metadata.snapshots if s.timestamp_ms < cutoff and s.snapshot_id not in stay]
    return sorted(old, key=lambda s: (s.sequence_number or 0, s.timestamp_ms))


def _named(table: Table, name: str, given: Sequence[int]) -> list[Snapshot]:
    refs: dict[int, list[str]] = {}
    for ref, target in table.metadata.refs.items():
        refs.setdefault(target.snapshot_id, []).append(f"the {target.snapshot_ref_type.value} {ref!r}")
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise UsageError(
            f"snapshots={given!r} is not a list of ids.", hint=f"shoal.snapshots({name!r}) lists them."
        )
    found = []
    for one in given:
        try:
            snapshot = table.metadata.snapshot_by_id(operator.index(one))
        except TypeError as error:
            raise UsageError(
                f"{one!r} ({type(one).__name__}) is not a snapshot's id.",
                hint=f"shoal.snapshots({name!r}) lists them.",
            ) from error
        if snapshot is None:
            raise SnapshotNotFoundError(
                f"{name} has no snapshot {one}; nothing was expired.",
                hint=f"shoal.snapshots({name!r}) lists them.",
            )
        if snapshot.snapshot_id in refs:
            raise UsageError(
                f"Snapshot {one} of {name} is what {' and '.join(refs[snapshot.snapshot_id])} points to; nothing was "
                "expired.",
                hint="Leave it out, or drop the tag or branch first: shoal.drop_tag, shoal.drop_branch.",
            )
        if snapshot not in found:
            found.append(snapshot)
    return found


def _files(table: Table, snapshots: Collection[Snapshot]) -> dict[str, int]:
    """Every file that snapshots refer to, with its bytes; of a manifest list they are asked for by :func:`_sized`."""
    found = dict.fromkeys((snapshot.manifest_list for snapshot in snapshots), _ASK)
    found |= {m.manifest_path: m.manifest_length for s in snapshots for m in s.manifests(table.io)}
    return found | data_of(table.io, snapshots)


def _sized(table: Table, files: dict[str, int]) -> int:
    """The bytes of files, without those that cannot be looked at."""
    total = 0
    for path, size in files.items():
        with suppress(OSError):
            total += len(table.io.new_input(path)) if size == _ASK else size
    return total


def _only_theirs(table: Table, chosen: Collection[Snapshot], candidates: dict[str, int]) -> dict[str, int]:
    ids = {s.snapshot_id for s in chosen}
    others = [s for s in table.metadata.snapshots if s.snapshot_id not in ids]
    kept = {bare(path) for path in _files(table, others)}
    return {path: size for path, size in candidates.items() if bare(path) not in kept}


class _SameRefs(AssertRefSnapshotId):
    """Every branch and tag is as it was, and there is no new one: it may be on what is to be expired.

    A catalog that is asked over REST is only told of the one branch or tag, for the protocol has no more.
    """

    _refs: dict[str, Any] = PrivateAttr(default_factory=dict)

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override] # as PyIceberg has it
        super().validate(base_metadata)
        if base_metadata is None or dict(base_metadata.refs) != self._refs:
            raise CommitFailedException("Branches or tags were changed by someone else")


def _commit(table: Table, ids: Sequence[int]) -> None:
    metadata = table.metadata
    same = []
    for name, ref in metadata.refs.items():
        requirement = _SameRefs.model_validate({"ref": name, "snapshot-id": ref.snapshot_id})
        requirement._refs = dict(metadata.refs)
        same.append(requirement)
    now = table.catalog.load_table(table.name()).metadata
    there = {s.snapshot_id for s in now.snapshots} & set(ids)
    if not there:
        return  # an answer was lost, and it is asked for again
    uuid = AssertTableUUID(uuid=metadata.table_uuid)
    removal = RemoveSnapshotsUpdate.model_validate({"snapshot-ids": list(ids)})
    try:
        table.catalog.commit_table(table, (uuid, *same), (removal,))
    except ValueError as error:  # PyIceberg's word for a snapshot that is not there any more
        raise CommitFailedException(f"Someone else expired some of the same snapshots: {error}") from error
