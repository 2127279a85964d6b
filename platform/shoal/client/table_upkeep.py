"""What the project says of its tables' upkeep, done.

Why it exists: ``tables`` knows no project and a project touches no table; a scheduler wants one call for all of them.

What it must not do: stop at the first table that fails, or do anything that the project does not name.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shoal.errors import ShoalError
from shoal.project.loading import Project
from shoal.project.tables import TablePolicy, policy_of
from shoal.units import Bytes

_log = logging.getLogger("shoal.client")
_NOTHING = "nothing to do"


@dataclass(frozen=True)
class UpkeepStep:
    """One thing that was done for one table, or would be."""

    table: str
    step: str
    """``compact``, ``rewrite_manifests``, ``expire`` or ``orphans``."""
    done: str
    """In words; why not, if it failed."""
    failed: bool = False


def upkeep_tables(project: Project, *, dry_run: bool = False) -> Iterator[UpkeepStep]:
    """Do for each table what ``tables:`` in the project's ``shoal.yaml`` says, one after the other.

    A step that fails is told, and the next one is done: who writes meanwhile may be in the way of one of them.
    ``dry_run``: change nothing. Raises :class:`CatalogUnavailableError`.
    """
    from shoal.tables.listing import list_tables

    for name in list_tables() if project.tables else ():
        policy = policy_of(name, project.tables)
        for step, act in _steps(name, policy, dry_run) if policy is not None else ():
            try:
                yield UpkeepStep(name, step, act())
            except ShoalError as error:
                yield UpkeepStep(name, step, str(error), failed=True)
            except Exception as error:
                _log.debug("%s of %s", step, name, exc_info=error)
                yield UpkeepStep(name, step, f"{type(error).__name__}: {error}", failed=True)


def unused_patterns(project: Project) -> list[str]:
    """The patterns of ``tables:`` that apply to no table: none has such a name, or an earlier pattern matches it."""
    from shoal.tables.listing import list_tables

    if not project.tables:
        return []
    used = {id(policy_of(name, project.tables)) for name in list_tables()}
    return [pattern for pattern, policy in project.tables.items() if id(policy) not in used]


def _steps(name: str, policy: TablePolicy, dry_run: bool) -> Iterator[tuple[str, Callable[[], str]]]:
    from shoal.tables.maintenance.compaction import compact
    from shoal.tables.maintenance.expiry import expire_snapshots
    from shoal.tables.maintenance.manifests import rewrite_manifests
    from shoal.tables.maintenance.orphans import remove_orphans
    from shoal.words import count

    would = "would be " if dry_run else ""

    if (wanted := policy.compact) is not None:

        def compaction() -> str:
            found = compact(
                name,
                sort_by=wanted.sort_by or None,
                zorder_by=wanted.zorder_by or None,
                target_size=int(wanted.target_size) if wanted.target_size is not None else None,
                dry_run=dry_run,
            )
            if not found.files:
                return _NOTHING
            left = f"; {count(found.skipped_files, 'file')} changed by others" if found.skipped_files else ""
            return f"{would}{count(found.files, 'file')} into {found.files_written:,}{left}"

        yield "compact", compaction
    if policy.rewrite_manifests:

        def manifests() -> str:
            found = rewrite_manifests(name, dry_run=dry_run)
            if found.manifests <= found.manifests_after:
                return _NOTHING
            return f"{would}{count(found.manifests, 'manifest')} into {found.manifests_after:,}"

        yield "rewrite_manifests", manifests
    if (limits := policy.expire) is not None:

        def expiry() -> str:
            age = None if limits.older_than is None else dt.timedelta(seconds=limits.older_than)
            found = expire_snapshots(name, older_than=age, keep=limits.keep, dry_run=dry_run)
            if not found.snapshots:
                return _NOTHING
            snapshots, files = count(len(found.snapshots), "snapshot"), count(found.files, "file")
            return f"{would}{snapshots}, {files}, {Bytes(found.bytes)}"

        yield "expire", expiry
    if (nobodys := policy.orphans) is not None:

        def orphans() -> str:
            age = dt.timedelta(seconds=nobodys.older_than)
            found = remove_orphans(name, older_than=age, dry_run=dry_run)
            if not found.paths:
                return _NOTHING
            return f"{would}{count(len(found.paths), 'file')}, {Bytes(found.bytes)}"

        yield "orphans", orphans
