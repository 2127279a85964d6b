"""Which files a replacement takes out, and whether someone else touched them meanwhile.

Why it exists: a write that replaces rows was computed from the table as it was when it began. If those rows
are no longer what they were, replacing them would lose the other writer's work in silence. What it must not
do: read data files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pyiceberg.table import DataScan, Table

from shoal.tables.errors import ConflictError, NotSupportedError
from shoal.tables.pyiceberg_private import DataFile
from shoal.tables.reading.equality import files_of

Scope = Callable[[DataFile], bool]


def live_files(table: Table, snapshot_id: int | None) -> dict[str, tuple[DataFile, frozenset[str]]]:
    """Path -> data file and its delete files, of a snapshot (``None``: of an empty table)."""
    if snapshot_id is None:
        return {}
    tasks = files_of(DataScan(table.metadata, table.io, snapshot_id=snapshot_id))
    return {t.file.file_path: (t.file, frozenset(d.file_path for d in t.delete_files)) for t in tasks}


def head(table: Table, branch: str) -> int | None:
    """The snapshot at the head of a branch."""
    snapshot = table.metadata.snapshot_by_name(branch)
    return snapshot.snapshot_id if snapshot is not None else None


def _removal(
    base: Table, name: str, branch: str, scope: Scope, what: str
) -> Callable[[Table], Sequence[DataFile]]:
    base_head = head(base, branch)
    before = {p: v for p, v in live_files(base, base_head).items() if scope(v[0])}

    def plan(now: Table) -> list[DataFile]:
        if head(now, branch) != base_head:
            after = {p: v for p, v in live_files(now, head(now, branch)).items() if scope(v[0])}
            if {p: v[1] for p, v in after.items()} != {p: v[1] for p, v in before.items()}:
                raise ConflictError(
                    f"Someone else changed {what} of {name} while this write was under way (snapshot "
                    f"{base_head} has become {head(now, branch)}).",
                    hint="Nothing was written. Run it again on the table as it is now.",
                    base_snapshot=base_head,
                    current_snapshot=head(now, branch),
                )
            return [v[0] for v in after.values()]
        return [v[0] for v in before.values()]

    return plan


def all_of_it(base: Table, name: str, branch: str) -> Callable[[Table], Sequence[DataFile]]:
    """Take out every file."""
    return _removal(base, name, branch, lambda _: True, "the rows")


def these_files(
    base: Table, paths: Iterable[str], name: str, branch: str
) -> Callable[[Table], Sequence[DataFile]]:
    """Take out these files; any change of the table since is a conflict, for it may concern the same keys."""
    chosen = set(paths)
    plan = _removal(base, name, branch, lambda _: True, "rows that an upsert may concern")
    return lambda now: [f for f in plan(now) if f.file_path in chosen]


def these_partitions(
    base: Table, written: Sequence[DataFile], name: str, branch: str
) -> Callable[[Table], Sequence[DataFile]]:
    """Take out every file of the partitions that were written."""
    if base.spec().is_unpartitioned():
        return all_of_it(base, name, branch)
    spec_id = base.spec().spec_id
    chosen = {tuple(f.partition[i] for i in range(len(f.partition))) for f in written}

    def scope(file: DataFile) -> bool:
        if file.spec_id != spec_id:
            raise NotSupportedError(
                f"{name} holds files of an earlier partitioning, so no single partition can be replaced.",
                hint="Rewrite it once with Spark: CALL shoal.system.rewrite_data_files('namespace.table').",
            )
        return tuple(file.partition[i] for i in range(len(file.partition))) in chosen

    return _removal(base, name, branch, scope, "a partition that this write replaces")
