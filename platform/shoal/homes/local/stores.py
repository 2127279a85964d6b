"""The two kinds of database that a ledger may be in: an SQLite file, or a server (PostgreSQL).

Why it exists: every command opens the ledger, so the usual one, a file, has to be open in milliseconds; only a
server needs a library that takes long to import. Statements are plain SQL with ``:name`` values, for both.

What it must not do: know the ledger's tables.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

_ADVISORY_LOCK = 0x5348_4F41  # "SHOA"; one lock for all decisions of a database


_OF_PARENTS: list[sqlite3.Connection] = []


class Connection(Protocol):
    """What runs statements; its answers have ``fetchone``, ``fetchall`` and ``rowcount``."""

    def execute(self, statement: str, values: Mapping[str, Any] = ..., /) -> Any: ...


class Store(Protocol):
    """A database. ``wait``: how long to wait for others, in seconds."""

    counter: str  # the type of a primary key that counts by itself

    def connect(self) -> AbstractContextManager[Connection]:
        """A connection on which each statement stands alone."""
        ...

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that no other writer overlaps; rolled back when the block raises."""
        ...

    def has_table(self, connection: Connection, name: str) -> bool: ...

    def now(self, connection: Connection) -> float:
        """Seconds since the epoch, by a clock that all users of the store share."""
        ...

    def fault(self, error: Exception) -> str | None:
        """What the database says went wrong; None where the error is not the database's."""
        ...

    def dispose(self) -> None:
        """Close what is open."""
        ...


def without_password(url: str) -> str:
    """A URL that may be shown."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)


class SqliteFile:
    """An SQLite file. Connections are kept: the last one of a file to be closed rewrites the file."""

    counter = "INTEGER NOT NULL PRIMARY KEY"

    def __init__(self, file: Path, wait: float) -> None:
        self.file, self._wait = file, wait
        self._free: list[sqlite3.Connection] = []
        self._pid = os.getpid()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        if os.getpid() != self._pid:  # a fork must neither use nor close what its parent has open
            _OF_PARENTS.extend(self._free)
            self._free, self._pid = [], os.getpid()
        connection = self._free.pop() if self._free else self._open()
        try:
            yield connection
        finally:
            self._free.append(connection)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self.connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                    connection.execute("ROLLBACK")
                raise

    def has_table(self, connection: Connection, name: str) -> bool:
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name"
        return connection.execute(query, {"name": name}).fetchone() is not None

    def now(self, connection: Connection) -> float:
        return time.time()

    def fault(self, error: Exception) -> str | None:
        return str(error) if isinstance(error, sqlite3.Error) else None

    def dispose(self) -> None:
        while self._free:
            self._free.pop().close()

    def _open(self) -> sqlite3.Connection:
        # Threads take turns with a connection, they never share one; transactions are begun by us alone.
        connection = sqlite3.connect(
            self.file, timeout=self._wait, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        # The write-ahead log is copied back every 16 MB: whoever commits then syncs the disk, and others wait.
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        return connection


class Server:
    """A database server, through SQLAlchemy."""

    counter = "SERIAL PRIMARY KEY"

    def __init__(self, url: str, wait: float) -> None:
        import sqlalchemy

        self._sa, self._wait = sqlalchemy, wait
        self._engine = sqlalchemy.create_engine(url, pool_size=1, max_overflow=8, pool_pre_ping=True)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield _OnServer(connection)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{int(self._wait)}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
            yield _OnServer(connection)

    def has_table(self, connection: Connection, name: str) -> bool:
        with self._engine.connect() as own:
            return bool(self._sa.inspect(own).has_table(name))

    def now(self, connection: Connection) -> float:
        return float(connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()[0])

    def fault(self, error: Exception) -> str | None:
        return str(error.orig) if isinstance(error, self._sa.exc.DBAPIError) else None

    def dispose(self) -> None:
        self._engine.dispose()


class _OnServer:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Mapping[str, Any] | None = None, /) -> Any:
        return self._connection.execute(_text(statement), dict(values or {}))


@cache
def _text(statement: str) -> Any:
    import sqlalchemy

    return sqlalchemy.text(statement)
