"""A catalog proved by use: a table is made, written, read and dropped.

Why it exists: that a catalog answers says nothing about the right to create a table, or about the keys of the
storage behind it; a person learns that before the first job, with the reason.

What it must not do: leave anything, or touch a table that is not its own.
"""

from __future__ import annotations

import contextlib
import secrets

from shoal.errors import InfrastructureError
from shoal.tables.catalogs.opening import CatalogSettings, catalog
from shoal.tables.catalogs.reaching import reach


def prove(given: CatalogSettings) -> None:
    """Make a table in a namespace of its own, write and read two rows, drop both.

    Raises CatalogRefusedError, CatalogUnavailableError, StorageError, or InfrastructureError where the rows
    that come back are not those that were written.
    """
    import pandas as pd
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    from shoal.tables.reading.read import read_table
    from shoal.tables.writing.sweep import sweep
    from shoal.tables.writing.write import write_table

    namespace = f"shoal_doctor_{secrets.token_hex(4)}"
    name = f"{namespace}.proof"
    opened = catalog(given)
    place = None
    try:
        write_table(pd.DataFrame({"x": [1, 2]}), name, catalog=given)
        place = opened.load_table(name)
        rows = read_table(name, catalog=given).x.compute(scheduler="synchronous").tolist()
        if rows != [1, 2]:
            raise InfrastructureError(f"wrote the rows 1 and 2 to {given.shown_uri} and read {rows}")
    finally:
        with contextlib.suppress(NoSuchTableError, NoSuchNamespaceError):
            reach(given, "drop the table of the proof", lambda: opened.purge_table(name))
        with contextlib.suppress(NoSuchNamespaceError):
            reach(given, "drop the namespace of the proof", lambda: opened.drop_namespace(namespace))
        if place is not None and (folder := place.location().rpartition("/")[0]).endswith(namespace):
            sweep(place.io, folder, ())  # what a catalog leaves of it: folders
