"""The ledger: the local home's store of clusters, in SQLite, or in PostgreSQL for a shared server.

Why it exists: two requests collide only here. A decision is one write transaction that no other can
overlap: ``BEGIN IMMEDIATE`` on SQLite, an advisory lock on PostgreSQL.

What it must not do: decide; what a transaction writes is worked out by the pure core.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from shoal.errors import InfrastructureError
from shoal.homes.local import frozen, rebuild, schema
from shoal.homes.local.periods import LOCAL
from shoal.homes.local.server_store import Server, server
from shoal.homes.local.sqlite_store import SqliteFile, sqlite_file
from shoal.homes.local.stores import StoreConnection, without_password
from shoal.homes.local.transaction import Transaction
from shoal.homes.local.turns import turn
from shoal.machine import paths

_log = logging.getLogger("shoal.homes")
_REPLACED = 3  # times that the file may be replaced while a writer is queued
_BUSY = ("locked", "busy", "lock timeout", "deadlock")


def _default() -> Path:
    return paths.data_folder().absolute() / "ledger.db"


def path_of(url: str | None) -> str:
    """Where the file of the ledger at ``url`` is, also where it cannot be opened; empty for a server."""
    if url is not None and not url.startswith("sqlite"):
        return ""
    return os.path.realpath(_default() if url is None else url.partition(":///")[2])


class BrokenLedgerError(InfrastructureError):
    """The ledger's file was damaged. It is kept aside, and the next attempt makes a new one."""


class Ledger:
    """Opens the store at ``url`` (default: ``ledger.db`` in the data folder), making it at first use.

    ``url``: ``sqlite:///PATH`` or ``postgresql://...``. It may hold a password.
    ``wait``: seconds that a transaction waits for others before InfrastructureError. All ledgers of one
    store in a process share its connections.
    """

    def __init__(self, url: str | None = None, wait: float = LOCAL.lock) -> None:
        if url is None:
            file = _default()
            if not os.path.exists(file):  # else it can be read, and clusters ended, on a full disk too
                paths.make_private(file.parent)
            url = f"sqlite:///{file}"
        self._wait = wait
        self._file: Path | None = None
        self._store: SqliteFile | Server
        if url.startswith("sqlite"):
            self._file = Path(url.partition(":///")[2]).absolute()
            url = f"sqlite:///{self._file}"  # heads, which get it, are started in other folders
            self._store = sqlite_file(self._file)
        else:
            self._store = server(url)
        self.url = url
        self._inode = self._look()
        self._open()

    def __repr__(self) -> str:
        return f"Ledger({without_password(self.url)!r})"

    @property
    def one_host(self) -> bool:
        """Whether all who use it are on this machine: then each can see whether a head lives."""
        return self._store.one_host

    def __str__(self) -> str:
        return without_password(self.url)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that no other writer overlaps; rolled back when its body raises.

        Nothing that may take long belongs into it: others wait.
        """
        with self._guard(), ExitStack() as held:
            for _ in range(_REPLACED):
                held.enter_context(self._turn())
                if self._look() == self._inode:
                    break
                held.close()  # it was replaced: making the new one takes a turn too
                self._refresh()
            connection = held.enter_context(self._store.write(self._wait))
            yield self._transaction(connection)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Reads only; waits for nobody."""
        with self._guard():
            self._refresh()
            with self._store.connect(self._wait) as connection:
                yield self._transaction(connection)

    def close(self) -> None:
        """Close what is not in use; it is opened again when it is used again."""
        self._store.dispose()

    def _refresh(self) -> None:
        """Use the file that is there now: a broken one may have been replaced meanwhile."""
        if (inode := self._look()) != self._inode:
            self._inode = inode
            self._open()

    def _open(self) -> None:
        """Make the tables if need be. A damaged file is kept aside first, and a new one made."""
        try:
            self._create()
        except BrokenLedgerError as error:
            _log.warning("%s", error.message)
            self._inode = self._look()
            self._create()
        self._inode = self._look()

    @property
    def path(self) -> str:
        """Where its file is, by its real name; empty for a server."""
        return str(self._store.file) if isinstance(self._store, SqliteFile) else ""

    def _transaction(self, connection: StoreConnection) -> Transaction:
        return Transaction(connection, self._store.now(connection), self.path)

    def _look(self) -> tuple[int, int] | None:
        return self._store.inode() if isinstance(self._store, SqliteFile) else None

    def _turn(self) -> AbstractContextManager[object]:
        """SQLite's own wait for its lock starves whoever waits long; a lock file in front is fair to all.

        PostgreSQL queues by itself.
        """
        if not isinstance(self._store, SqliteFile):
            return nullcontext()
        self._store.check()
        return turn(self._store.turn, self._wait)

    def _create(self) -> None:
        """Make the tables, or add the columns that a ledger of an older Shoal lacks."""
        with self._guard():
            with self._store.connect(self._wait) as connection:
                columns = self._store.columns(connection, "shoal_clusters")
                version = Transaction(connection, 0.0).version() if columns else None
            if version is None or schema.lacking(columns):
                known = rebuild.records_of_live_heads(self.path) if self._file is not None else []
                with self._turn(), self._store.write(self._wait) as connection:
                    tx = Transaction(connection, self._store.now(connection))
                    tx.make_tables(self._store.counter, known)
                    tx.add_columns(self._store.columns(connection, "shoal_clusters"))
                    version = tx.version()
        if version is not None and int(version) > schema.VERSION:
            raise InfrastructureError(
                f"the ledger {self} was written by a newer Shoal (its version is {version}, "
                f"this Shoal knows {schema.VERSION})",
                hint="Upgrade Shoal here, or point SHOAL_DATA at another folder.",
            )

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Database faults as our own errors; the user's errors pass."""
        try:
            yield
        except Exception as error:
            text = self._store.fault(error)
            if text is None:
                raise
            if self._file is not None and rebuild.is_broken(text):
                self._store.dispose()
                kept = "it was replaced already"
                with self._turn():
                    if self._look() == self._inode:  # else another process has made a new one meanwhile
                        kept = f"it is kept as {rebuild.keep_aside(self._file)}"
                raise BrokenLedgerError(
                    f"the ledger {self} is damaged ({text}); {kept}",
                    hint="Try again: a new one is rebuilt from the records that running clusters keep.",
                ) from error
            if any(word in text for word in _BUSY):
                holder = frozen.described(self._store.locks) if isinstance(self._store, SqliteFile) else ""
                raise InfrastructureError(
                    f"the ledger {self} stayed locked for {self._wait:.0f} s"
                    + (f", by {holder}" if holder else f": {text}"),
                    hint="Try again. A process that holds it and hangs can be killed: its "
                    "transaction is rolled back.",
                    away=True,
                ) from error
            raise InfrastructureError(
                f"the ledger {self} cannot be used: {text}",
                hint="Check the disk and the rights of its folder (`shoal doctor`)."
                if self._file is not None
                else "Check that the database server runs and can be reached (`shoal doctor`).",
                away=self._file is None,
            ) from error
