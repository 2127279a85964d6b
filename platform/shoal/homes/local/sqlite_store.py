"""The ledger's SQLite file as one process uses it: one store for all who open it, and nothing by hand.

Why it exists: a process loses *all* its locks on a file, SQLite's included, when it closes *any* descriptor of
that file (POSIX). Others then take the file for unused, and delete its write-ahead log. So only SQLite opens
and closes it: here its metadata is looked at, and a new file is made under another name and linked in.

Forks: SQLite keeps per process which locks it holds. A fork that inherited an open connection would believe that
it holds its parent's locks, and hold none. So nothing is open while a process forks.

What it must not do: know the ledger's tables.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shoal.errors import InfrastructureError
from shoal.homes.local.frozen import Thaw
from shoal.homes.local.stores import StoreConnection

_FORK_WAIT = 5.0  # s that a fork waits for transactions of other threads
_SLICE = 2.0  # s of waiting for a lock, after which it is looked whether a stopped process has it
_BUSY = ("locked", "busy")


@dataclass(eq=False)
class _Open:
    """A connection (None: not yet there), the file that it is of, and who uses it."""

    pid: int
    thread: int
    connection: sqlite3.Connection | None = None
    inode: tuple[int, int] | None = None
    stale: bool = False

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()


class SqliteFile:
    """An SQLite file. Connections are kept: the last one of a file to be closed rewrites the file."""

    counter = "INTEGER NOT NULL PRIMARY KEY"
    one_host = True

    def __init__(self, file: Path) -> None:
        self.file = file
        self.turn = Path(f"{file}.turn")  # see ``turns``
        self.locks = file, Path(f"{file}-shm"), self.turn  # the files whose locks a transaction needs
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Condition()
        self._free: list[_Open] = []
        self._used: list[_Open] = []
        self._pid = os.getpid()
        self._inherited = False

    @contextmanager
    def connect(self, wait: float) -> Iterator[StoreConnection]:
        opened, connection = self._take(wait)
        try:
            connection.execute(f"PRAGMA busy_timeout = {int(1000 * wait)}")
            yield connection
        finally:
            self._give(opened)

    @contextmanager
    def write(self, wait: float) -> Iterator[StoreConnection]:
        opened, connection = self._take(wait)
        try:
            self._patiently(connection, "BEGIN IMMEDIATE", wait)
            try:
                yield connection
                if os.getpid() == opened.pid:  # else this is a fork that leaves its parent's block
                    connection.execute("COMMIT")
            except BaseException:
                if os.getpid() == opened.pid:
                    with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                        connection.execute("ROLLBACK")
                raise
        finally:
            self._give(opened)

    def columns(self, connection: StoreConnection, table: str) -> set[str]:
        query = "SELECT name FROM pragma_table_info(:table)"
        return {row[0] for row in connection.execute(query, {"table": table}).fetchall()}

    def now(self, connection: StoreConnection) -> float:
        return time.time()

    def fault(self, error: Exception) -> str | None:
        return str(error) if isinstance(error, sqlite3.Error) else None

    def dispose(self) -> None:
        with self._lock:
            free, self._free = self._free, []
            for opened in self._used:
                opened.stale = True
        for opened in free:
            opened.close()

    def inode(self) -> tuple[int, int] | None:
        """Which file is there now; None: none."""
        try:
            seen = os.stat(self.file)
        except OSError:
            return None
        return seen.st_dev, seen.st_ino

    def check(self) -> None:
        """InfrastructureError in a fork that cannot use the file."""
        if os.getpid() != self._pid:  # a fork that Python knows nothing of
            self.after_fork_in_child()
        if self._inherited:
            raise InfrastructureError(
                f"this process was forked from one that was using the ledger {self.file} just then, and "
                "cannot tell its own locks from its parent's",
                hint='Fork outside of such a block, or start processes by "spawn" or "forkserver".',
            )

    def _take(self, wait: float) -> tuple[_Open, sqlite3.Connection]:
        self.check()
        inode, outdated, found = self.inode(), [], None
        with self._lock:
            while self._free and found is None:
                opened = self._free.pop()
                if opened.inode == inode is not None:
                    found = opened
                else:
                    outdated.append(opened)
            if found is None:
                found = _Open(self._pid, 0)
            found.thread = threading.get_ident()
            self._used.append(found)  # before it is opened: a fork has to wait for it
        for each in outdated:
            each.close()
        try:
            connection = found.connection or self._open(found, wait)
        except BaseException:
            found.stale = True
            self._give(found)
            raise
        return found, connection

    def _give(self, opened: _Open) -> None:
        if opened.pid != os.getpid():
            return  # its parent's
        with self._lock:
            self._used.remove(opened)
            if not opened.stale:
                self._free.append(opened)
            self._lock.notify_all()
        if opened.stale:
            opened.close()

    def _open(self, opened: _Open, wait: float) -> sqlite3.Connection:
        if self.inode() is None:
            _make_private(self.file)
        # Threads take turns with a connection, they never share one; transactions are begun by us alone.
        opened.connection = connection = sqlite3.connect(
            self.file, timeout=wait, isolation_level=None, check_same_thread=False
        )
        self._patiently(connection, "PRAGMA journal_mode = WAL", wait)
        connection.execute("PRAGMA synchronous = NORMAL")
        # The write-ahead log is copied back every 16 MB: whoever commits then syncs the disk, and others wait.
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        opened.inode = self.inode()
        return connection

    def _patiently(self, connection: sqlite3.Connection, statement: str, wait: float) -> None:
        """Run what may have to wait for a lock; one that a stopped process holds is freed meanwhile."""
        deadline = time.monotonic() + wait
        thaw = Thaw(self.locks)
        while True:
            left = deadline - time.monotonic()
            connection.execute(f"PRAGMA busy_timeout = {int(1000 * max(0.0, min(_SLICE, left)))}")
            try:
                connection.execute(statement)
                return
            except sqlite3.OperationalError as error:
                if left <= 0 or not any(word in str(error) for word in _BUSY):
                    raise
                thaw.look()

    # -- forks -------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Have nothing open, but for what threads are still using after some seconds."""
        deadline = time.monotonic() + _FORK_WAIT
        me = threading.get_ident()
        self._lock.acquire()
        while any(opened.thread != me for opened in self._used):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._lock.wait(left)
        for opened in self._free:
            opened.close()
        self._free.clear()

    def after_fork(self) -> None:
        """In the parent."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Forget what its parent has open, without closing it."""
        inherited = [*self._free, *self._used]
        self._begin()
        if inherited:
            import ctypes

            self._inherited = True
            for (
                opened
            ) in inherited:  # closing them would be SQLite's work, on files that are not this process's
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened.connection))


_files: dict[str, SqliteFile] = {}
_lock = threading.Lock()


def sqlite_file(file: Path) -> SqliteFile:
    """The store of that file in this process, by whatever name it is called."""
    real = os.path.realpath(file)
    with _lock:
        if real not in _files:
            _files[real] = SqliteFile(Path(real))
        return _files[real]


def _make_private(file: Path) -> None:
    """An empty file of mode 0600, which SQLite gives its log as well; nothing where one is there.

    Made under another name: closing a descriptor of a file that may be in use already would drop its locks.
    """
    try:
        descriptor, made = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    except OSError as error:  # as SQLite itself would
        raise sqlite3.OperationalError(f"unable to open database file: {error.strerror}") from error
    os.close(descriptor)
    try:
        os.link(made, file)
    except FileExistsError:
        return
    except OSError:  # a file system without links: nobody else makes it at this very moment
        with contextlib.suppress(FileExistsError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    finally:
        os.unlink(made)


def _before_fork() -> None:
    _lock.acquire()
    for store in _files.values():
        store.before_fork()


def _after_fork() -> None:
    for store in _files.values():
        store.after_fork()
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for store in _files.values():
        store.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
