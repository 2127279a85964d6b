"""Which snapshot holds the rows of a run, and which one would.

Why it exists: running it again must land nothing twice, and must land what is not there: a rollback takes a run's rows
out of the branch, though their snapshot stays in the table. What it must not do: change a table.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pyiceberg.table.snapshots import Snapshot

from shoal.tables.pyiceberg_private import TableMetadata

RUN_PROPERTY = "shoal.run."
"""Prefix of the table properties that remember run keys."""


@dataclass(frozen=True)
class Standing:
    """Where a run stands."""

    landed: int | None
    """The snapshot that holds its rows, also if it has since expired."""
    turn: int
    """The turn that landed, or the next to land: a run that was rolled back has another snapshot id at its next."""


def snapshot_id_of(table_uuid: object, branch: str, key: str, turn: int = 0) -> int:
    """63 bits of sha256(table's uuid, branch, key, and of later turns which); never 0."""
    again = (f"turn {turn}",) if turn else ()
    digest = hashlib.sha256("\0".join((*again, str(table_uuid), branch, key)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 1) or 1


def run_property(branch: str, key: str) -> str:
    """The name of the table property under which a run key is remembered."""
    return RUN_PROPERTY + hashlib.sha256(f"{branch}\0{key}".encode()).hexdigest()[:32]


def find_run(metadata: TableMetadata, branch: str, key: str) -> Standing:
    """The snapshot in which a run's rows landed, if they are in the branch's past."""
    known = {s.snapshot_id: s for s in metadata.snapshots}
    remembered = metadata.properties.get(run_property(branch, key))
    last = int(remembered.split("@")[0]) if remembered else None
    ids = _ids(metadata, branch, key)
    free = next(turn for turn, i in enumerate(ids) if i not in known)
    for i in {last, *ids} & known.keys():
        if i is not None and in_past(metadata, branch, known[i]):
            return Standing(i, ids.index(i) if i in ids else free)
    return Standing(last if last not in known else None, free)


def properties_after(metadata: TableMetadata, target: int) -> tuple[list[str], dict[str, str]]:
    """What a rollback of ``main`` has to forget and to remember: the properties of runs that are no longer in its
    past, so that they are not taken for landed when their snapshots expire, and those of runs that are again."""
    known = {s.snapshot_id: s for s in metadata.snapshots}
    past, current = set(), known.get(target)
    while current is not None:
        past.add(current.snapshot_id)
        current = known.get(current.parent_snapshot_id or 0)
    forgotten, again = [], {}
    for snapshot in metadata.snapshots:
        key = _key(snapshot)
        if key is None or snapshot.snapshot_id not in _ids(metadata, "main", key):
            continue
        name = run_property("main", key)
        if snapshot.snapshot_id in past:
            again[name] = f"{snapshot.snapshot_id}@{snapshot.timestamp_ms}"
        elif metadata.properties.get(name, "").startswith(f"{snapshot.snapshot_id}@"):
            forgotten.append(name)
    return [name for name in forgotten if name not in again], again


def properties_of_branch(metadata: TableMetadata, branch: str) -> list[str]:
    """The properties of runs on a branch, to be forgotten with it; those whose snapshots have expired are not known."""
    keys = {key for snapshot in metadata.snapshots if (key := _key(snapshot)) is not None}
    return sorted({run_property(branch, key) for key in keys} & metadata.properties.keys())


def _ids(metadata: TableMetadata, branch: str, key: str) -> list[int]:
    """The snapshot ids of a run's turns, up to one that is free."""
    turns = 2 + sum(_key(snapshot) == key for snapshot in metadata.snapshots)
    return [snapshot_id_of(metadata.table_uuid, branch, key, turn) for turn in range(turns)]


def _key(snapshot: Snapshot) -> str | None:
    return snapshot.summary.additional_properties.get("shoal.run-key") if snapshot.summary else None


def in_past(metadata: TableMetadata, branch: str, wanted: Snapshot) -> bool:
    """Whether a branch was made from a snapshot; where its past has expired, whether it may have been."""
    known = {s.snapshot_id: s for s in metadata.snapshots}
    current = metadata.snapshot_by_name(branch)
    while current is not None and current.snapshot_id != wanted.snapshot_id:
        parent = known.get(current.parent_snapshot_id or 0)
        if parent is None:
            # Where the past seems to begin; if its snapshots were expired, PyIceberg says that there was none.
            return age(wanted) < age(current)
        current = parent
    return current is not None


def age(snapshot: Snapshot) -> tuple[int, int]:
    """By which of two snapshots is the older one."""
    return snapshot.sequence_number or 0, snapshot.timestamp_ms
