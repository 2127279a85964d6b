"""The ledger: the local home's store of clusters, in SQLite, or in PostgreSQL for a shared server.

Why it exists: two requests collide only here. A decision is one write transaction that no other can
overlap: ``BEGIN IMMEDIATE`` on SQLite, an advisory lock on PostgreSQL.

What it must not do: decide; what a transaction writes is worked out by the pure core.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shoal.errors import InfrastructureError
from shoal.homes.local import paths, rebuild, schema
from shoal.homes.local.transaction import Transaction
from shoal.homes.local.turns import turn

_LOCK_WAIT = 30.0  # s that a transaction waits for others before it gives up
_ADVISORY_LOCK = 0x5348_4F41  # "SHOA"; one lock for all decisions of a database
_BUSY = ("locked", "busy", "lock timeout", "deadlock")


class BrokenLedgerError(InfrastructureError):
    """The ledger's file was damaged. It is kept aside, and the next attempt makes a new one."""


class Ledger:
    """Opens the store at ``url`` (default: ``ledger.db`` in the data folder), making it at first use."""

    def __init__(self, url: str | None = None) -> None:
        self.file: Path | None = None
        if url is None:
            self.file = paths.data_folder() / "ledger.db"
            if not os.path.exists(self.file):  # else it can be read, and clusters ended, on a full disk too
                paths.make_private(self.file.parent)
            url = f"sqlite:///{self.file}"
        self.url = sa.make_url(url)
        self._sqlite = self.url.get_backend_name() == "sqlite"
        # Kept open: the last connection of an SQLite file to be closed rewrites the file.
        self._engine = sa.create_engine(self.url, pool_size=1, max_overflow=8, pool_pre_ping=not self._sqlite)
        if self._sqlite:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        self._inode = self._look()
        self._open()

    def __repr__(self) -> str:
        return f"Ledger({self.url.render_as_string(hide_password=True)!r})"

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that no other writer overlaps; rolled back when its body raises."""
        with self._turn(), self._guard(), self._connect() as connection:
            if self._sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                with connection.begin():
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{int(_LOCK_WAIT)}s'")
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
                    yield Transaction(connection, self._now(connection))
                return
            try:
                yield Transaction(connection, self._now(connection))
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")

    def _connect(self) -> Connection:
        """A connection to the file that is there now: a broken one may have been replaced meanwhile."""
        if (inode := self._look()) != self._inode:
            self._engine.dispose()
            self._inode = inode
            self._open()
        return self._engine.connect()

    def _open(self) -> None:
        """Make the tables if need be. A damaged file is kept aside first, and a new one made."""
        try:
            self._create()
        except BrokenLedgerError as error:
            print(f"shoal: {error.message}", file=sys.stderr)
            self._inode = self._look()
            self._create()
        self._inode = self._look()

    def _look(self) -> int | None:
        try:
            return os.stat(self.url.database).st_ino if self._sqlite and self.url.database else None
        except OSError:
            return None

    def _turn(self) -> AbstractContextManager[object]:
        """SQLite's own wait for its lock starves whoever waits long; a lock file in front is fair to all.

        PostgreSQL queues by itself.
        """
        if not self._sqlite or not self.url.database:
            return nullcontext()
        return turn(Path(f"{self.url.database}.turn"), _LOCK_WAIT)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Reads only; waits for nobody."""
        with self._guard(), self._connect() as connection:
            yield Transaction(connection, self._now(connection))

    def _now(self, connection: Connection) -> float:
        if self._sqlite:
            return time.time()
        return float(connection.execute(sa.text("select extract(epoch from clock_timestamp())")).scalar_one())

    def _create(self) -> None:
        with self._guard():
            if self._sqlite and self.file is not None:
                # Made with our own mode first: SQLite would make it readable for everybody.
                os.close(os.open(self.file, os.O_CREAT | os.O_RDWR, 0o600))
            with self._connect() as connection:
                known = sa.inspect(connection).has_table(schema.meta.name)
            if not known:
                with self.write() as tx:
                    tx.make_tables(rebuild.records_of_live_heads() if self._sqlite else [])
            with self._engine.connect() as connection:
                version = connection.execute(
                    sa.select(schema.meta.c.value).where(schema.meta.c.key == "version")
                ).scalar_one_or_none()
        if version is not None and int(version) > schema.VERSION:
            raise InfrastructureError(
                f"the ledger {self!r} was written by a newer Shoal (its version is {version}, "
                f"this Shoal knows {schema.VERSION})",
                hint="Upgrade Shoal here, or point SHOAL_DATA at another folder.",
            )

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Database faults as our own errors; the user's errors pass."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            text = str(error.orig)
            if self._sqlite and rebuild.is_broken(text) and self.url.database:
                self._engine.dispose()
                kept = "it was replaced already"
                if self._look() == self._inode:  # else another process has made a new one meanwhile
                    kept = f"it is kept as {rebuild.keep_aside(Path(self.url.database))}"
                raise BrokenLedgerError(
                    f"the ledger {self!r} is damaged ({text}); {kept}",
                    hint="Try again: a new one is made from what the running clusters wrote down.",
                ) from error
            if any(word in text for word in _BUSY):
                raise InfrastructureError(
                    f"the ledger {self!r} stayed locked for {_LOCK_WAIT:.0f} s: {text}",
                    hint="Another process holds it; try again, or look which with `fuser` on the file.",
                ) from error
            raise InfrastructureError(
                f"the ledger {self!r} cannot be used: {text}",
                hint="Check the disk and the rights of its folder (`shoal doctor`).",
            ) from error


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by us alone
    connection.execute(f"PRAGMA busy_timeout = {int(_LOCK_WAIT * 1000)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
