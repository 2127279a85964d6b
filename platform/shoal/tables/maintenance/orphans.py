"""``remove_orphans``: files in a table's folders that nothing refers to.

Why it exists: a writer that was killed, by whatever engine, leaves files that are nobody's. What it must not do: take
what a live writer has written and not yet committed. Nobody knows all writers, so what is young is left; and as a
write's files are in a folder of its own, none of that folder is taken while any file in it is young.
"""

from __future__ import annotations

import datetime as dt
import re
from contextlib import suppress
from dataclasses import dataclass

from pyiceberg.table import Table

from shoal.errors import UsageError
from shoal.tables import arguments
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import NotSupportedError, TableChangedError
from shoal.tables.maintenance.reachable import (
    Age,
    FoundFile,
    age,
    files_in,
    folders_of,
    needed,
    refuse_without_deleting,
)
from shoal.tables.storage import told
from shoal.tables.writing.sweep import bare, stranger

LEAST = dt.timedelta(hours=24)
"""The youngest that an orphan may be: the file of a long write is hours old before it is committed."""
_ATTEMPT = re.compile(r"^(.*/run-[0-9a-f]{20}/[0-9a-f]{32})/")


@dataclass(frozen=True)
class Orphans:
    """Files that nothing refers to."""

    table: str
    paths: tuple[str, ...]
    """Those that were deleted, or would be."""
    bytes: int
    young: int
    """Files that nothing refers to either, and that may be a live writer's."""
    dry_run: bool
    left: int = 0
    """Files of ``paths`` that could not be deleted."""


def remove_orphans(
    name: str, *, older_than: Age = "3 days", dry_run: bool = True, catalog: CatalogSettings | None = None
) -> Orphans:
    """Find the files in a table's folders that none of its snapshots refers to, and delete them if asked to.

    ``older_than``: younger files are left, for they may be those of a write that goes on; at least 24 hours. All files
    of one write of Shoal's are left while one of them is young. ``dry_run=False`` deletes.

    Raises :class:`UsageError` for less than 24 hours, :class:`NotSupportedError` where files of another table are or
    may be in the same folders, :class:`TableChangedError` if the table was dropped meanwhile: nothing was deleted.
    """
    arguments.flag(dry_run, "dry_run")
    limit = age(older_than, "older_than")
    if limit < LEAST:
        raise UsageError(
            f"older_than={older_than!r} is less than 24 hours: files of a write that goes on could be taken "
            "for orphans.",
            hint='Use "24h" or more; the default is "3 days".',
        )
    settled = catalogs.settings(catalog)
    table = catalogs.load(name, settled)
    refuse_without_deleting(table, name)
    cutoff = dt.datetime.now(dt.UTC) - limit
    with told(f"The folders of {name} could not be listed", table.location(), io=table.io, table=name):
        found = [file for folder in folders_of(table) for file in files_in(table.io, folder)]
        _refuse_shared(table, name, found)
    now = catalogs.load(name, settled)  # after the listing: what was listed and has landed since is in it
    if now.metadata.table_uuid != table.metadata.table_uuid:
        raise TableChangedError(f"{name} was dropped and made again meanwhile.", hint="Nothing was deleted.")
    kept = needed(now)
    nobodys = [
        file
        for file in found
        if _checked(bare(file.path)) not in kept and not file.path.endswith("version-hint.text")
    ]
    active = {attempt for file in found if file.changed > cutoff and (attempt := _attempt(file.path))}
    orphans = [f for f in nobodys if f.changed <= cutoff and _attempt(f.path) not in active]
    left = 0
    if not dry_run:
        for file in orphans:
            try:
                with suppress(FileNotFoundError):
                    file.delete()
            except OSError:
                left += 1
    return Orphans(
        name,
        tuple(sorted(file.path for file in orphans)),
        sum(file.bytes for file in orphans),
        len(nobodys) - len(orphans),
        dry_run,
        left,
    )


def _checked(path: str) -> str:
    """The file whose checksum this is, as Hadoop's local file system writes one beside each; or the file itself."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name[1:-4]}" if name.startswith(".") and name.endswith(".crc") else path


def _attempt(path: str) -> str | None:
    """The folder of the one write that the file is of, where its path says so."""
    match = _ATTEMPT.match(path)
    return match[1] if match else None


def _refuse_shared(table: Table, name: str, found: list[FoundFile]) -> None:
    own = bare(table.metadata_location.rsplit("/", 1)[0])
    others = [
        f.path for f in found if f.path.endswith(".metadata.json") and bare(f.path.rsplit("/", 1)[0]) != own
    ]
    other = (others[0], table.metadata.table_uuid) if others else stranger(table)
    if other is not None and other[1] is None:
        raise NotSupportedError(
            f"The metadata file {other[0]} cannot be read, so nobody can say whether it is of {name}, or of another "
            "table in the same folder, whose data files are not told from orphans; nothing was deleted.",
            hint="If it is a damaged old one of this table, delete it by hand.",
        )
    if other is not None and other == (table.metadata_location, table.metadata.table_uuid):
        raise NotSupportedError(
            f"The metadata of {name} is in {table.metadata_location.rpartition('/')[0]}, outside of its own folder, so "
            "nobody can say whether files there are another table's; nothing was deleted.",
            hint=f"Where they are not, Spark finds them: CALL shoal.system.remove_orphan_files(table => '{name}')",
        )
    if other is not None:
        where = f" ({other[0]})"
        raise NotSupportedError(
            f"In the folders of {name} there are metadata files of another table{where}, whose data files are not told "
            "from orphans; nothing was deleted.",
            hint="A table that was renamed stays where it was, and one that was dropped leaves its files. Copy one of "
            "them to another place, or delete by hand what is left of the one that was dropped.",
        )
