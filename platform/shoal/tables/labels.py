"""Tags and branches: names for states of a table, given and taken off.

Why it exists: a name is given while others write, so it is tried again beside them. What it must not do: change what a
snapshot holds, or delete data.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update.snapshot import ManageSnapshots

from shoal.errors import UsageError
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import ConflictError, SnapshotNotFoundError
from shoal.tables.formats import refuse_newer
from shoal.tables.refs import ID, managing, missing, resolve
from shoal.tables.writing.runs import properties_of_branch
from shoal.tables.writing.turns import turn

TRIES_SECONDS = 60.0
"""How long a tag or branch is tried to be made or dropped beside writers that commit meanwhile."""


def tag(
    name: str, tag: str, *, snapshot: int | str | None = None, catalog: CatalogSettings | None = None
) -> int:
    """Give a snapshot (default: the current one) a name that stays on it; returns its id."""
    return _give(name, tag, SnapshotRefType.TAG, snapshot, catalog)


def branch(
    name: str, branch: str, *, snapshot: int | str | None = None, catalog: CatalogSettings | None = None
) -> int:
    """Start a branch at a snapshot (default: the current one); returns its id. ``write_table(branch=...)``
    adds to it, ``read_table(branch=...)`` reads it."""
    return _give(name, branch, SnapshotRefType.BRANCH, snapshot, catalog)


def drop_tag(name: str, tag: str, *, catalog: CatalogSettings | None = None) -> int:
    """Take a tag off its snapshot, which stays until it expires; returns the snapshot's id.

    Raises :class:`SnapshotNotFoundError` if there is no such tag.
    """
    return _drop(name, tag, SnapshotRefType.TAG, catalog)


def drop_branch(name: str, branch: str, *, catalog: CatalogSettings | None = None) -> int:
    """End a branch; returns the id of the snapshot that it pointed to. What was written to it alone stays until it
    expires: ``shoal.branch(name, branch, snapshot=ID)`` starts it there again.

    Raises :class:`SnapshotNotFoundError` if there is no such branch, :class:`UsageError` for ``main``.
    """
    if branch == "main":
        raise UsageError(
            f"The branch 'main' is {name} itself.", hint="Another branch, or a tag, can be dropped."
        )
    return _drop(name, branch, SnapshotRefType.BRANCH, catalog)


def _give(
    name: str,
    ref: str,
    kind: SnapshotRefType,
    snapshot: int | str | None,
    catalog: CatalogSettings | None,
) -> int:
    def once(table: Table) -> int:
        target = _named(table, name, ref, snapshot)
        manage = table.manage_snapshots()
        create = manage.create_tag if kind == SnapshotRefType.TAG else manage.create_branch
        create(target, ref).commit()
        return target

    at = f" AS OF VERSION {snapshot}" if isinstance(snapshot, int) else ""
    return _until_nobody_else(
        name, catalog, once, f"ALTER TABLE shoal.{name} CREATE {kind.value.upper()} `{ref}`{at}"
    )


def _drop(name: str, ref: str, kind: SnapshotRefType, catalog: CatalogSettings | None) -> int:
    def once(table: Table) -> int:
        found = table.metadata.refs.get(ref)
        if found is not None and found.snapshot_ref_type != kind:
            other = found.snapshot_ref_type.value
            raise SnapshotNotFoundError(
                f"{name} has no {kind.value} {ref!r}: that is a {other}.",
                hint=f"To drop it: shoal.drop_{other}({name!r}, {ref!r}), or shoal tables drop-{other} {name} {ref}",
            )
        if found is None:
            raise missing(table, name, f"{kind.value} {ref!r}")
        with table.transaction() as change:
            ManageSnapshots(change).remove_tag(ref).commit()
            if forgotten := properties_of_branch(table.metadata, ref):
                change.remove_properties(*forgotten)
        return found.snapshot_id

    return _until_nobody_else(
        name, catalog, once, f"ALTER TABLE shoal.{name} DROP {kind.value.upper()} `{ref}`"
    )


def _until_nobody_else(
    name: str, catalog: CatalogSettings | None, once: Callable[[Table], int], statement: str
) -> int:
    """Do it to the table as it is now; if someone else commits at the same moment, to what it is then.

    ``statement``: the same in Spark's words.
    """
    start, wait, settled = time.monotonic(), 0.05, catalogs.settings(catalog)
    while True:
        with turn(catalogs.load(name, settled).location(), settled):
            table = catalogs.load(name, settled)
            refuse_newer(table, name, f"On Spark: {statement}", metadata_only=True)
            try:
                with managing(name, table):
                    return once(table)
            except ConflictError:
                if time.monotonic() - start > TRIES_SECONDS:
                    raise
        time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        wait = min(wait * 2, 1.0)


def _named(table: Table, name: str, ref: str, snapshot: int | str | None) -> int:
    if not isinstance(ref, str) or not ref.strip():
        raise UsageError(f"{ref!r} is not a name.", hint='For example "before-upsert".')
    if ID.fullmatch(ref) and table.metadata.snapshot_by_id(int(ref)) is not None:
        raise UsageError(
            f"{ref!r} is a snapshot's id in {name}: as a name it would mean two things.",
            hint="Choose another name.",
        )
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
