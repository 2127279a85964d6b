"""A table's columns, changed in the same commit as the rows that need it.

Why it exists: with ``evolve=True`` a new column or a wider type must not be there before its rows are, nor
stay when they fail. What it must not do: narrow, drop or rename anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyiceberg.exceptions import ValidationError
from pyiceberg.table import Table, Transaction

from shoal.tables.errors import SchemaMismatchError
from shoal.tables.pyiceberg_private import TableMetadata, iceberg_type
from shoal.tables.types.dtypes import for_iceberg, widened
from shoal.tables.types.schemas import Difference


def plan_evolution(
    name: str, table: Table, found: Sequence[Difference]
) -> tuple[Callable[[Transaction], None] | None, TableMetadata]:
    """The change that makes the table fit the frame, and the table's metadata as it will be.

    Raises :class:`SchemaMismatchError` naming the field that PyIceberg would not change.
    """
    if all(d.kind == "missing" for d in found):
        return None, table.metadata

    def change(transaction: Transaction) -> None:
        schema = transaction.table_metadata.schema()
        with transaction.update_schema() as update:
            for d in found:
                if d.kind == "missing":
                    continue
                try:
                    if d.kind == "new":
                        kind = for_iceberg(d.arrow)
                        assert kind is not None, "checked before"
                        update.add_column(d.path, iceberg_type(kind))
                    else:
                        wider = widened(schema.find_type(d.column), d.arrow)
                        update.update_column(d.path, field_type=wider)
                except (ValueError, ValidationError) as error:
                    raise SchemaMismatchError(
                        f"{d.column!r} of {name} cannot be changed so that the frame fits ({d.detail}): {error}",
                        hint="Nothing was written. Change the frame's column, or write to another table.",
                        differences=[(d.column, d.kind, d.detail)],
                    ) from error

    rehearsal = table.transaction()
    change(rehearsal)
    return change, rehearsal.table_metadata
