"""A frame handed from Dask to Spark, or back, through a table that is cleaned up.

Why it exists: the two engines share tables and nothing else, so a frame crosses through one; it should not
be left behind. What it must not do: outlive its ``with`` block, nor, if the process is killed in it, the next
day.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError

from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.catalogs.reaching import reach
from shoal.tables.writing.sweep import sweep
from shoal.tables.writing.write import write_table

NAMESPACE = "shoal_staging"
KEPT_SECONDS = 24 * 3600
"""Age at which a staged table whose process is gone is dropped by the next one to stage something."""
_NAME = re.compile(r"^t_(\d+)_[0-9a-f]{32}$")


@contextmanager
def staged(frame: Any, *, catalog: CatalogSettings | None = None) -> Iterator[str]:
    """Write a frame into a table for the length of a ``with`` block; gives the table's name.

    ``frame``: a Dask or pandas frame or an Arrow table, for Spark to read as
    ``spark.table(f"shoal.{name}")``; or a Spark frame (Connect or classic), for Dask to read with
    :func:`read_table`. Both are lazy, so compute inside the block.
    """
    settled = catalogs.settings(catalog)
    opened = catalogs.catalog(settled)
    with suppress(NamespaceAlreadyExistsError):
        reach(settled, "make a namespace", lambda: opened.create_namespace((NAMESPACE,)))
    _drop_old(settled)
    name = f"{NAMESPACE}.t_{int(time.time())}_{uuid.uuid4().hex}"
    try:
        if hasattr(frame, "writeTo"):
            frame.writeTo(f"{settled.name}.{name}").using("iceberg").create()
        else:
            write_table(frame, name, catalog=settled)
        yield name
    finally:
        _drop(name, settled)


def _drop(name: str, settled: CatalogSettings) -> None:
    opened = catalogs.catalog(settled)
    ident = catalogs.identifier(name, settled)
    with suppress(NoSuchTableError):
        table = opened.load_table(ident)
        reach(settled, f"drop {name}", lambda: opened.drop_table(ident))
        sweep(table.io, table.location(), ())


def _drop_old(settled: CatalogSettings) -> None:
    for _, table in catalogs.catalog(settled).list_tables((NAMESPACE,)):
        made = _NAME.match(table)
        if made is not None and time.time() - int(made.group(1)) > KEPT_SECONDS:
            _drop(f"{NAMESPACE}.{table}", settled)
