"""A table's columns, changed in the same commit as the rows that need it.

Why it exists: with ``evolve=True`` a new column or a wider type must not be there before its rows are, nor
stay when they fail. What it must not do: narrow, drop or rename anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
from pyiceberg.table import Table, Transaction

from shoal.tables.pyiceberg_private import TableMetadata, iceberg_type
from shoal.tables.types.dtypes import for_iceberg, widened
from shoal.tables.types.schemas import Difference


def plan_evolution(
    table: Table, frame: pa.Schema, found: Sequence[Difference]
) -> tuple[Callable[[Transaction], None] | None, TableMetadata]:
    """The change that makes the table fit the frame, and the table's metadata as it will be."""
    if all(d.kind == "missing" for d in found):
        return None, table.metadata

    def change(transaction: Transaction) -> None:
        schema = transaction.table_metadata.schema()
        with transaction.update_schema() as update:
            for d in found:
                if d.kind == "new":
                    kind = for_iceberg(frame.field(d.column).type)
                    assert kind is not None, "checked before"
                    update.add_column(d.column, iceberg_type(kind))
                elif d.kind == "type":
                    wider = widened(schema.find_field(d.column).field_type, frame.field(d.column).type)
                    assert wider is not None, "checked before"
                    update.update_column(d.column, field_type=wider)

    rehearsal = table.transaction()
    change(rehearsal)
    return change, rehearsal.table_metadata
