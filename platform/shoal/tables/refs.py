"""History, snapshots, rollback and publishing; tags and branches are made and dropped in ``labels``.

Why it exists: every write is a snapshot, so looking back, going back and giving a state a name are one call
each. What it must not do: delete data (expiry and clean-up are maintenance).
"""

from __future__ import annotations

import datetime as dt
import operator
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import AssertRefSnapshotId, AssertTableUUID, SetSnapshotRefUpdate
from pyiceberg.table.update.snapshot import ManageSnapshots

from shoal.errors import UsageError
from shoal.tables import paths
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import ConflictError, SnapshotNotFoundError
from shoal.tables.formats import refuse_newer
from shoal.tables.storage import told
from shoal.tables.writing.runs import properties_after
from shoal.words import count

ID = re.compile(r"-?\d{1,19}")
"""A snapshot's id, as text."""
AsOf = str | dt.datetime | pd.Timestamp


def snapshots(name: str, *, catalog: CatalogSettings | None = None) -> pd.DataFrame:
    """Every snapshot that the table still holds, oldest first, on any branch.

    Columns: ``snapshot_id``, ``parent_id``, ``time`` (UTC), ``operation``, ``added_rows``, ``deleted_rows``,
    ``total_rows``, ``added_files``, ``deleted_files``, ``total_files``, ``run_key``, ``refs``, ``failed_rows`` (that
    broke a rule of ``expect=``; none where no rules were given).
    """
    table = paths.load(name, catalogs.settings(catalog))
    named: dict[int, list[str]] = {}
    for ref, target in table.metadata.refs.items():
        named.setdefault(target.snapshot_id, []).append(ref)
    rows = []
    for snapshot in sorted(table.metadata.snapshots, key=lambda s: (s.sequence_number or 0, s.timestamp_ms)):
        summary = snapshot.summary.additional_properties if snapshot.summary else {}
        rows.append(
            {
                "snapshot_id": snapshot.snapshot_id,
                "parent_id": snapshot.parent_snapshot_id,
                "time": pd.Timestamp(snapshot.timestamp_ms, unit="ms", tz="UTC"),
                "operation": snapshot.summary.operation.value if snapshot.summary else None,
                "added_rows": int(summary.get("added-records", 0)),
                "deleted_rows": int(summary.get("deleted-records", 0)),
                "total_rows": int(summary.get("total-records", 0)),
                "added_files": int(summary.get("added-data-files", 0)),
                "deleted_files": int(summary.get("deleted-data-files", 0)),
                "total_files": int(summary.get("total-data-files", 0)),
                "run_key": summary.get("shoal.run-key"),
                "refs": ", ".join(sorted(named.get(snapshot.snapshot_id, []))),
                "failed_rows": int(failed) if (failed := summary.get("shoal.quality.failed-rows")) else None,
            }
        )
    columns = ["snapshot_id", "parent_id", "time", "operation", "added_rows", "deleted_rows", "total_rows"]
    columns += ["added_files", "deleted_files", "total_files", "run_key", "refs"]
    columns += ["failed_rows"]
    return _frame(rows, columns)


def history(name: str, *, catalog: CatalogSettings | None = None) -> pd.DataFrame:
    """Which snapshot was the table's current one from when on, oldest first.

    Columns: ``time`` (UTC), ``snapshot_id``, ``parent_id``, ``is_current_ancestor`` (no: it was rolled back).
    """
    table = paths.load(name, catalogs.settings(catalog))
    alive = {s.snapshot_id for s in _lineage(table)}
    rows = [
        {
            "time": pd.Timestamp(entry.timestamp_ms, unit="ms", tz="UTC"),
            "snapshot_id": entry.snapshot_id,
            "parent_id": getattr(
                table.metadata.snapshot_by_id(entry.snapshot_id), "parent_snapshot_id", None
            ),
            "is_current_ancestor": entry.snapshot_id in alive,
        }
        for entry in table.history()
    ]
    return _frame(rows, ["time", "snapshot_id", "parent_id", "is_current_ancestor"])


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    # Ids are 63 bits: a column that is a float for a moment, because of a missing parent, corrupts them.
    kinds: dict[str, Any] = {"snapshot_id": "Int64", "parent_id": "Int64"}
    return pd.DataFrame({c: pd.array([r[c] for r in rows], dtype=kinds.get(c)) for c in columns})


def _lineage(table: Table, branch: str = "main") -> list[Any]:
    """A branch's snapshots, newest first."""
    found, current = [], table.metadata.snapshot_by_name(branch)
    while current is not None:
        found.append(current)
        parent = current.parent_snapshot_id
        current = table.metadata.snapshot_by_id(parent) if parent is not None else None
    return found


def resolve(
    table: Table, name: str, snapshot: int | str | None, as_of: AsOf | None, branch: str | None
) -> tuple[int | None, int]:
    """The snapshot that is meant (``None``: the table is empty) and the schema to read it with.

    The current state and a branch are read with the table's present columns, a snapshot, tag or time with
    the columns of its day, as Spark does. Raises :class:`SnapshotNotFoundError`.
    """
    given = [k for k, v in {"snapshot": snapshot, "as_of": as_of, "branch": branch}.items() if v is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} contradict each other.", hint="Give one of them.")
    metadata = table.metadata
    if snapshot is None and as_of is None:
        ref = "main" if branch is None else branch
        check_branch(table, name, ref)
        head = metadata.snapshot_by_name(ref)
        return (head.snapshot_id if head else None), metadata.current_schema_id
    if as_of is not None:
        when = _instant(as_of)
        found = table.snapshot_as_of_timestamp(int(when.timestamp() * 1000))
        if found is None:
            raise missing(table, name, f"snapshot as old as {when.isoformat()}")
    else:
        found = _snapshot(table, name, snapshot)
    schema_id = found.schema_id if found.schema_id is not None else metadata.current_schema_id
    return found.snapshot_id, schema_id


def check_branch(table: Table, name: str, branch: str) -> None:
    """Raise :class:`SnapshotNotFoundError` if there is no such branch, :class:`UsageError` if it is a tag."""
    if not isinstance(branch, str):
        raise UsageError(f"branch={branch!r} is not a name.", hint=f"Its names: {_refs(table)}.")
    ref = table.metadata.refs.get(branch)
    if ref is None and branch != "main":
        raise missing(table, name, f"branch {branch!r}")
    if ref is not None and ref.snapshot_ref_type != SnapshotRefType.BRANCH:
        raise UsageError(
            f"{branch!r} is a tag of {name}, which stays on its snapshot, not a branch.",
            hint=f"Read it with snapshot={branch!r}; to write on from there, start a branch: "
            f"shoal.branch({name!r}, NAME, snapshot={branch!r})",
        )


def _snapshot(table: Table, name: str, given: object) -> Snapshot:
    """By its id, as a number or text, or by a tag or branch; a name of digits is a name first."""
    if isinstance(given, str):
        found = table.metadata.snapshot_by_name(given)
        if found is None and ID.fullmatch(given):
            found = table.metadata.snapshot_by_id(int(given))
        if found is None:
            raise missing(table, name, f"snapshot, tag or branch {given!r}")
        return found
    try:
        number = operator.index(given)  # type: ignore[arg-type] # what is not a whole number says so
    except TypeError:
        number = None
    if number is None or isinstance(given, bool):
        raise UsageError(
            f"{given!r} ({type(given).__name__}) is not a snapshot.",
            hint=f"Give an id of shoal.snapshots({name!r}), a whole number, or the name of a tag; a time is as_of=.",
        )
    found = table.metadata.snapshot_by_id(number)
    if found is None:
        raise missing(table, name, f"snapshot {number}")
    return found


def _refs(table: Table) -> str:
    return ", ".join(sorted(table.metadata.refs)) or "none"


def missing(table: Table, name: str, what: str) -> SnapshotNotFoundError:
    """The error for a snapshot, tag or branch that there is not."""
    return SnapshotNotFoundError(
        f"{name} has no {what}.",
        hint=f"Its branches and tags: {_refs(table)}. Its {count(len(table.metadata.snapshots), 'snapshot')}: "
        f"shoal.snapshots({name!r}).",
    )


def _instant(as_of: AsOf) -> pd.Timestamp:
    bad = UsageError(f"as_of={as_of!r} is not a time.", hint='For example "2026-11-21 12:00" (UTC).')
    if not isinstance(as_of, (str, dt.date, np.datetime64)):
        raise bad  # a number, which pandas would take for nanoseconds
    try:
        when = pd.Timestamp(as_of)
    except (ValueError, TypeError, OverflowError) as error:
        raise bad from error
    if pd.isna(when):
        raise bad
    return when.tz_localize("UTC") if when.tzinfo is None else when.tz_convert("UTC")


def rollback(name: str, snapshot: int | str, *, catalog: CatalogSettings | None = None) -> None:
    """Make a snapshot (its id, or a tag) that was the table's current state once that again.

    Later ones stay in its history until they expire, so a rollback can be undone: roll back to the snapshot that
    was the current one. A snapshot that was only ever a branch's is refused. What a ``run_key`` wrote since then is
    written again when it is run again.

    Raises :class:`SnapshotNotFoundError`, :class:`ConflictError` if someone else wrote meanwhile.
    """
    table = catalogs.load(name, catalog)
    target, _ = resolve(table, name, snapshot, None, None)
    assert target is not None, "a named snapshot exists"
    current = table.metadata.current_snapshot_id
    if target == current:
        return
    past = {s.snapshot_id for s in _lineage(table)}
    if target not in past and target not in _once_current(table):
        raise SnapshotNotFoundError(
            f"Snapshot {target} never was the current state of {name}: it is a branch's.",
            hint=f"shoal.history({name!r}) shows which snapshots were.",
        )
    statement = f"CALL shoal.system.set_current_snapshot('{name}', {target})"
    refuse_newer(table, name, f"On Spark: {statement}", metadata_only=True)
    forgotten, again = properties_after(table.metadata, target)
    with managing(name, table), table.transaction() as change:
        # Not PyIceberg's `rollback_to_snapshot`, which goes to ancestors alone, so never forward again.
        ManageSnapshots(change).set_current_snapshot(snapshot_id=target).commit()
        if forgotten:
            change.remove_properties(*forgotten)
        if again:
            change.set_properties(again)


def _once_current(table: Table) -> set[int]:
    """The snapshots that the log says were current, and those that these were made from."""
    found: set[int] = set()
    for entry in table.history():
        current = table.metadata.snapshot_by_id(entry.snapshot_id)
        while current is not None and current.snapshot_id not in found:
            found.add(current.snapshot_id)
            parent = current.parent_snapshot_id
            current = table.metadata.snapshot_by_id(parent) if parent is not None else None
    return found


def publish(name: str, branch: str, *, catalog: CatalogSettings | None = None) -> int:
    """Make what a branch holds the table's current state; returns its snapshot's id.

    For write, audit, publish: write to a branch, look at it, then let everybody see it. ``main`` is moved to the
    branch's head and nothing is copied. A branch that is published already is left as it is.

    Raises :class:`ConflictError` if somebody wrote to ``main`` since the branch was started, or meanwhile;
    :class:`SnapshotNotFoundError`. Nothing was changed then.
    """
    table = catalogs.load(name, catalog)
    check_branch(table, name, branch)
    metadata = table.metadata
    new, main = metadata.snapshot_by_name(branch), metadata.refs.get("main")
    assert new is not None, "a branch has a snapshot"
    if main is not None and new.snapshot_id in {s.snapshot_id for s in _lineage(table, "main")}:
        return new.snapshot_id
    if main is not None and main.snapshot_id not in {s.snapshot_id for s in _lineage(table, branch)}:
        raise _diverged(table, name, branch)
    statement = f"CALL shoal.system.fast_forward('{name}', 'main', '{branch}')"
    refuse_newer(table, name, f"On Spark: {statement}", metadata_only=True)
    kept = main.model_dump(by_alias=True, exclude_none=True) if main is not None else {"type": "branch"}
    update = SetSnapshotRefUpdate.model_validate(
        {**kept, "action": "set-snapshot-ref", "ref-name": "main", "snapshot-id": new.snapshot_id}
    )
    requirements = (
        AssertTableUUID(uuid=metadata.table_uuid),
        _still("main", main.snapshot_id if main is not None else None),
        _still(branch, new.snapshot_id),
    )
    with managing(name, table):
        table.catalog.commit_table(table, requirements, (update,))
    return new.snapshot_id


def _still(ref: str, snapshot_id: int | None) -> AssertRefSnapshotId:
    return AssertRefSnapshotId.model_validate({"ref": ref, "snapshot-id": snapshot_id})


def _diverged(table: Table, name: str, branch: str) -> ConflictError:
    past = _lineage(table, branch)
    ours = {s.snapshot_id for s in past}
    theirs = [s for s in _lineage(table, "main") if s.snapshot_id not in ours]
    added = [s for s in past if s.snapshot_id not in {t.snapshot_id for t in _lineage(table, "main")}]

    def said(snapshots: list[Any]) -> str:
        operation = snapshots[0].summary.operation.value if snapshots[0].summary else "unknown"
        more = f" and {len(snapshots) - 1} before it" if len(snapshots) > 1 else ""
        when = pd.Timestamp(snapshots[0].timestamp_ms, unit="ms", tz="UTC").isoformat(timespec="seconds")
        return f"snapshot {snapshots[0].snapshot_id} ({operation}, {when}){more}"

    return ConflictError(
        f"main and the branch {branch!r} of {name} have both moved: main has {said(theirs)}, {branch!r} has "
        f"{said(added)}, and neither has what the other has.",
        hint="Nothing was changed. Start another branch at main, write the rows to it, and publish that: "
        f"shoal.branch({name!r}, NAME)",
        main=theirs[0].snapshot_id,
        branch=added[0].snapshot_id,
    )


@contextmanager
def managing(name: str, table: Table) -> Iterator[None]:
    """Errors of a change of refs in the block are told as ours."""
    what = f"The metadata of {name} could not be written, and nothing was changed"
    try:
        with told(what, table.location(), io=table.io, table=name):
            yield
    except CommitFailedException as error:
        raise ConflictError(
            f"Someone else changed {name} at the same moment: {error}", hint="Nothing was done. Try again."
        ) from error
