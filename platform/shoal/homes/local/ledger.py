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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shoal.account import Account
from shoal.errors import InfrastructureError, NotFoundError
from shoal.homes.local import paths, rebuild, schema
from shoal.homes.local.turns import turn
from shoal.records import Cluster, Reason, State

_LOCK_WAIT = 30.0  # s that a transaction waits for others before it gives up
_ADVISORY_LOCK = 0x5348_4F41  # "SHOA"; one lock for all decisions of a database
_BUSY = ("locked", "busy", "lock timeout", "deadlock")


@dataclass(frozen=True)
class Wishes:
    """What a head is asked to do: a number of workers, an end with its reason, a longer life (seconds)."""

    workers: int | None = None
    stop: Reason | None = None
    message: str = ""
    longest: float | None = None


class BrokenLedgerError(InfrastructureError):
    """The ledger's file was damaged. It is kept aside, and the next attempt makes a new one."""


class Transaction:
    """Reads and writes inside one transaction of the ledger."""

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection = connection
        self._live: list[Cluster] | None = None
        self.now = now  # the store's clock: heads on several machines agree on it

    def live(self) -> list[Cluster]:
        """All clusters that have not ended, oldest first."""
        if self._live is None:
            self._live = self._select(schema.clusters.c.ended_at.is_(None))
        return list(self._live)

    def get(self, cluster_id: str) -> Cluster:
        found = self._select(schema.clusters.c.id == cluster_id)
        if not found:
            raise NotFoundError(
                f"there is no cluster {cluster_id!r}", hint="`shoal ls --all` lists the clusters."
            )
        return found[0]

    def named(self, name: str, owner: str) -> list[Cluster]:
        """All clusters of the owner with that name, ended ones too, oldest first."""
        return self._select(schema.clusters.c.name == name, schema.clusters.c.owner == owner)

    def all(self, owner: str | None = None) -> list[Cluster]:
        """All clusters, ended ones too, oldest first."""
        return self._select(*([schema.clusters.c.owner == owner] if owner else []))

    def wishes(self, cluster_id: str) -> Wishes:
        """What the head is asked to do."""
        columns = schema.clusters.c
        row = self._connection.execute(
            sa.select(columns.wanted, columns.stop_reason, columns.stop_message, columns.longest).where(
                columns.id == cluster_id
            )
        ).one_or_none()
        if row is None:
            return Wishes(stop=Reason.HEAD_LOST, message="its record is gone from the ledger")
        return Wishes(row[0], Reason(row[1]) if row[1] else None, row[2] or "", row[3])

    def history_of(self, key: tuple[str, str]) -> Account:
        """What was held in the past by the account ``(scope, name)``; empty for an unknown one."""
        columns = schema.accounts.c
        row = self._connection.execute(
            sa.select(columns.account).where(columns.scope == key[0], columns.name == key[1])
        ).scalar_one_or_none()
        return Account.from_json(row) if row is not None else Account()

    def keep_history(self, key: tuple[str, str], account: Account) -> None:
        """Keep what the account held until now; what it holds now is in the live clusters."""
        past = replace(account, admitted={}, until={}).to_json()
        columns = schema.accounts.c
        mine = (columns.scope == key[0], columns.name == key[1])
        changed = self._connection.execute(sa.update(schema.accounts).where(*mine).values(account=past))
        if changed.rowcount == 0:
            self._connection.execute(
                sa.insert(schema.accounts).values(scope=str(key[0]), name=key[1], account=past)
            )

    def history(self, cluster_id: str) -> list[dict[str, Any]]:
        """Every state the cluster was in, with reason, sentence and time, oldest first."""
        query = sa.select(schema.events).where(schema.events.c.cluster == cluster_id)
        rows = self._connection.execute(query.order_by(schema.events.c.number)).mappings()
        return [dict(row) for row in rows]

    def insert(self, cluster: Cluster) -> None:
        self._live = None
        self._connection.execute(sa.insert(schema.clusters).values(**schema.to_row(cluster)))
        self._note(cluster.id, cluster.state, cluster.reason, cluster.message)

    def update(self, cluster_id: str, **columns: Any) -> None:
        """Set columns that are not the state (``head``, ``workers``, ``renewed_at``, ``wanted``, …)."""
        self._live = None
        self._connection.execute(
            sa.update(schema.clusters).where(schema.clusters.c.id == cluster_id).values(**columns)
        )

    def move(self, cluster_id: str, state: State, reason: Reason, message: str, **columns: Any) -> bool:
        """To another state. False, and nothing changes, where the cluster has ended already."""
        self._live = None
        columns |= {"state": state.value, "reason": reason.value, "message": message, "since": self.now}
        if state.ended:
            columns["ended_at"] = self.now
        change = (
            sa.update(schema.clusters)
            .where(schema.clusters.c.id == cluster_id, schema.clusters.c.ended_at.is_(None))
            .values(**columns)
        )
        if self._connection.execute(change).rowcount == 0:
            return False
        self._note(cluster_id, state, reason, message)
        return True

    def make_tables(self, known: Sequence[Mapping[str, Any]] = ()) -> None:
        """Make the tables where they are not there yet, note their version, enter what is ``known``."""
        schema.metadata.create_all(self._connection)
        if self._connection.execute(sa.select(schema.meta)).first() is None:
            self._connection.execute(sa.insert(schema.meta).values(key="version", value=str(schema.VERSION)))
            for row in known:
                self._connection.execute(sa.insert(schema.clusters).values(**row))

    def _note(self, cluster_id: str, state: State, reason: Reason, message: str) -> None:
        self._connection.execute(
            sa.insert(schema.events).values(
                cluster=cluster_id, at=self.now, state=state.value, reason=reason.value, message=message
            )
        )

    def _select(self, *conditions: Any) -> list[Cluster]:
        query = sa.select(schema.clusters).where(*conditions).order_by(schema.clusters.c.created)
        return [schema.from_row(row) for row in self._connection.execute(query).mappings()]


class Ledger:
    """Opens the store at ``url`` (default: ``ledger.db`` in the data folder), making it at first use."""

    def __init__(self, url: str | None = None) -> None:
        self.file: Path | None = None
        if url is None:
            self.file = paths.make_private(paths.data_folder()) / "ledger.db"
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
                if self._sqlite:
                    connection.exec_driver_sql("PRAGMA quick_check(1)")
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
                kept = rebuild.keep_aside(Path(self.url.database))
                raise BrokenLedgerError(
                    f"the ledger {self!r} is damaged ({text}); it is kept as {kept}",
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
