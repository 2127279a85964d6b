"""Does with dask-kubernetes' operator what ``operated`` says: asks it for clusters and workers, and ends both.

Why it exists: what is asked of the operator, and what it made, is found and ended by the label of a cluster alone, so
nothing of anybody else is touched, whether an operator runs or not.

What it must not do: decide how many workers there are to be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from shoal.errors import NotFoundError, StaleRecordError
from shoal.homes.kubernetes.names import (
    CLUSTER,
    DASK_CLUSTER,
    DASK_WORKERS,
    DEPLOYMENT,
    OF_CLUSTER,
    OF_GROUP,
    REPLICA_SET,
    Object,
)
from shoal.homes.kubernetes.operated import dask_cluster, dask_workers, operate, workers_of
from shoal.homes.kubernetes.quotas import Quotas
from shoal.homes.kubernetes.refusals import refuse_foreign
from shoal.homes.kubernetes.view import View
from shoal.model.cluster import Cluster, State

if TYPE_CHECKING:
    from shoal.homes.kubernetes.api import Api

_MADE = 30.0  # s that the operator gets to make what it was asked for
_KOPF = "kopf.zalando.org/"  # its finalizers, with which the operator would have to agree to an end


class _Asked(NamedTuple):
    replicas: int
    at: float


class Operated:
    """For clusters as ``view`` has them."""

    def __init__(self, api: Api, view: View, quotas: Quotas) -> None:
        self._api, self._view, self._quotas = api, view, quotas
        self._asked: dict[str, dict[str, _Asked]] = {}  # of the operator, by cluster and group

    def start(self, found: Object, cluster: Cluster, head: Object, workers: Iterable[Object]) -> None:
        """Ask for a cluster with a head and, by group, workers like these; what is there already stays."""
        namespace = found["metadata"]["namespace"]
        self._view.released.discard(cluster.id)
        first, *others = workers
        self._make(DASK_CLUSTER.path(namespace), dask_cluster(found, cluster.plan, head, first), cluster.id)
        for group, worker in zip(cluster.plan.groups[1:], others, strict=True):
            made = dask_workers(found, cluster.plan, group, worker)
            self._make(DASK_WORKERS.path(namespace), made, cluster.id)

    def tend(self, found: Object, cluster: Cluster) -> None:
        """Ask for as many workers as the plan has; those go that were retired."""
        if cluster.state not in (State.STARTING, State.READY):
            return
        uid, namespace = cluster.id, found["metadata"]["namespace"]
        pods = self._view.pods.get(uid, [])
        todo = operate(cluster.plan, pods, self._view.reports.get(uid))
        asked = self._asked.setdefault(uid, {})
        new = {
            group for group, many in todo.replicas.items() if group not in asked or asked[group][0] != many
        }
        late = {group for group in todo.missing if self._is_late(asked.get(group))}
        if not (todo.end or new or late):
            return
        self._view.confirm(uid)
        there = {
            each["metadata"]["name"]: each["metadata"] for each in self._of(DEPLOYMENT.path(namespace), uid)
        }
        for name in todo.end:
            if (its := there.pop(name, None)) is not None:
                self._api.delete(DEPLOYMENT.path(namespace, name), its["uid"])
        if new or late:
            self._quotas.wait_for(namespace)
        for group in new | late:
            many = todo.replicas[group]
            have = sum(its["labels"].get(OF_GROUP) == group for its in there.values())
            if group not in new and have < many:
                many = have  # it acts on a change alone: what is there first, and what is wanted at the next look
            spec = {"spec": {"worker": {"replicas": many}}}
            with suppress(NotFoundError):  # it has not made the group yet
                self._api.patch(DASK_WORKERS.path(namespace, workers_of(found, cluster.plan)[group]), spec)
                asked[group] = _Asked(many, time.monotonic())

    def release(self, found: Object, cluster: Cluster) -> None:
        """End all that was asked for, and what the operator made of it; it itself also where no operator runs."""
        uid, namespace = cluster.id, found["metadata"]["namespace"]
        self._asked.pop(uid, None)
        path = DASK_CLUSTER.path(namespace, found["metadata"]["name"])
        self._end(path, uid)  # before its groups, which the operator would make again
        for name in workers_of(found, cluster.plan).values():
            self._end(DASK_WORKERS.path(namespace, name), uid)
        self._end_made(namespace, uid)
        if self._mine(path, uid) is None:
            self._view.released.add(uid)

    def reap(self, namespace: str, known: Collection[str], confirm: Callable[[str], None]) -> None:
        """End what was asked for clusters whose object is gone: without an operator, Kubernetes waits for it for good.

        ``known``: uids of those that are there; ``confirm`` raises StaleRecordError where one is after all.
        """
        kinds = DASK_CLUSTER, DASK_WORKERS
        asked = [
            (kind, each)
            for kind in kinds
            for each in self._api.list(kind.path(namespace), labelSelector=OF_CLUSTER)[0]
        ]
        for uid in {_asked_for(each) for _, each in asked} - {"", *known}:
            confirm(uid)
            for kind, each in asked:
                if _asked_for(each) == uid:
                    self._end(kind.path(namespace, each["metadata"]["name"]), uid)
            self._end_made(namespace, uid)

    def _end_made(self, namespace: str, uid: str) -> None:
        """What the operator made: the first makes the second, and that makes pods."""
        for kind in (DEPLOYMENT, REPLICA_SET):
            for each in self._of(kind.path(namespace), uid):
                its = each["metadata"]
                self._api.delete(kind.path(namespace, its["name"]), its["uid"])

    def _is_late(self, asked: _Asked | None) -> bool:
        return asked is not None and time.monotonic() - asked.at > _MADE

    def _of(self, path: str, uid: str) -> list[Object]:
        return self._api.list(path, labelSelector=f"{OF_CLUSTER}={uid}")[0]

    def _mine(self, path: str, uid: str) -> Object | None:
        try:
            metadata: Object = self._api.get(path)["metadata"]
        except NotFoundError:
            return None
        return metadata if metadata.get("labels", {}).get(OF_CLUSTER) == uid else None

    def _end(self, path: str, uid: str) -> None:
        if (its := self._mine(path, uid)) is None:
            return
        self._api.delete(path, its["uid"])
        held = its.get("finalizers", [])
        kept = [each for each in held if not each.startswith(_KOPF)]
        if kept != held:
            with suppress(NotFoundError):
                self._api.patch(path, {"metadata": {"uid": its["uid"], "finalizers": kept or None}})

    def _make(self, path: str, item: Object, uid: str) -> None:
        """Create it; one of that name that is this cluster's is as good, another cluster's is waited for."""
        try:
            self._api.create(path, item)
        except StaleRecordError:
            there = self._api.get(f"{path}/{item['metadata']['name']}")
            its = there["metadata"].get("labels", {}).get(OF_CLUSTER)
            if its is None:
                refuse_foreign(there, item["kind"])
            if its != uid:
                raise


def _asked_for(found: Object) -> str:
    """The uid of the cluster for which a governor asked for it; empty where its label alone says so."""
    metadata = found["metadata"]
    uid = str(metadata.get("labels", {}).get(OF_CLUSTER, ""))
    owners = (
        each.get("uid") for each in metadata.get("ownerReferences", ()) if each.get("kind") == CLUSTER.name
    )
    return uid if uid in owners else ""
