"""A home whose snapshot is old news: before what cannot be undone, what it goes by is read again.

Why it exists: a place is looked at by way of caches, which age, each kind by itself. A write of one object fails by its
version where somebody else wrote that; but what is freed because no process is seen, ended because a head is not seen,
or started because none ever was, goes by other objects than the one that is written. Those are confirmed first.

What it must not do: decide what is done, or know how a home reads.
"""

from __future__ import annotations

from typing import Protocol

from shoal.governor.ports import AccountKey, Governed, Snapshot
from shoal.model.cluster import Cluster, State
from shoal.quota.account import Account


class Hinted(Governed, Protocol):
    """A home whose snapshot may be old."""

    def confirm(self, cluster_id: str) -> None:
        """Read live the cluster's record and then its processes (in the order that a snapshot says).

        Raises:
            StaleRecordError: they are not as they were in the last snapshot, with one's own writes since. Of one that
                was not there: it is there.
        """
        ...


def lowered(before: Account, after: Account) -> list[str]:
    """The clusters of which ``after`` holds less than ``before``."""
    now = after.admitted
    return [
        cluster
        for cluster, its in before.admitted.items()
        if cluster not in now or (now[cluster] is not its and its | now[cluster] != now[cluster])
    ]


class Cautious:
    """Does what ``home`` does, once what it goes by is confirmed where it has to be. See ``ports.Governed``."""

    def __init__(self, home: Hinted) -> None:
        self._home = home
        self._seen: Snapshot
        self._accounts: dict[AccountKey, Account] = {}
        self._confirmed: set[str] = set()

    def snapshot(self) -> Snapshot:
        self._seen = self._home.snapshot()
        self._accounts = {key: account for key, (account, _) in self._seen.accounts.items()}
        self._confirmed.clear()
        return self._seen

    def write_account(self, key: AccountKey, account: Account, version: int) -> int:
        """Nothing is freed of a cluster that may still run."""
        for cluster in lowered(self._accounts.get(key, Account()), account):
            self._confirm(cluster)
        new = self._home.write_account(key, account, version)
        self._accounts[key] = account
        return new

    def write_cluster(self, cluster: Cluster, version: int) -> int:
        """None begins to end, or ends, by what is not so any more."""
        known = self._seen.clusters.get(cluster.id)
        ends = cluster.state.ended or cluster.state is State.STOPPING
        if ends and (known is None or known[0].state is not cluster.state):
            self._confirm(cluster.id)
        new = self._home.write_cluster(cluster, version)
        if cluster.state.ended:
            # A start that was on its way may have come meanwhile; from now on none is decided any more.
            self._acted(cluster.id)
        return new

    def start_head(self, cluster_id: str) -> None:
        """One that ever was, and is gone, is not started again."""
        self._confirm(cluster_id)
        self._home.start_head(cluster_id)

    def start_script(self, cluster_id: str) -> None:
        self._confirm(cluster_id)
        self._home.start_script(cluster_id)

    def stop_head(self, cluster_id: str) -> None:
        self._acted(cluster_id)
        self._home.stop_head(cluster_id)

    def kill_head(self, cluster_id: str) -> None:
        self._acted(cluster_id)
        self._home.kill_head(cluster_id)

    def end_remains(self, cluster_id: str) -> None:
        self._confirm(cluster_id)
        self._acted(cluster_id)
        self._home.end_remains(cluster_id)

    def _confirm(self, cluster_id: str) -> None:
        if cluster_id not in self._confirmed:
            self._home.confirm(cluster_id)
            self._confirmed.add(cluster_id)

    def _acted(self, cluster_id: str) -> None:
        """Its processes are not as they were: what is done after that asks again."""
        self._confirmed.discard(cluster_id)
