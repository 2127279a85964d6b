"""The ledger on a database server (PostgreSQL), through SQLAlchemy: one pool of connections per process.

Why it exists: a shared server must not be blocked by a client that is stopped inside a transaction, nor a
client for minutes by a server that is gone; both have limits here.

What it must not do: know the ledger's tables.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from shoal.errors import MissingExtraError, UsageError
from shoal.homes.local.periods import LOCAL
from shoal.homes.local.stores import StoreConnection

_ADVISORY_LOCK = 0x5348_4F41  # "SHOA"; one lock for all decisions of a database
_LOOPBACK = ("", "localhost", "127.0.0.1", "::1")
_LIBPQ = ("psycopg2", "psycopg", "psycopg2cffi")
_AS_THIS = "Write sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE in shoal.yaml."
# A server, or a network, that is silently gone is noticed in half a minute.
_NETWORK = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "shoal",
}


class Server:
    """A database server. Its clock is the one that counts."""

    counter = "SERIAL PRIMARY KEY"

    def __init__(self, url: str) -> None:
        import sqlalchemy

        self._sa = sqlalchemy
        try:
            parsed = sqlalchemy.make_url(_checked(url))
        except (sqlalchemy.exc.ArgumentError, ValueError) as error:
            raise UsageError("`store:` cannot be read as a URL", hint=_AS_THIS) from error
        hosts = parsed.query.get("host", parsed.host or "")
        self.one_host = isinstance(hosts, str) and (hosts in _LOOPBACK or hosts.startswith("/"))
        ours = _NETWORK if parsed.get_driver_name() in _LIBPQ else {}
        try:
            self._engine = sqlalchemy.create_engine(
                parsed,
                pool_size=1,
                max_overflow=8,
                pool_pre_ping=True,
                connect_args={name: value for name, value in ours.items() if name not in parsed.query},
            )
        except ImportError as error:
            raise MissingExtraError(
                f"the ledger's URL asks for the driver {parsed.get_driver_name()}, which is not installed",
                hint="Install it, or write postgresql:// alone: pip install 'shoal[postgresql]'",
                extra="postgresql",
            ) from error
        sqlalchemy.event.listen(self._engine, "connect", _limit)

    @contextmanager
    def connect(self, wait: float) -> Iterator[StoreConnection]:
        with self._engine.connect() as connection:
            yield _OnServer(connection)

    @contextmanager
    def write(self, wait: float) -> Iterator[StoreConnection]:
        with self._engine.begin() as connection:
            connection.exec_driver_sql(
                f"SET LOCAL lock_timeout = {int(1000 * wait)}; "
                f"SET LOCAL statement_timeout = {int(1000 * (wait + LOCAL.statement))}"
            )
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
            yield _OnServer(connection)

    def columns(self, connection: StoreConnection, table: str) -> set[str]:
        query = (
            "SELECT attname FROM pg_attribute "
            "WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped"
        )
        return {row[0] for row in connection.execute(query, {"table": table}).fetchall()}

    def now(self, connection: StoreConnection) -> float:
        return float(connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()[0])

    def fault(self, error: Exception) -> str | None:
        if not isinstance(error, self._sa.exc.SQLAlchemyError):
            return None
        return str(getattr(error, "orig", None) or error)

    def dispose(self) -> None:
        self._engine.dispose()

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections, without telling the server."""
        self._engine.dispose(close=False)


def _checked(url: str) -> str:
    """The URL, with a driver that is installed.

    Raises:
        UsageError: it is not one of a PostgreSQL.
        MissingExtraError: no driver is installed.
    """
    kind, colon, _ = url.partition("://")
    if kind.partition("+")[0] != "postgresql":
        what = f"starts with {kind!r}" if colon else "is not a URL"
        raise UsageError(
            f"`store:` {what}, and a ledger is kept in SQLite or PostgreSQL",
            hint=_AS_THIS,
        )
    from shoal.tables.catalogs.drivers import with_driver

    return with_driver(url)


def _limit(connection: Any, _record: object) -> None:
    """A stopped client gives back what it holds, whoever else waits for it."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SET idle_in_transaction_session_timeout = {int(1000 * LOCAL.abandoned)}; "
            f"SET statement_timeout = {int(1000 * LOCAL.statement)}; "
            f"SET lock_timeout = {int(1000 * LOCAL.statement)}; "
            "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
        )
    connection.commit()


class _OnServer:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Mapping[str, Any] | None = None, /) -> Any:
        return self._connection.execute(_text(statement), dict(values or {}))


@cache
def _text(statement: str) -> Any:
    import sqlalchemy

    return sqlalchemy.text(statement)


_servers: dict[str, Server] = {}
_lock = threading.Lock()


def server(url: str) -> Server:
    """The store of that URL in this process."""
    with _lock:
        if url not in _servers:
            _servers[url] = Server(url)
        return _servers[url]


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for each in _servers.values():
        each.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
