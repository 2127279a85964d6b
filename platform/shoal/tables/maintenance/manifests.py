"""``rewrite_manifests``: the lists of a table's files put together.

Why it exists: each write adds a manifest, and planning a read opens all of them. What it must not do: touch data files,
or change which of them the table has.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from shoal.tables import arguments
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.formats import refuse_newer
from shoal.tables.pyiceberg_commits import groups_of_manifests
from shoal.tables.refs import check_branch
from shoal.tables.storage import told
from shoal.tables.writing.commit import CommitRequest, commit


@dataclass(frozen=True)
class RewrittenManifests:
    """What was put together, or would be."""

    table: str
    snapshot_id: int
    """The ``replace`` snapshot; 0 if there was nothing to do."""
    manifests: int
    """Manifests that there were."""
    manifests_after: int
    dry_run: bool


def rewrite_manifests(
    name: str, *, branch: str = "main", dry_run: bool = False, catalog: CatalogSettings | None = None
) -> RewrittenManifests:
    """Put manifests together, up to the table's ``commit.manifest.target-size-bytes`` (8 MiB), neighbours by partition.

    One snapshot of the same files; whoever writes meanwhile is not in the way. ``dry_run``: change nothing, and tell
    what would be done.

    Raises :class:`UsageError`, :class:`NotSupportedError` (format version 3), :class:`ConflictError` (the table is too
    busy), :class:`StorageError`, :class:`CommitUnknownError`.
    """
    arguments.flag(dry_run, "dry_run")
    settled = catalogs.settings(catalog)
    table = catalogs.load(name, settled)
    check_branch(table, name, branch)
    refuse_newer(table, name, f"On Spark: CALL shoal.system.rewrite_manifests(table => '{name}')")
    snapshot = table.metadata.snapshot_by_name(branch)
    groups = []
    if snapshot is not None:
        with told(f"The metadata of {name} could not be read", table.location(), io=table.io, table=name):
            groups = groups_of_manifests(snapshot.manifests(table.io), table.properties)
    before = sum(len(group) for _, group, _ in groups)
    after = sum(min(len(group), count) for _, group, count in groups)
    if dry_run or after >= before:
        return RewrittenManifests(name, 0, before, after, dry_run)
    attempt = uuid.uuid4().hex
    request = CommitRequest(
        name=name,
        base=table.metadata,
        files=(),
        key=attempt,
        remember=False,
        attempt=attempt,
        branch=branch,
        removal=lambda _: (),
        rewrite="manifests",
    )
    return RewrittenManifests(name, commit(request, settled).snapshot_id, before, after, dry_run)
