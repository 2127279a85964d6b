"""Which files of a table are put together. Pure.

Why it exists: compaction and the report of what it would save have to agree. What it must not do: read anything, or put
files of two partitions together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

SMALL = 0.75
"""A file below this share of the size that files should have is small, as Spark's compaction has it."""


@dataclass(frozen=True)
class PackedFile:
    """What packing has to know of a data file."""

    path: str
    place: Hashable
    """Its partition: files of different places stay apart."""
    bytes: int
    weight: float = 0.0
    """Estimated bytes in memory."""
    changed: bool = False
    """It has to be rewritten whatever its size: rows of it are deleted, or it is of an earlier partitioning."""


def pack_small(files: Iterable[PackedFile], target: int) -> list[tuple[PackedFile, ...]]:
    """Groups that make one file each, of files that are small or changed.

    Neighbours are put together up to the target. A small file that finds nobody stays as it is.
    """
    chosen = (file for file in files if file.changed or file.bytes < SMALL * target)
    groups = _by_place(chosen, target, lambda file: file.bytes)
    return [group for group in groups if len(group) > 1 or group[0].changed]


def pack_all(files: Iterable[PackedFile], memory: float) -> list[tuple[PackedFile, ...]]:
    """Groups of all files, each of which fits this much memory; a larger file is a group by itself."""
    return list(_by_place(files, memory, lambda file: file.weight))


def files_after(count: int, groups: Iterable[Sequence[PackedFile]], target: int) -> int:
    """How many of ``count`` files are left when these groups have been put together."""
    for group in groups:
        count += max(1, round(sum(file.bytes for file in group) / target)) - len(group)
    return count


def _by_place(
    files: Iterable[PackedFile], limit: float, size: Callable[[PackedFile], float]
) -> Iterator[tuple[PackedFile, ...]]:
    places: dict[Hashable, list[PackedFile]] = defaultdict(list)
    for file in files:
        places[file.place].append(file)
    for neighbours in places.values():
        group: list[PackedFile] = []
        total = 0.0
        for file in neighbours:
            if group and total + size(file) > limit:
                yield tuple(group)
                group, total = [], 0.0
            group.append(file)
            total += size(file)
        yield tuple(group)
