"""One group of files, rewritten where there is a worker for it.

Why it exists: it is what a compaction runs on the workers: read the rows that are left of some files, put them in order
if asked to, and write them as files of a good size. What it must not do: commit, or talk to a catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.types import UUIDType

from shoal.tables.errors import StorageError
from shoal.tables.keys import file_io
from shoal.tables.pyiceberg_private import Record
from shoal.tables.reading.plan import Piece, pack, unpack_metadata
from shoal.tables.reading.scan import ScanContext, read_arrow
from shoal.tables.storage import renewing
from shoal.tables.types.partitioning import order, own_sort
from shoal.tables.writing.files import ROW_GROUP_BYTES, WriteContext, Written, write_stream
from shoal.words import count

READ_BYTES = ROW_GROUP_BYTES
"""In memory, of what is read at a time: a row group of what is written."""
_MARK = "shoal.compacted"
_MOST_BITS = 16
"""Of each column of a z-order: 65,536 steps of a column are finer than any file."""


@dataclass(frozen=True)
class RowOrder:
    """How rows are put in order: sorted by columns (and whether ascending), or by a z-order of all of them."""

    columns: tuple[tuple[str, bool], ...]
    zorder: bool = False

    def mark(self, table: Table, target: int, base: int | None) -> dict[str, str]:
        """What a snapshot says whose files are all of the snapshot ``base``'s rows, in this order and partitioning."""
        columns = ", ".join(f"{name} {'asc' if up else 'desc'}" for name, up in self.columns)
        return {
            _MARK: f"{'z-order' if self.zorder else 'sort'} by {columns}; {target} bytes; "
            f"partitioning {table.spec().spec_id}; of {base}"
        }


def in_order(table: Table, branch: str, order: RowOrder, target: int) -> bool:
    """Whether nothing was written to a branch since all its rows were put in this order."""
    current = table.metadata.snapshot_by_name(branch)
    while current is not None and current.summary is not None:
        said = current.summary.additional_properties
        found = said.get(_MARK, "").rpartition("; of ")
        wanted = order.mark(table, target, current.parent_snapshot_id)[_MARK].rpartition("; of ")
        # Of what landed between the look at the table and the commit, the parent tells, until it has expired.
        if found == wanted or (current.parent_snapshot_id is None and found[0] == wanted[0]):
            return True
        if current.summary.operation != Operation.REPLACE or int(said.get("added-data-files", 0)):
            return False
        current = table.metadata.snapshot_by_id(current.parent_snapshot_id or 0)
    return False


@dataclass(frozen=True)
class RewriteGroup:
    """Files that are rewritten together, by one task."""

    pieces: tuple[Piece, ...]
    partition: Record | None
    """Of all their rows; ``None`` if they have to be divided again."""
    order: RowOrder | None
    outputs: int
    """Files to be made of them, where that is known before."""


def own_order(table: Table) -> RowOrder | None:
    """The order that the table's writers keep, so that it is not lost where files are put together."""
    schema = table.schema()
    columns = {field.name for field in schema.fields}
    own = [(c, up) for c, up in own_sort(table.sort_order(), schema) if c in columns]
    sortable = own and not any(isinstance(schema.find_type(c), UUIDType) for c, _ in own)
    return RowOrder(tuple(own)) if sortable else None


def rewrite_group(group: RewriteGroup, scan: ScanContext, context: WriteContext) -> list[Written]:
    """Write the rows of a group that are not deleted to new files.

    Raises :class:`StorageError` if they are not as many as the manifests say.
    """
    io = file_io(unpack_metadata(context.metadata).location, context.io_properties)
    return renewing(io, lambda: _rewrite(group, scan, context))


def _rewrite(group: RewriteGroup, scan: ScanContext, context: WriteContext) -> list[Written]:
    names = [field.name for field in unpack_metadata(scan.metadata).schema().fields]
    packs = list(pack(group.pieces, READ_BYTES))
    read: list[int] = []

    def tables() -> Iterator[pa.Table]:
        # The next is read while one is written.
        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(read_arrow, packs[0], scan, names)
            for later in [*packs[1:], None]:
                table = following.result()
                if later is not None:
                    following = ahead.submit(read_arrow, later, scan, names)
                read.append(table.num_rows)
                if table.num_rows:
                    yield table

    if group.order is None and group.partition is not None:
        written = write_stream(tables(), context, group.partition)
    else:
        whole = pa.concat_tables(tables()) if packs else None
        written = []
        for part in _divided(whole, group):
            written += write_stream(iter([part]), context, group.partition)
    _check(group, sum(read), sum(one.rows for one in written), scan.table)
    return written


def _divided(whole: pa.Table | None, group: RewriteGroup) -> Iterable[pa.Table]:
    if whole is None or not whole.num_rows:
        return []
    if group.order is not None:
        whole = whole.combine_chunks().take(arranged(whole, group.order))
    if group.partition is None:
        return [whole]
    step = -(-whole.num_rows // group.outputs)
    return [whole.slice(at, step) for at in range(0, whole.num_rows, step)]


def _check(group: RewriteGroup, read: int, written: int, table: str) -> None:
    known = {piece.path: piece.rows for piece in group.pieces if not piece.deletes}
    all_known = all(piece.path in known for piece in group.pieces)
    expected = sum(known.values()) if all_known else read
    if not written == read == expected:
        raise StorageError(
            f"{count(len({p.path for p in group.pieces}), 'file')} of {table} should have "
            f"{count(expected, 'row')} by the manifests; "
            f"{read:,} were read and {written:,} written.",
            hint="A file may be damaged: nothing was changed. Go back to a snapshot before it: shoal.rollback().",
        )


def arranged(table: pa.Table, wanted: RowOrder) -> pa.Array:
    """The numbers of the rows, in that order."""
    if not wanted.zorder:
        return order(table, wanted.columns)
    return pa.array(np.argsort(interleaved(table, [name for name, _ in wanted.columns]), kind="stable"))


def interleaved(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """For each row, its place along a z-order curve through the columns: their bits in turns.

    By the values' ranks, so that each column has the same say however its values are spread.
    """
    bits = min(_MOST_BITS, 63 // len(columns))
    curve = np.zeros(table.num_rows, dtype=np.uint64)
    for number, name in enumerate(columns):
        values = table.column(name).combine_chunks()
        ranks = pc.rank(values, sort_keys="ascending", tiebreaker="dense").to_numpy()
        top = int(ranks.max(initial=1))
        # Spread over all bits, or a column of few values would have its say in the lowest alone.
        steps = ((ranks - 1).astype(np.float64) * ((2**bits - 1) / max(1, top - 1))).astype(np.uint64)
        for bit in range(bits):
            one = (steps >> np.uint64(bit)) & np.uint64(1)
            curve |= one << np.uint64(bit * len(columns) + number)
    return curve
