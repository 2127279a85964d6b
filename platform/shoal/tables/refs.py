"""History, snapshots, rollback, tags and branches.

Why it exists: every write is a snapshot, so looking back, going back and giving a state a name are one call
each. What it must not do: delete data (expiry and clean-up are maintenance).
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from shoal.errors import UsageError
from shoal.tables import catalog as catalogs
from shoal.tables.catalog import CatalogSettings
from shoal.tables.errors import ConflictError, SnapshotNotFoundError

AsOf = str | dt.datetime | pd.Timestamp


def snapshots(name: str, *, catalog: CatalogSettings | None = None) -> pd.DataFrame:
    """Every snapshot that the table still holds, oldest first, on any branch.

    Columns: ``snapshot_id``, ``parent_id``, ``time`` (UTC), ``operation``, ``added_rows``, ``deleted_rows``,
    ``total_rows``, ``added_files``, ``deleted_files``, ``total_files``, ``run_key``, ``refs``.
    """
    table = catalogs.load(name, catalog)
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
            }
        )
    columns = ["snapshot_id", "parent_id", "time", "operation", "added_rows", "deleted_rows", "total_rows"]
    columns += ["added_files", "deleted_files", "total_files", "run_key", "refs"]
    return _frame(rows, columns)


def history(name: str, *, catalog: CatalogSettings | None = None) -> pd.DataFrame:
    """Which snapshot was the table's current one from when on, oldest first.

    Columns: ``time`` (UTC), ``snapshot_id``, ``parent_id``, ``is_current_ancestor`` (no: it was rolled back).
    """
    table = catalogs.load(name, catalog)
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


def _lineage(table: Table) -> list[Any]:
    found, current = [], table.metadata.current_snapshot()
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
        ref = branch or "main"
        if branch is not None and ref not in metadata.refs and ref != "main":
            raise _missing(table, name, f"branch {ref!r}")
        head = metadata.snapshot_by_name(ref)
        return (head.snapshot_id if head else None), metadata.current_schema_id
    if as_of is not None:
        when = _instant(as_of)
        found = table.snapshot_as_of_timestamp(int(when.timestamp() * 1000))
        if found is None:
            raise _missing(table, name, f"snapshot as old as {when.isoformat()}")
    elif isinstance(snapshot, str) and not snapshot.lstrip("-").isdigit():
        found = metadata.snapshot_by_name(snapshot)
        if found is None:
            raise _missing(table, name, f"tag or branch {snapshot!r}")
    else:
        found = metadata.snapshot_by_id(int(snapshot or 0))
        if found is None:
            raise _missing(table, name, f"snapshot {snapshot}")
    schema_id = found.schema_id if found.schema_id is not None else metadata.current_schema_id
    return found.snapshot_id, schema_id


def _missing(table: Table, name: str, what: str) -> SnapshotNotFoundError:
    refs = ", ".join(sorted(table.metadata.refs)) or "none"
    return SnapshotNotFoundError(
        f"{name} has no {what}.",
        hint=f"Its branches and tags: {refs}. Its {len(table.metadata.snapshots)} snapshots: "
        f"shoal.snapshots({name!r}).",
    )


def _instant(as_of: AsOf) -> pd.Timestamp:
    try:
        when = pd.Timestamp(as_of)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"as_of={as_of!r} is no time.", hint='For example "2026-11-21 12:00" (UTC).'
        ) from error
    return when.tz_localize("UTC") if when.tzinfo is None else when.tz_convert("UTC")


def rollback(name: str, snapshot: int | str, *, catalog: CatalogSettings | None = None) -> None:
    """Make an earlier snapshot (its id, or a tag) the table's current state. Later ones stay in its history.

    Raises :class:`SnapshotNotFoundError`, also for a snapshot that is no ancestor of the current one.
    """
    table = catalogs.load(name, catalog)
    target, _ = resolve(table, name, snapshot, None, None)
    assert target is not None, "a named snapshot exists"
    if target not in {s.snapshot_id for s in _lineage(table)}:
        raise SnapshotNotFoundError(
            f"Snapshot {target} is not in the past of {name}: it is on another branch, or was rolled back.",
            hint=f"shoal.history({name!r}) shows which snapshots are.",
        )
    _manage(name, lambda manage: manage.rollback_to_snapshot(snapshot_id=target), table)


def tag(
    name: str, tag: str, *, snapshot: int | str | None = None, catalog: CatalogSettings | None = None
) -> int:
    """Give a snapshot (default: the current one) a name that stays on it; returns its id."""
    table = catalogs.load(name, catalog)
    target = _named(table, name, tag, snapshot)
    _manage(name, lambda manage: manage.create_tag(snapshot_id=target, tag_name=tag), table)
    return target


def branch(
    name: str, branch: str, *, snapshot: int | str | None = None, catalog: CatalogSettings | None = None
) -> int:
    """Start a branch at a snapshot (default: the current one); returns its id. ``write_table(branch=...)``
    adds to it, ``read_table(branch=...)`` reads it."""
    table = catalogs.load(name, catalog)
    target = _named(table, name, branch, snapshot)
    _manage(name, lambda manage: manage.create_branch(snapshot_id=target, branch_name=branch), table)
    return target


def _named(table: Table, name: str, ref: str, snapshot: int | str | None) -> int:
    if ref in table.metadata.refs:
        raise UsageError(
            f"{name} has a {table.metadata.refs[ref].snapshot_ref_type.value} named {ref!r} already.",
            hint="Choose another name.",
        )
    target, _ = resolve(table, name, snapshot, None, None)
    if target is None:
        raise SnapshotNotFoundError(
            f"{name} is empty: there is no snapshot to name.", hint="Write to it first."
        )
    return target


def _manage(name: str, action: Any, table: Table) -> None:
    try:
        action(table.manage_snapshots()).commit()
    except CommitFailedException as error:
        raise ConflictError(
            f"Someone else changed {name} at the same moment: {error}", hint="Nothing was done. Try again."
        ) from error
