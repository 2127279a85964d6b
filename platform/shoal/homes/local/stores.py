"""What the ledger asks of a database: an SQLite file (``sqlite_store``) or a server (``server_store``).

Why it exists: every command opens the ledger, so the usual one, a file, has to be open in milliseconds; only a
server needs a library that takes long to import. Statements are plain SQL with ``:name`` values, for both.

What it must not do: know the ledger's tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol


class StoreConnection(Protocol):
    """What runs statements; its answers have ``fetchone``, ``fetchall`` and ``rowcount``."""

    def execute(self, statement: str, values: Mapping[str, Any] = ..., /) -> Any: ...


class Store(Protocol):
    """A database: one object per database and process, which all who open it there share."""

    counter: str  # the type of a primary key that counts by itself
    one_host: bool  # all its users are on this machine

    def connect(self, wait: float) -> AbstractContextManager[StoreConnection]:
        """A connection on which each statement stands alone; ``wait``: for others, in seconds."""
        ...

    def write(self, wait: float) -> AbstractContextManager[StoreConnection]:
        """A transaction that no other writer overlaps; rolled back when the block raises."""
        ...

    def columns(self, connection: StoreConnection, table: str) -> set[str]:
        """The names of a table's columns; empty where there is no such table."""
        ...

    def now(self, connection: StoreConnection) -> float:
        """Seconds since the epoch, by a clock that all users of the store share."""
        ...

    def fault(self, error: Exception) -> str | None:
        """What the database says went wrong; None where the error is not the database's."""
        ...

    def dispose(self) -> None:
        """Close what is open and not in use."""
        ...


def without_password(url: str) -> str:
    """A URL that may be shown."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)
