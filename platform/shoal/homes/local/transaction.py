"""What can be read and written inside one transaction of the ledger.

Why it exists: everything that the local home knows passes through these few statements. They are built once:
putting one together costs more than SQLite takes to run it.

What it must not do: begin or end transactions (the ledger does), or decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shoal.account import Account
from shoal.errors import NotFoundError
from shoal.homes.local import schema
from shoal.records import Cluster, Reason, State

_CLUSTERS = schema.clusters.c
_ACCOUNTS = schema.accounts.c
_ALL = sa.select(*schema.columns).order_by(_CLUSTERS.created)
_LIVE = _ALL.where(_CLUSTERS.ended_at.is_(None))
_BY_ID = _ALL.where(_CLUSTERS.id == sa.bindparam("its_id"))
_NAMED = _ALL.where(_CLUSTERS.owner == sa.bindparam("its_owner"), _CLUSTERS.name == sa.bindparam("its_name"))
_OF = _ALL.where(_CLUSTERS.owner == sa.bindparam("its_owner"))
_WISHES = sa.select(_CLUSTERS.wanted, _CLUSTERS.stop_reason, _CLUSTERS.stop_message, _CLUSTERS.longest).where(
    _CLUSTERS.id == sa.bindparam("its_id")
)
_PAST = sa.select(_ACCOUNTS.account).where(
    _ACCOUNTS.scope == sa.bindparam("its_scope"), _ACCOUNTS.name == sa.bindparam("its_name")
)
_KEEP = (
    sa.update(schema.accounts)
    .where(_ACCOUNTS.scope == sa.bindparam("its_scope"), _ACCOUNTS.name == sa.bindparam("its_name"))
    .values(account=sa.bindparam("past"))
)
_HISTORY = (
    sa.select(schema.events)
    .where(schema.events.c.cluster == sa.bindparam("its_id"))
    .order_by(schema.events.c.number)
)


@cache
def _setting(columns: tuple[str, ...], only_live: bool) -> sa.Update:
    """``update shoal_clusters set COLUMNS where id = :its_id``."""
    change = sa.update(schema.clusters).where(_CLUSTERS.id == sa.bindparam("its_id"))
    if only_live:
        change = change.where(_CLUSTERS.ended_at.is_(None))
    return change.values({name: sa.bindparam(f"new_{name}") for name in columns})


@dataclass(frozen=True)
class Wishes:
    """What a head is asked to do: a number of workers, an end with its reason, a longer life (seconds)."""

    workers: int | None = None
    stop: Reason | None = None
    message: str = ""
    longest: float | None = None


class Transaction:
    """Reads and writes inside one transaction of the ledger."""

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection = connection
        self._live: list[Cluster] | None = None
        self._past: dict[tuple[str, str], Account] = {}
        # Whether a cluster is there, by its id: looked at once, and true for the whole transaction.
        self.gone: dict[str, Any] = {}
        self.now = now  # the store's clock: heads on several machines agree on it

    def live(self) -> list[Cluster]:
        """All clusters that have not ended, oldest first."""
        if self._live is None:
            self._live = self._select(_LIVE)
        return list(self._live)

    def get(self, cluster_id: str) -> Cluster:
        found = self._select(_BY_ID, its_id=cluster_id)
        if not found:
            raise NotFoundError(
                f"there is no cluster {cluster_id!r}", hint="`shoal ls --all` lists the clusters."
            )
        return found[0]

    def named(self, name: str, owner: str) -> list[Cluster]:
        """All clusters of the owner with that name, ended ones too, oldest first."""
        return self._select(_NAMED, its_owner=owner, its_name=name)

    def all(self, owner: str | None = None) -> list[Cluster]:
        """All clusters, ended ones too, oldest first."""
        return self._select(_OF, its_owner=owner) if owner else self._select(_ALL)

    def wishes(self, cluster_id: str) -> Wishes:
        """What the head is asked to do."""
        row = self._connection.execute(_WISHES, {"its_id": cluster_id}).one_or_none()
        if row is None:
            return Wishes(stop=Reason.HEAD_LOST, message="its record is gone from the ledger")
        return Wishes(row[0], Reason(row[1]) if row[1] else None, row[2] or "", row[3])

    def history_of(self, key: tuple[str, str]) -> Account:
        """What was held in the past by the account ``(scope, name)``; empty for an unknown one."""
        if key not in self._past:
            where = {"its_scope": str(key[0]), "its_name": key[1]}
            row = self._connection.execute(_PAST, where).scalar_one_or_none()
            self._past[key] = Account.from_json(row) if row is not None else Account()
        return self._past[key]

    def keep_history(self, key: tuple[str, str], account: Account) -> None:
        """Keep what the account held until now; what it holds now is in the live clusters."""
        self._past[key] = replace(account, admitted={}, until={})
        past = self._past[key].to_json()
        where = {"its_scope": str(key[0]), "its_name": key[1]}
        if self._connection.execute(_KEEP, where | {"past": past}).rowcount == 0:
            row = {"scope": str(key[0]), "name": key[1], "account": past}
            self._connection.execute(sa.insert(schema.accounts), row)

    def history(self, cluster_id: str) -> list[dict[str, Any]]:
        """Every state the cluster was in, with reason, sentence and time, oldest first."""
        rows = self._connection.execute(_HISTORY, {"its_id": cluster_id}).mappings()
        return [dict(row) for row in rows]

    def insert(self, cluster: Cluster) -> None:
        self._live = None
        self._connection.execute(sa.insert(schema.clusters), schema.to_row(cluster))
        self._note(cluster.id, cluster.state, cluster.reason, cluster.message)

    def update(self, cluster_id: str, **columns: Any) -> None:
        """Set columns that are not the state (``head``, ``workers``, ``renewed_at``, ``wanted``, …)."""
        self._set(cluster_id, columns, only_live=False)

    def move(self, cluster_id: str, state: State, reason: Reason, message: str, **columns: Any) -> bool:
        """To another state. False, and nothing changes, where the cluster has ended already."""
        columns |= {"state": state.value, "reason": reason.value, "message": message, "since": self.now}
        if state.ended:
            columns["ended_at"] = self.now
        if self._set(cluster_id, columns, only_live=True) == 0:
            return False
        self._note(cluster_id, state, reason, message)
        return True

    def make_tables(self, known: Sequence[Mapping[str, Any]] = ()) -> None:
        """Make the tables where they are not there yet, note their version, enter what is ``known``."""
        schema.metadata.create_all(self._connection)
        if self._connection.execute(sa.select(schema.meta)).first() is None:
            self._connection.execute(sa.insert(schema.meta), {"key": "version", "value": str(schema.VERSION)})
            for row in known:
                self._connection.execute(sa.insert(schema.clusters), dict(row))

    def _note(self, cluster_id: str, state: State, reason: Reason, message: str) -> None:
        row = {"cluster": cluster_id, "at": self.now, "state": state.value, "reason": reason.value}
        self._connection.execute(sa.insert(schema.events), row | {"message": message})

    def _set(self, cluster_id: str, columns: Mapping[str, Any], *, only_live: bool) -> int:
        self._live = None
        values = {f"new_{name}": value for name, value in columns.items()}
        change = _setting(tuple(sorted(columns)), only_live)
        return self._connection.execute(change, {"its_id": cluster_id, **values}).rowcount

    def _select(self, query: sa.Select[Any], **where: Any) -> list[Cluster]:
        return [schema.from_row(row) for row in self._connection.execute(query, where).mappings()]
