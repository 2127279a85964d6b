"""Which files a replacement takes out, and whether someone else touched them meanwhile.

Why it exists: a write that replaces rows was computed from the table as it was when it began. If those rows
are no longer what they were, replacing them would lose the other writer's work in silence. What it must not
do: read data files.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from pyiceberg.table import DataScan, Table
from pyiceberg.types import DoubleType, FloatType

from shoal.tables.errors import ConflictError, NotSupportedError
from shoal.tables.pyiceberg_private import DataFile
from shoal.tables.reading.equality import REWRITE_ALL, files_of

_Within = Callable[[DataFile], bool]


def live_files(table: Table, snapshot_id: int | None) -> dict[str, tuple[DataFile, frozenset[str]]]:
    """Path -> data file and its delete files, of a snapshot (``None``: of an empty table)."""
    if snapshot_id is None:
        return {}
    tasks = files_of(DataScan(table.metadata, table.io, snapshot_id=snapshot_id), ".".join(table.name()))
    return {t.file.file_path: (t.file, frozenset(d.file_path for d in t.delete_files)) for t in tasks}


def head(table: Table, branch: str) -> int | None:
    """The snapshot at the head of a branch."""
    snapshot = table.metadata.snapshot_by_name(branch)
    return snapshot.snapshot_id if snapshot is not None else None


def _removal(
    base: Table, name: str, branch: str, scope: _Within, what: str
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
    floats = floating(base)
    chosen = {tuple(_key(f.partition[i]) for i in range(len(f.partition))) for f in written}

    def scope(file: DataFile) -> bool:
        if file.spec_id != spec_id:
            raise NotSupportedError(
                f"{name} holds files of an earlier partitioning, so no single partition can be replaced.",
                hint=f"Rewrite it once with Spark: {REWRITE_ALL.format(name=name)}",
            )
        values = [file.partition[i] for i in range(len(file.partition))]
        exact = [_by_bounds(file, floats[i]) if i in floats else None for i in range(len(values))]
        held = tuple(_key(v if e is None else e) for v, e in zip(values, exact, strict=True))
        for i in floats:
            if exact[i] is None and held not in chosen and _may_be_rounded(held, i, chosen):
                raise NotSupportedError(
                    f"Whether a file of {name} is of a partition that this write replaces cannot be told: "
                    f"partition values in manifests may be rounded, and the file has no statistics ({values}).",
                    hint='Write with mode="overwrite", or to a table partitioned by another column.',
                )
        return held in chosen

    return _removal(base, name, branch, scope, "a partition that this write replaces")


def floating(table: Table) -> dict[int, int]:
    """Where in a partition there are floating numbers, and the ids of their columns."""
    found = {}
    for i, part in enumerate(table.spec().fields):
        column = next((f for f in table.schema().fields if f.field_id == part.source_id), None)
        if column is not None and isinstance(column.field_type, (FloatType, DoubleType)):
            found[i] = part.source_id
    return found


def _key(value: Any) -> Any:
    """A partition's value as what it equals: NaN is one value, 0.0 and -0.0 are two, as in Iceberg's own library."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value.hex()
    return value


def _by_bounds(file: DataFile, column: int) -> float | None:
    """The one number that a file holds in a column. PyIceberg's manifests keep it in half its bits, bounds in all."""
    low, high = (file.lower_bounds or {}).get(column), (file.upper_bounds or {}).get(column)
    if low is None or low != high:
        return None  # 0.0 has the bounds -0.0 and 0.0, and no half of its bits is lost
    value: float = struct.unpack("<f" if len(low) == 4 else "<d", low)[0]
    return None if math.isnan(value) else value


def _may_be_rounded(held: tuple[Any, ...], at: int, chosen: Iterable[tuple[Any, ...]]) -> bool:
    for key in chosen:
        alike = all(a == b for i, (a, b) in enumerate(zip(held, key, strict=True)) if i != at)
        if alike and None not in (key[at], held[at]) and "NaN" not in (key[at], held[at]):
            number = float.fromhex(key[at])
            if float(np.float32(number)).hex() == held[at]:
                return True
    return False
