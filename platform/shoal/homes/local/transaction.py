"""What can be read and written inside one transaction of the ledger.

Why it exists: everything that the local home knows passes through these few statements.

What it must not do: begin or end transactions (the ledger does), or decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from shoal.errors import NotFoundError
from shoal.governor.ends import Sentence
from shoal.homes.base import Wishes
from shoal.homes.local import schema
from shoal.homes.local.schema import decoded, encoded
from shoal.homes.local.stores import StoreConnection
from shoal.model.cluster import Cluster, EndedRun, Reason, State
from shoal.model.codec import plain, read
from shoal.model.status import Event
from shoal.quota.account import Account

_ALL = f"SELECT {', '.join(schema.SELECTED)} FROM shoal_clusters"
_OLDEST = " ORDER BY created"
_PAST = "SELECT account FROM shoal_accounts WHERE scope = :scope AND name = :name"
_KEEP = "UPDATE shoal_accounts SET account = :account WHERE scope = :scope AND name = :name"
_WISHES = (
    "SELECT wanted, stop_reason, stop_message, longest, wanted_groups, reason_added FROM shoal_clusters"
    " WHERE id = :id"
)
_CLIENTS = "SELECT clients FROM shoal_clusters WHERE id = :id"
_ENDED = f"SELECT {', '.join(schema.ENDED)} FROM shoal_clusters WHERE ended_at >= :moment AND admitted_at IS NOT NULL"
_EVENT = ("cluster", "at", "state", "reason", "message")
_HISTORY = (
    f"SELECT {', '.join(_EVENT[1:])}, (SELECT reason_added FROM shoal_clusters WHERE id = :cluster)"
    " FROM shoal_events WHERE cluster = :cluster ORDER BY number"
)


@cache
def _inserting(table: str, columns: tuple[str, ...]) -> str:
    values = ", ".join(f":{name}" for name in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"


@cache
def _setting(columns: tuple[str, ...], only_live: bool) -> str:
    change = ", ".join(f"{name} = :{name}" for name in columns)
    return f"UPDATE shoal_clusters SET {change} WHERE id = :its_id" + (
        " AND ended_at IS NULL" if only_live else ""
    )


class Transaction:
    """Reads and writes inside one transaction of the ledger."""

    def __init__(self, connection: StoreConnection, now: float, ledger_path: str = "") -> None:
        self._connection = connection
        self.ledger_path = (
            ledger_path  # where the ledger's file is, which a copy of it cannot share; empty for a server
        )
        self._live: list[Cluster] | None = None
        self._past: dict[tuple[str, str], Account] = {}
        # What is seen of a cluster, by its id: looked at once, and true for the whole transaction.
        self.sights: dict[str, Any] = {}
        self.now = now  # the store's clock: heads on several machines agree on it

    def live(self) -> list[Cluster]:
        """All clusters that have not ended, oldest first."""
        if self._live is None:
            self._live = self._select(f"{_ALL} WHERE ended_at IS NULL")
        return list(self._live)

    def get(self, cluster_id: str) -> Cluster:
        if (found := self.find(cluster_id)) is None:
            raise NotFoundError(
                f"there is no cluster {cluster_id!r}", hint="`shoal ls --all` lists the clusters."
            )
        return found

    def find(self, cluster_id: str) -> Cluster | None:
        """The record by id; None where there is none."""
        found = self._select(f"{_ALL} WHERE id = :id", id=cluster_id)
        return found[0] if found else None

    def named(self, name: str, owner: str) -> list[Cluster]:
        """All clusters of the owner with that name, ended ones too, oldest first."""
        query = f"{_ALL} WHERE owner = :owner AND name = :name"
        return self._select(query, owner=owner, name=name)

    def all(self, owner: str | None = None) -> list[Cluster]:
        """All clusters, ended ones too, oldest first."""
        return self._select(f"{_ALL} WHERE owner = :owner", owner=owner) if owner else self._select(_ALL)

    def ended_since(self, moment: float) -> list[EndedRun]:
        """Of all clusters that were admitted, and have ended at that moment or later."""
        return [
            schema.to_ended(row) for row in self._connection.execute(_ENDED, {"moment": moment}).fetchall()
        ]

    def wishes(self, cluster_id: str) -> Wishes:
        """What the head is asked to do."""
        row = self._connection.execute(_WISHES, {"id": cluster_id}).fetchone()
        if row is None:
            return Wishes(stop=Reason.HEAD_LOST, message=Sentence.FORGOTTEN)
        groups = decoded(row[4]) or {}
        stop = schema.reason_of(row[1], row[5]) if row[1] else None
        return Wishes(row[0], stop, row[2] or "", row[3], groups)

    def clients(self, cluster_id: str) -> list[dict[str, Any]]:
        """The processes that said that they wait for it in the queue."""
        row = self._connection.execute(_CLIENTS, {"id": cluster_id}).fetchone()
        return list(decoded(row[0]) or ()) if row is not None else []

    def history_of(self, key: tuple[str, str]) -> Account:
        """What was held in the past by the account ``(scope, name)``; empty for an unknown one."""
        if key not in self._past:
            row = self._connection.execute(_PAST, {"scope": str(key[0]), "name": key[1]}).fetchone()
            self._past[key] = read(Account, decoded(row[0])) if row is not None else Account()
        return self._past[key]

    def keep_history(self, key: tuple[str, str], account: Account) -> None:
        """Keep what the account held until now; what it holds now is in the live clusters."""
        self._past[key] = replace(account, admitted={}, until={})
        row = {"scope": str(key[0]), "name": key[1], "account": plain(self._past[key])}
        if self._connection.execute(_KEEP, encoded(row)).rowcount == 0:
            self._insert("shoal_accounts", row)

    def history(self, cluster_id: str) -> list[Event]:
        """Every state the cluster was in, oldest first."""
        rows = self._connection.execute(_HISTORY, {"cluster": cluster_id}).fetchall()
        # Of all its reasons only that of its end may be one that came later, and that stays.
        return [
            Event(State(state), schema.reason_of(reason, added), message, at)
            for at, state, reason, message, added in rows
        ]

    def insert(self, cluster: Cluster) -> None:
        self._live = None
        self._insert("shoal_clusters", schema.to_row(cluster))
        self._note(cluster.id, cluster.state, cluster.reason, cluster.message)

    def update(self, cluster_id: str, **columns: Any) -> None:
        """Set columns that are not the state (``head``, ``workers``, ``renewed_at``, ``wanted``, …)."""
        self._set(cluster_id, columns, only_live=False)

    def move(self, cluster_id: str, state: State, reason: Reason, message: str, **columns: Any) -> bool:
        """To another state. False, and nothing changes, where the cluster has ended already."""
        columns |= {"state": state.value, **schema.reason_columns(reason), "message": message}
        columns.setdefault("since", self.now)
        if state.ended:
            columns.setdefault("ended_at", self.now)
        if self._set(cluster_id, columns, only_live=True) == 0:
            return False
        self._note(cluster_id, state, reason, message)
        return True

    def change(self, before: Cluster, after: Cluster, **more: Any) -> bool:
        """From one record to the other, with ``more`` columns. False, and nothing changes, where it has ended.

        What happens while it waits is not kept: the queue moves too often.
        """
        columns = {
            name: getattr(after, name)
            for name in ("team", "since", "admitted_at", "ended_at", "workers", "report", "accrued")
            if getattr(after, name) != getattr(before, name)
        }
        if after.notice != before.notice:
            columns["notice"] = schema.notice_column(after.notice)
        if after.plan is not before.plan:
            columns["plan"] = after.plan
        moved = (after.state, after.reason, after.message)
        if moved == (before.state, before.reason, before.message) or after.state is State.QUEUED:
            said = {
                "state": after.state.value,
                **schema.reason_columns(after.reason),
                "message": after.message,
            }
            return self._set(after.id, columns | said | more, only_live=True) > 0
        return self.move(after.id, *moved, **{"since": after.since} | columns | more)

    def version(self) -> str | None:
        """The version that the tables were made by."""
        row = self._connection.execute("SELECT value FROM shoal_meta WHERE key = 'version'").fetchone()
        return None if row is None else str(row[0])

    def make_tables(self, counter: str, known: Sequence[Mapping[str, Any]] = ()) -> None:
        """Make the tables where they are not there yet, note their version, enter what is ``known``.

        ``counter``: the store's type for a primary key that counts by itself.
        """
        for statement in schema.tables(counter):
            self._connection.execute(statement)
        if self.version() is None:
            self._insert("shoal_meta", {"key": "version", "value": str(schema.VERSION)})
            for row in known:
                self._insert("shoal_clusters", row)

    def add_columns(self, there: Iterable[str]) -> None:
        """Add the columns of ``shoal_clusters`` that a ledger of an older Shoal lacks; ``there``: those it has."""
        for statement in schema.lacking(there):
            self._connection.execute(statement)

    def _note(self, cluster_id: str, state: State, reason: Reason, message: str) -> None:
        event = (cluster_id, self.now, state.value, schema.first_reason(reason), message)
        self._insert("shoal_events", dict(zip(_EVENT, event, strict=True)))

    def _insert(self, table: str, row: Mapping[str, Any]) -> None:
        self._connection.execute(_inserting(table, tuple(row)), encoded(row))

    def _set(self, cluster_id: str, columns: Mapping[str, Any], *, only_live: bool) -> int:
        self._live = None
        if "plan" in columns:
            columns = {**columns, **schema.plan_columns(columns["plan"])}
        change = _setting(tuple(columns), only_live)
        done = self._connection.execute(change, encoded(columns) | {"its_id": cluster_id})
        return int(done.rowcount)

    def _select(self, query: str, **where: Any) -> list[Cluster]:
        """Records, oldest first."""
        return [schema.from_row(row) for row in self._connection.execute(query + _OLDEST, where).fetchall()]
