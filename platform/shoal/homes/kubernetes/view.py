"""All clusters of a place as its caches have them, each read again only where anything of it changed.

Why it exists: a round over a thousand clusters that rest costs what one costs that does not. Time alone moves some on,
so now and then all are looked at.

What it must not do: write anything, or decide. What it has is old news, see ``governor.cautious``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shoal.errors import InfrastructureError, NotFoundError, ShoalError, StaleRecordError
from shoal.governor.actions import Seen
from shoal.governor.ports import Sight, UserWishes
from shoal.homes.base import Request, requested
from shoal.homes.kubernetes.crashing import Crashes, crashes
from shoal.homes.kubernetes.in_force import InForce, NotAppliedError
from shoal.homes.kubernetes.location import Location, user_of
from shoal.homes.kubernetes.names import CLUSTER, OF_CLUSTER, POD, Object
from shoal.homes.kubernetes.objects import (
    HeadReport,
    Spec,
    Status,
    cluster_of,
    created,
    spec_of,
    status_of,
    unplanned,
)
from shoal.homes.kubernetes.periods import KUBERNETES
from shoal.homes.kubernetes.refusals import Refusals
from shoal.homes.kubernetes.sight import cluster_of_pod, lost_since, seen_in, sight, wishes_for
from shoal.homes.kubernetes.structure import read
from shoal.homes.kubernetes.tending import surplus
from shoal.homes.kubernetes.watched import Watched
from shoal.model.cluster import Cluster, State
from shoal.model.workload import Via
from shoal.planning.sizing import plan as size

if TYPE_CHECKING:
    from shoal.homes.kubernetes.api import Api

_log = logging.getLogger("shoal.homes")
_OWNERS = 60.0  # s for which it is remembered whose a namespace is
_SHARE = 0.02  # of a core, at most, for looks at all clusters; what follows from them takes as much again


class View:
    """By uid: the object (``found``), its pods, what its head says, its record, and what a round goes by.

    ``looked``: those that this look was at. ``unplanned``: how many requests wait for a project to be applied.
    ``released``: those of which dask-kubernetes' operator has nothing any more, as far as this process has seen to it.
    """

    def __init__(self, api: Api, location: Location, watched: Watched, refusals: Refusals) -> None:
        self._api, self._watched, self._refusals = api, watched, refusals
        self._where = location.namespaces or (None,)
        self.found: dict[str, Object] = {}
        self.pods: dict[str, list[Object]] = {}
        self.reports: dict[str, HeadReport] = {}
        self.records: dict[str, Cluster] = {}
        self.sights: dict[str, Sight] = {}
        self.wishes: dict[str, UserWishes] = {}
        self.lost: dict[str, dict[str, float]] = {}
        self.crashes: dict[str, dict[str, Crashes]] = {}
        self.looked: set[str] = set()
        self.refused: dict[str, ShoalError] = {}  # what makes no sense, and was not told so
        self.unplanned = 0
        self.released: set[str] = set()
        self.in_force = InForce(location.system)
        self._there: set[str] | None = None
        self._due: set[str] = set()
        self._lively: set[str] = set()  # what may move on by itself, or waits for others
        self._read: dict[str, tuple[str, Spec, Status | None]] = {}
        self._said: dict[str, tuple[str, HeadReport | None]] = {}
        self._owners: dict[str, tuple[str, float]] = {}
        self._full_at, self._rest = -1e9, 0.0

    def look(self, in_force: InForce, now: float) -> None:
        """At what changed, and what is not at rest."""
        self._due |= self._watched.changed()
        there = self._watched.clusters.items()
        self._watched.pods.items()  # they raise where nothing is known now
        self._watched.reports.items()
        full = in_force is not self.in_force or time.monotonic() - self._full_at >= self._rest
        began = time.thread_time()
        self.in_force = in_force
        for uid in self.found.keys() - there.keys():
            self._forget(uid)
        for uid in self.pods.keys() - there.keys() - self._watched.pods.owners():
            del self.pods[uid]
        self.looked = {uid for uid in there if full or uid in self._due or uid in self._lively}
        self.unplanned, self.refused, self._there = 0, {}, None
        for uid in self._watched.pods.owners() - there.keys():
            self.pods[uid] = self._watched.pods.owned(uid)
        for uid in self.looked:
            self.found[uid] = there[uid]
            self._look_at(uid, there[uid], in_force, now)
        self._due = set(self.looked)  # until the round has done what follows: it may fail before
        if full:
            self._full_at = time.monotonic()
            self._rest = max(float(KUBERNETES.look), (time.thread_time() - began) / _SHARE)

    def _forget(self, uid: str) -> None:
        told: tuple[dict[str, Any], ...] = (self.found, self.pods, self.reports, self.records, self.sights)
        for each in (*told, self.wishes, self.lost, self.crashes, self._read, self._said):
            each.pop(uid, None)
        self._lively.discard(uid)
        self.released.discard(uid)

    def _look_at(self, uid: str, found: Object, in_force: InForce, now: float) -> None:
        where = found["metadata"]["namespace"]
        pods = [pod for pod in self._watched.pods.owned(uid) if pod["metadata"]["namespace"] == where]
        report = self._report(uid)
        told: tuple[dict[str, Any], ...] = (self.records, self.sights, self.wishes, self.pods, self.reports)
        for its in told:
            its.pop(uid, None)
        if pods:
            self.pods[uid] = pods
        if report is not None:
            self.reports[uid] = report
        self.lost[uid] = lost_since([pods], self.lost.get(uid, {}), time.monotonic())
        self._lively.add(uid)
        if not found.get("status"):
            self.owner(where)  # where this is not told now, the request is not at fault
        try:
            spec, status = self.said(found)
            cluster = self._record(found, spec, status, in_force)
        except NotAppliedError:  # it is answered once there is one
            self.unplanned += 1
            return
        except ShoalError as error:  # one that cannot be read does not stop the others
            self.refused[uid] = error
            self.sights[uid] = Sight(remains=True)  # it may run, and keeps what it holds
            if found.get("status"):
                self._lively.discard(uid)
            return
        refusals = self._refusals.of(uid)
        if not cluster.state.ended:
            seen = sight(cluster, pods, report, KUBERNETES.pull, now, refusals)
            if cluster.plan.via is Via.OPERATOR and report is not None and uid not in self.released:
                seen = replace(seen, remains=True)  # the operator may make pods of what it was asked for
            self.sights[uid] = seen
            known = self.crashes.get(uid, {})
            self.crashes[uid] = crashes(cluster.plan, pods, known, time.monotonic())
        elif pods:
            self.sights[uid] = Sight(remains=True)
        counts = surplus(cluster.plan, pods)
        more = sum(max(0, many) for many in counts.values())
        cluster = self.records[uid] = seen_in(cluster, pods, more, report)
        wishes = self.wishes[uid] = wishes_for(found, spec, cluster, report)
        served = wishes.stop is None and _served(wishes, cluster) and not any(counts.values())
        rests = cluster.state is State.READY and served and _well(self.sights[uid])
        if (rests and not refusals) or (cluster.state.ended and not pods and report is None):
            self._lively.discard(uid)

    def _report(self, uid: str) -> HeadReport | None:
        found = next(iter(self._watched.reports.owned(uid)), None)
        if found is None:
            return None
        version = found["metadata"]["resourceVersion"]
        if (known := self._said.get(uid)) is None or known[0] != version:
            try:
                said: HeadReport | None = read(HeadReport, found.get("said", {}))
            except InfrastructureError as error:
                _log.warning("the report of %s is left out: %s", found["metadata"]["name"], error)
                said = None
            known = self._said[uid] = version, said
        return known[1]

    def said(self, found: Object) -> tuple[Spec, Status | None]:
        """What is asked for, and what is said of it, read once per version; InfrastructureError."""
        uid, version = found["metadata"]["uid"], found["metadata"]["resourceVersion"]
        if (known := self._read.get(uid)) is None or known[0] != version:
            known = self._read[uid] = version, spec_of(found), status_of(found)
        return known[1], known[2]

    def _record(self, found: Object, spec: Spec, status: Status | None, in_force: InForce) -> Cluster:
        uid = found["metadata"]["uid"]
        if status is not None:
            return cluster_of(found, status, spec, status.plan or unplanned(spec), uid)
        workload = spec.workload
        template, target = in_force.meant(workload.template, spec.applied, spec.template)
        owner = self.owner(found["metadata"]["namespace"])
        limits = in_force.policy.limits_of(owner)
        plan = size(workload, template, limits, target, runner=spec.run is not None)
        request = Request(found["metadata"]["name"], owner, workload, plan, spec.tags, run=spec.run)
        fresh = requested(request, uid, limits.team, created(found), spec.project)
        return replace(fresh, head={"namespace": found["metadata"]["namespace"]})

    def owner(self, namespace: str) -> str:
        """Whose a namespace is."""
        known = self._owners.get(namespace)
        if known is None or time.monotonic() - known[1] > _OWNERS:
            known = self._owners[namespace] = user_of(self._api, namespace), time.monotonic()
        return known[0]

    def acted(self) -> None:
        """All that followed from this look was tried."""
        self._due = set()

    def quiet(self) -> set[str]:
        """Of whom nothing changed."""
        return self.records.keys() - self.looked

    def wrote(self, uid: str, new: Object, cluster: Cluster) -> None:
        """This round itself did."""
        self.found[uid], self.records[uid] = new, cluster

    # -- read live ----------------------------------------------------------------------------------------

    def confirm(self, uid: str) -> None:
        """The record first, its pods then: see ``governor.cautious``.

        Raises:
            StaleRecordError: they are not as this look has them.
        """
        found = self.found.get(uid)
        if found is None:
            self._confirm_nothing(uid)
            return
        self.confirm_record(found)
        namespace, name = found["metadata"]["namespace"], found["metadata"]["name"]
        if self._live_pods(uid, namespace) != _versions(self.pods.get(uid, ())):
            raise StaleRecordError(f"cluster {name} of namespace {namespace} has other pods: look again")

    def confirm_record(self, found: Object) -> None:
        """The record alone, of one whose pods were confirmed a moment ago.

        Raises:
            StaleRecordError: it is not as here.
        """
        metadata = found["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        try:
            live = self._api.get(CLUSTER.path(namespace, name))["metadata"]
        except NotFoundError:
            live = {}
        if any(live.get(each) != metadata[each] for each in ("uid", "resourceVersion")):
            raise StaleRecordError(f"cluster {name} of namespace {namespace} is not as it was: look again")

    def forget_there(self) -> None:
        """What is looked for from now on is looked for again, whatever this round has read before."""
        self._there = None

    def confirm_gone(self, uid: str) -> None:
        """StaleRecordError where there is a record of it, whatever pods it has."""
        if self._there is None:  # once in a round: later than the accounts that it goes by is late enough
            pages = (page for where in self._where for page, _ in self._api.pages(CLUSTER.path(where)))
            self._there = {each["metadata"]["uid"] for page in pages for each in page}
        if uid in self._there:
            raise StaleRecordError(f"cluster {uid} is there")

    def _confirm_nothing(self, uid: str) -> None:
        self.confirm_gone(uid)
        if any(self._live_pods(uid, namespace) for namespace in self._where):
            raise StaleRecordError(f"cluster {uid} has pods")

    def _live_pods(self, uid: str, namespace: str | None) -> Mapping[str, str]:
        found, _ = self._api.list(POD.path(namespace), labelSelector=f"{OF_CLUSTER}={uid}")
        its = [pod for pod in found if cluster_of_pod(pod) == uid]
        return _versions(its)


def _versions(pods: Collection[Object]) -> dict[str, str]:
    return {pod["metadata"]["uid"]: pod["metadata"]["resourceVersion"] for pod in pods}


def _well(sight: Sight) -> bool:
    """Whether a Ready cluster's head, and its script if it has one, do what they are to do."""
    told = sight.pulse is not None and sight.pulse.said is not None
    return sight.head is Seen.ALIVE and sight.exit is None and sight.script is not Seen.NEVER and not told


def _served(wishes: UserWishes, cluster: Cluster) -> bool:
    """Whether it has what people, and its head, asked for."""
    target, group = wishes.next(cluster.plan)
    return target is None or target == cluster.plan.group(group).count
