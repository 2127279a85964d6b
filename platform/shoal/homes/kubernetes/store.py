"""The API server as the governor's store: a snapshot, and single writes that fail if somebody else wrote.

Why it exists: ``governor.rounds`` decides; this reads and does, in the order that it relies on. What is read is what
caches have (``view``); before what cannot be undone it is read live (``confirm``, see ``governor.cautious``).

What it must not do: decide.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TYPE_CHECKING

from shoal.errors import NotFoundError, ShoalError, StaleRecordError
from shoal.governor.actions import Scope
from shoal.governor.ports import AccountKey, Sight, Snapshot
from shoal.homes.kubernetes import names
from shoal.homes.kubernetes.attending import Attendances
from shoal.homes.kubernetes.errors import ObjectRefusedError, RightsError
from shoal.homes.kubernetes.history import History
from shoal.homes.kubernetes.in_force import InForce
from shoal.homes.kubernetes.location import Location, namespaces_of_users
from shoal.homes.kubernetes.names import ACCOUNT, CLUSTER, LEASE, OF_CLUSTER, Object
from shoal.homes.kubernetes.objects import (
    Status,
    account_key,
    account_object,
    account_read,
    conditions,
    status_from,
)
from shoal.homes.kubernetes.parts import ClusterParts
from shoal.homes.kubernetes.passes import take_stale_passes
from shoal.homes.kubernetes.periods import KUBERNETES
from shoal.homes.kubernetes.quotas import Quotas
from shoal.homes.kubernetes.refusals import Refusals
from shoal.homes.kubernetes.structure import written
from shoal.homes.kubernetes.view import View
from shoal.homes.kubernetes.watched import Watched
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import Via
from shoal.quota.account import Account
from shoal.quota.admission import lasting
from shoal.units import Seconds

if TYPE_CHECKING:
    from shoal.homes.kubernetes.api import Api

_log = logging.getLogger("shoal.homes")
_USES = 10  # times a second, at most, that it is written what heads say of their use
_AT_ONCE = 8  # clusters
_SWEEP = 60.0  # s between two looks for passes to clusters that are gone


class ObjectStore:
    """What the governor of a place reads and writes. ``in_force``: templates, prices and policy as they are now."""

    def __init__(self, api: Api, location: Location, watched: Watched) -> None:
        self._api, self._location, self._watched = api, location, watched
        self.in_force = InForce(location.system)
        self._swept = 0.0
        self._gone: dict[str, str] = {}  # namespaces of clusters whose object somebody deleted, by uid
        self._reaped: set[str] = set()  # of these
        self._accounts: dict[AccountKey, Object] = {}
        self._read: dict[AccountKey, tuple[Account, int]] = {}
        self._refusals = Refusals()
        there, wrote = watched.quotas.items, watched.quotas.put
        self._quotas = Quotas(api, location.system, lambda: there().values(), wrote)
        self._view = View(api, location, watched, self._refusals)
        self._parts = ClusterParts(api, watched, self._view, self._quotas, self._refusals)
        self._where, self._system = location.namespaces or (None,), location.system
        self._history, self._attendances = History(api, location), Attendances()
        self._pool = ThreadPoolExecutor(_AT_ONCE, "tidies")

    # -- what is decided on -----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """As caches have it, each kind as old as it is: what cannot be undone is confirmed first."""
        now, view = self._api.clock.now(), self._view
        quotas = self._quotas.look(self.in_force.owner, self.in_force.beside)
        self._accounts = {account_key(found): found for found in self._watched.accounts.items().values()}
        before = dict(view.found)
        view.look(self.in_force, now)
        for uid in before.keys() - view.found.keys():
            self._gone[uid] = before[uid]["metadata"]["namespace"]
        self._parts.keep(view.found)
        self._refusals.keep(view.found)
        for uid, error in view.refused.items():
            self._refuse(view.found[uid], error)
        sights = {uid: Sight(remains=True) for uid in view.pods if uid not in view.found} | view.sights
        waiting = {
            uid: view.found[uid]["metadata"]["namespace"]
            for uid in view.looked & view.records.keys()
            if view.records[uid].state is State.QUEUED
        }
        for uid, pulse in self._attendances.pulses(waiting, self._leases).items():
            sights[uid] = replace(sights[uid], pulse=pulse)
        self._read = {key: self._account(key, found) for key, found in self._accounts.items()}
        clusters = {uid: (its, _version(view.found[uid])) for uid, its in view.records.items()}
        bounded = self._quotas.bounding(view.found.values())
        machine, quiet = self.in_force.machine, view.quiet()
        return Snapshot(
            now, quotas | self._read, clusters, sights, dict(view.wishes), machine, bounded, quiet
        )

    def _account(self, key: AccountKey, found: Object) -> tuple[Account, int]:
        version, known = _version(found), self._read.get(key)
        return known if known is not None and known[1] == version else (account_read(found), version)

    @property
    def unplanned(self) -> int:
        """How many requests wait for a project to be applied."""
        return self._view.unplanned

    def confirm(self, cluster_id: str) -> None:
        """StaleRecordError where it is not as the last snapshot has it."""
        self._view.confirm(cluster_id)

    def _leases(self) -> Iterable[Object]:
        for namespace in self._where:
            yield from self._api.list(LEASE.path(namespace), labelSelector=OF_CLUSTER)[0]

    def _refuse(self, found: Object, error: ShoalError) -> None:
        """One that asks for what makes no sense is told so, in its status."""
        if found.get("status"):
            _log.error("%s is left as it is: %s", found["metadata"]["name"], error)
            return
        now = self._api.clock.now()
        owner = self._view.owner(found["metadata"]["namespace"])
        status = Status(State.REFUSED, Reason.OVER_LIMIT, error.message[:1000], now, owner, ended_at=now)
        try:
            self._watched.clusters.put(
                self._api.replace(_path(found, "status"), found | {"status": written(status)})
            )
        except ShoalError as again:
            _log.debug("refused in the next round: %s", again)

    # -- the writes -------------------------------------------------------------------------------------

    def write_account(self, key: AccountKey, account: Account, version: int) -> int:
        """Replace it if it still has this version (0: there is none)."""
        if key[0] is Scope.QUOTA:
            return self._quotas.write(key[1], account, version)
        found = self._accounts.get(key)
        if found is None or version == 0:
            made = account_object(*key, self._system)
            found = self._api.create(ACCOUNT.path(self._system), made)
            version = _version(found)
        metadata = found["metadata"] | {"resourceVersion": str(version)}
        body = found | {"metadata": metadata, "status": written(account)}
        new = self._api.replace(ACCOUNT.path(self._system, found["metadata"]["name"], "status"), body)
        self._watched.accounts.put(new)
        self._accounts[key] = new
        return _version(new)

    def write_cluster(self, cluster: Cluster, version: int) -> int:
        """Replace its status if the object still has this version."""
        found = self._view.found[cluster.id]
        _, before = self._view.said(found)
        log, output = (self._parts.logs.get((cluster.id, role), ()) for role in (names.HEAD, names.RUNNER))
        said = status_from(cluster, before, log, output, now=self._api.clock.now())
        if cluster.state.ended and cluster.admitted_at is not None:
            self._history.end(found, said)  # whoever reads of the end may delete the object
        status = written(said) | {"conditions": conditions(cluster)}
        metadata = found["metadata"] | {"resourceVersion": str(version)}
        try:
            new = self._api.replace(_path(found, "status"), found | {"metadata": metadata, "status": status})
        except (NotFoundError, RightsError) as error:  # it was deleted, or its namespace's Role was
            raise StaleRecordError(error.message) from error
        self._view.wrote(cluster.id, new, cluster)
        self._watched.clusters.put(new)
        return _version(new)

    def start_head(self, cluster_id: str) -> None:
        self._parts.start_head(cluster_id)

    def start_script(self, cluster_id: str) -> None:
        self._parts.start_script(cluster_id)

    def stop_head(self, cluster_id: str) -> None:
        self._parts.stop_head(cluster_id)

    def kill_head(self, cluster_id: str) -> None:
        self._parts.kill_head(cluster_id)

    def end_remains(self, cluster_id: str) -> None:
        self._parts.end_remains(cluster_id)

    # -- what goes on beside a cluster's life -----------------------------------------------------------

    def tidy(self) -> bool:
        """After a round: workers' pods, news of use, other lifetimes, and what is left of what ended.

        Whether anything was refused that the next round has to tell.
        """
        view = self._view
        self._history.look(view.found)
        todo = [self._pool.submit(self._tidy, uid) for uid in view.looked & view.records.keys()]
        wait(todo)  # none of them goes on into the next round
        for each in todo:
            each.result()
        view.acted()
        self._quotas.repair()
        self._sweep()
        return self._refusals.news()

    def _tidy(self, uid: str) -> None:
        """One cluster, beside others: what each needs is its own."""
        view = self._view
        found, cluster = view.found[uid], view.records[uid]
        try:
            self._history.remember(found, view.said(found)[1], remains=uid in view.pods)
            if cluster.state.ended:
                self._parts.clear(found, cluster)
                return
            self._live_longer(found, cluster)
            self._note(view.found[uid], view.records[uid])
            self._parts.tend(view.found[uid], view.records[uid])
        except (StaleRecordError, NotFoundError, ObjectRefusedError) as error:
            _log.debug("%s in the next round: %s", cluster.name, error)
        except ShoalError as error:
            _log.warning("%s is looked at again: %s", cluster.name, error)
        except Exception:  # a defect that one cluster meets keeps nobody else waiting
            _log.exception("%s of %s is looked at again in the next round", cluster.name, cluster.owner)

    @property
    def soon(self) -> bool:
        """Whether to look again in a moment, though nothing may tell of it."""
        return self._quotas.pending or self._refusals.young

    def _sweep(self) -> None:
        """Passes to clusters whose object somebody deleted; and now and then what nobody saw go, and new namespaces."""
        self._reap({self._gone[uid] for uid in self._gone.keys() - self._reaped})
        self._reaped = set(self._gone)
        ready = self._gone.keys() - self._view.pods.keys()
        known = {*self._view.found, *self._view.pods}
        confirm = self._view.confirm, self._view.forget_there
        if ready:
            take_stale_passes(self._api, {self._gone.pop(uid) for uid in ready}, known, *confirm)
        if time.monotonic() - self._swept < _SWEEP:
            return
        self._swept = time.monotonic()
        where = self._location.namespaces or {
            its["metadata"]["namespace"] for its in self._view.found.values()
        }
        take_stale_passes(self._api, where, known, *confirm)
        self._reap(where)
        self._quotas.repair(self._location.namespaces or namespaces_of_users(self._api, self._system))

    def _reap(self, namespaces: Iterable[str]) -> None:
        """Where some project's pods are the operator's."""
        applied = self.in_force.projects.values()
        if not any(its.kubernetes is not None and its.kubernetes.via is Via.OPERATOR for its in applied):
            return
        for namespace in namespaces:
            try:
                self._parts.reap(namespace, self._view.found)
            except ShoalError as error:  # its Role is of an older `shoal apply`, for one
                _log.info(
                    "what the operator has of no cluster in %s is looked at again: %s", namespace, error
                )

    def _note(self, found: Object, cluster: Cluster) -> None:
        """Write what its head says of it, on change of the workers' number, else now and then."""
        _, before = self._view.said(found)
        if before is None or cluster.state not in (State.ADMITTED, State.STARTING, State.READY):
            return
        news = before.workers != cluster.workers or before.runner != cluster.head.get(names.RUNNER, "")
        seen = before.usage.seen if before.usage is not None else 0.0
        pause = max(KUBERNETES.report, len(self._view.records) / _USES)
        if news or cluster.usage.seen - seen > pause:
            self.write_cluster(cluster, _version(self._view.found[cluster.id]))

    def _live_longer(self, found: Object, cluster: Cluster) -> None:
        """Another maximum lifetime, if the policy gives it."""
        asked = self._view.said(found)[0].lifetime
        if asked is None or cluster.state is State.QUEUED or asked == cluster.plan.timeouts.max:
            return
        limits = self.in_force.policy.limits_of(cluster.owner)
        try:
            plan = lasting(cluster, Seconds(asked), limits, self._api.clock.now())
        except ShoalError as error:
            _log.info("the lifetime of %s was not extended: %s", cluster.name, error)
            return
        self.write_cluster(replace(cluster, plan=plan), _version(self._view.found[cluster.id]))


def _version(found: Object) -> int:
    return int(found["metadata"]["resourceVersion"])


def _path(found: Object, sub: str = "") -> str:
    return CLUSTER.path(found["metadata"]["namespace"], found["metadata"]["name"], sub)
