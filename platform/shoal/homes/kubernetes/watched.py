"""Everything that a governor goes by, as caches have it, and what of it changed since it looked last.

Why it exists: that anything changed wakes it, and which cluster that is about spares it all the others.

What it must not do: decide, or know what a change means.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from shoal.homes.kubernetes.caches import Cache, slim_pod
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.names import (
    ACCOUNT,
    ADMITTED,
    CLUSTER,
    OF_CLUSTER,
    POD,
    PROJECT,
    QUOTA,
    REPORT,
    Object,
)
from shoal.homes.kubernetes.sight import cluster_of_pod

if TYPE_CHECKING:
    from shoal.homes.kubernetes.api import Api


class Watched:
    """Caches of all kinds. ``event`` is set by whatever changes, and by :meth:`stop`."""

    def __init__(self, location: Location) -> None:
        self.event = threading.Event()
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        where, system = location.namespaces or (None,), location.system
        self.clusters = Cache(map(CLUSTER.path, where), self._cluster)
        self.pods = Cache(
            map(POD.path, where), self._part, cluster_of_pod, slim_pod, labelSelector=OF_CLUSTER
        )
        self.reports = Cache(map(REPORT.path, where), self._part, owner_of)
        self.accounts = Cache([ACCOUNT.path(system)], self._any)
        self.projects = Cache([PROJECT.path(system)], self._any)
        self.quotas = Cache(map(QUOTA.path, where), self._any, fieldSelector=f"metadata.name={ADMITTED}")
        self._all = self.clusters, self.pods, self.reports, self.accounts, self.projects, self.quotas
        self._apis: list[Api] = []

    def start(self, api: Api) -> None:
        """Follow all of them, by connections of their own: each kind may need one per namespace."""
        for each in self._all:
            self._apis.append(api.again())
            each.start(self._apis[-1])

    def stop(self) -> None:
        """Follow no more, and wake whoever waits."""
        for each in self._all:
            each.stop()
        for api in self._apis:
            api.close()
        self.event.set()

    def changed(self) -> set[str]:
        """The uids of clusters of which anything changed since this was asked last."""
        with self._lock:
            changed, self._changed = self._changed, set()
        return changed

    def _note(self, uid: str | None) -> None:
        if uid is not None:
            with self._lock:
                self._changed.add(uid)
        self.event.set()

    def _cluster(self, found: Object) -> None:
        self._note(found["metadata"]["uid"])

    def _part(self, found: Object) -> None:
        self._note(cluster_of_pod(found) or owner_of(found))

    def _any(self, found: Object) -> None:
        self._note(None)


def owner_of(found: Object) -> str:
    """The uid of the first owner that it says; empty: of none."""
    owners = found["metadata"].get("ownerReferences") or [{}]
    return str(owners[0].get("uid", ""))
