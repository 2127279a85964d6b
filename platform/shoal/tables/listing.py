"""Which tables there are, and what each holds.

Why it exists: what is shared has to be found before it can be read.

What it must not do: read data (a table's newest metadata says all of it).
"""

from __future__ import annotations

from typing import Any

from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.names import table_names
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.catalogs.reaching import reach


def list_tables(namespace: str | None = None, *, catalog: CatalogSettings | None = None) -> list[str]:
    """Every table of the catalog as ``"namespace.table"``, sorted; of one ``namespace`` (and those below it) only,
    where it is given. A namespace that is not there has none.

    Raises CatalogUnavailableError.
    """
    settled = catalogs.settings(catalog)
    opened = catalogs.catalog(settled)
    names = reach(settled, "list the tables", lambda: table_names(opened))
    if namespace is None:
        return names
    return [name for name in names if name.startswith(f"{namespace.removeprefix(f'{settled.name}.')}.")]


def described(name: str, *, catalog: CatalogSettings | None = None) -> dict[str, Any] | None:
    """What the table holds now, as plain values: ``rows``, ``files``, ``bytes`` (of data files), ``snapshots``,
    ``updated`` (seconds since the epoch), ``location``. What its writer did not say is None; None for a table that was
    dropped meanwhile.
    """
    if (table := catalogs.find(name, catalog)) is None:
        return None
    metadata = table.metadata
    current = metadata.current_snapshot()
    summary = current.summary.additional_properties if current and current.summary else {}

    def total(what: str) -> int | None:
        if current is None:
            return 0
        return int(summary[what]) if what in summary else None

    return {
        "name": name,
        "rows": total("total-records"),
        "files": total("total-data-files"),
        "bytes": total("total-files-size"),
        "snapshots": len(metadata.snapshots),
        "updated": metadata.last_updated_ms / 1000,
        "location": metadata.location,
    }
