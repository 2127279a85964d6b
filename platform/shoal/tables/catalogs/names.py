"""Which names a catalog holds, and what is said of one that is not a table's.

Why it exists: a name that is not found is most often misspelled, or that of a view. What it must not do: open a
catalog, or import anything heavy at its top.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from shoal.tables.errors import NotSupportedError, TableNotFoundError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


def is_path(name: object) -> bool:
    """Whether a table is named by where it lies: a folder or a metadata file, with a scheme or not."""
    if not isinstance(name, str):
        return False
    return (
        "://" in name or name.startswith(("/", "./", "../", "~", "file:")) or name.endswith(".metadata.json")
    )


def read_only(name: str) -> NotSupportedError:
    """The error for a path where a table's name is wanted, since it is to be changed."""
    return NotSupportedError(
        f"{name} is a path: a table that no catalog keeps can be read, and not be changed.",
        hint="read_table reads it; write_table(read_table(PATH), 'namespace.table') makes a table of a catalog of it. "
        "Spark changes a Hadoop table on a file system that renames safely.",
        table=name,
    )


def table_names(opened: Catalog) -> list[str]:
    """Every table of the catalog as ``namespace.table``, sorted."""
    from pyiceberg.exceptions import NoSuchNamespaceError

    if (at_once := _names_in_sql(opened)) is not None:
        return at_once
    names: set[str] = set()
    pending = list(opened.list_namespaces())
    seen = set()
    while pending:
        namespace = pending.pop()
        if namespace in seen:
            continue
        seen.add(namespace)
        try:
            names |= {".".join(t) for t in opened.list_tables(namespace)}
            pending += [n for n in opened.list_namespaces(namespace) if len(n) > len(namespace)]
        except NoSuchNamespaceError:
            continue  # dropped while we looked
    return sorted(names)


def _names_in_sql(opened: Catalog) -> list[str] | None:
    """By one query: PyIceberg makes three for each namespace. None where the catalog cannot be asked like that."""
    from pyiceberg.catalog.sql import IcebergTables, SqlCatalog

    if not isinstance(opened, SqlCatalog):
        return None
    from sqlalchemy import or_, select
    from sqlalchemy.exc import DatabaseError
    from sqlalchemy.orm import Session

    kind = IcebergTables.iceberg_type
    query = select(IcebergTables.table_namespace, IcebergTables.table_name).where(
        IcebergTables.catalog_name == opened.name, or_(kind.is_(None), kind == "TABLE")
    )
    try:
        with Session(opened.engine) as session:
            return sorted(f"{namespace}.{name}" for namespace, name in session.execute(query))
    except DatabaseError:
        return None  # from before there were views, so that it has no such column; or it does not answer


def refuse_view(opened: Catalog, identifier: tuple[str, ...]) -> None:
    """:class:`NotSupportedError` for a name that is a view's."""
    name = ".".join(identifier)
    if _is_view(opened, identifier):
        raise NotSupportedError(
            f"{name} is a view, not a table: it holds a query, which Spark alone can answer.",
            hint=f"`with shoal.spark() as spark: spark.table({name!r})` reads it. To have its rows in Dask, make a "
            f'table of them there: spark.sql("create table {name}_rows as select * from {name}")',
            view=name,
        )


def no_table(opened: Catalog, identifier: tuple[str, ...], shown_uri: str) -> TableNotFoundError:
    """The error for a name that is nobody's, with the names that are like it."""
    name = ".".join(identifier)
    known = table_names(opened)
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return TableNotFoundError(
        f"There is no table {name} in the catalog {shown_uri}.",
        hint=f"Did you mean {' or '.join(similar)}?" if similar else _known_hint(known),
        table=name,
        similar=similar,
    )


def _is_view(opened: Catalog, identifier: tuple[str, ...]) -> bool:
    from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
    from pyiceberg.exceptions import NoSuchNamespaceError

    if not isinstance(opened, SqlCatalog):
        try:
            return opened.view_exists(identifier)
        except (NotImplementedError, NoSuchNamespaceError):
            return False  # a catalog without views
    from sqlalchemy import select
    from sqlalchemy.exc import DatabaseError
    from sqlalchemy.orm import Session

    # PyIceberg leaves the views of such a catalog out of everything it tells.
    query = select(IcebergTables.iceberg_type).where(
        IcebergTables.catalog_name == opened.name,
        IcebergTables.table_namespace == ".".join(identifier[:-1]),
        IcebergTables.table_name == identifier[-1],
    )
    try:
        with Session(opened.engine) as session:
            return session.scalar(query) == "VIEW"
    except DatabaseError:
        return False  # from before there were views, so that it has no such column


def _known_hint(known: list[str]) -> str:
    if not known:
        return "The catalog holds no tables yet. Is it the right one? (SHOAL_CATALOG_URI)"
    return f"It holds {len(known)}: {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
