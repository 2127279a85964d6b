"""A cluster's objects beside its record: its pass, its name, its report and its pods are made and ended here.

Why it exists: what the governor decides is done in one place, in the order that is safe: nothing is made that has a
namesake of another cluster, nothing is deleted but by the uid that was seen.

What it must not do: decide, or write records and accounts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from shoal.errors import NotFoundError, ShoalError, StaleRecordError
from shoal.homes.kubernetes import names
from shoal.homes.kubernetes.containers import over, role
from shoal.homes.kubernetes.crashing import paused
from shoal.homes.kubernetes.dressing import dressed
from shoal.homes.kubernetes.errors import ObjectRefusedError
from shoal.homes.kubernetes.names import POD, REPORT, SERVICE, Object
from shoal.homes.kubernetes.objects import LINES, last_lines, report_object, spec_of
from shoal.homes.kubernetes.operating import Operated
from shoal.homes.kubernetes.passes import give_pass, take_pass
from shoal.homes.kubernetes.pods import head_pod, runner_pod, service, worker_pod
from shoal.homes.kubernetes.quotas import Quotas
from shoal.homes.kubernetes.refusals import END, Refusals, refuse_foreign
from shoal.homes.kubernetes.sight import goes_within, going, started_again
from shoal.homes.kubernetes.tending import Slot, tend
from shoal.homes.kubernetes.view import View
from shoal.homes.kubernetes.watched import Watched
from shoal.model.cluster import Cluster
from shoal.model.workload import Via

if TYPE_CHECKING:
    from shoal.homes.kubernetes.api import Api

_log = logging.getLogger("shoal.homes")
_SCRIPT = 10  # s that a script gets to end, where its cluster ends before it
_AT_ONCE = 8  # pods that are made beside each other, and of one cluster, before others have their turn


class ClusterParts:
    """Does what is to be done for clusters as ``view`` has them. ``logs``: last lines of pods, by cluster and role."""

    def __init__(self, api: Api, watched: Watched, view: View, quotas: Quotas, refusals: Refusals) -> None:
        self._api, self._watched, self._view = api, watched, view
        self._quotas, self._refusals = quotas, refusals
        self._operated = Operated(api, view, quotas)
        self.logs: dict[tuple[str, str], tuple[str, ...]] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, "makes pods")
        # Clusters whose name and pass are gone, as far as this has seen to it; and their reports when that was last so.
        self._nameless: set[str] = set()
        self._cleared: dict[str, set[str]] = {}

    def keep(self, uids: Collection[str]) -> None:
        """Forget all other clusters."""
        self.logs = {key: log for key, log in self.logs.items() if key[0] in uids}
        self._nameless &= set(uids)
        self._cleared = {uid: reports for uid, reports in self._cleared.items() if uid in uids}

    def start_head(self, cluster_id: str) -> None:
        """Its pass, its name, its report and its pod, and its workers' pods; what is there already stays."""
        found, cluster = self._view.found[cluster_id], self._view.records[cluster_id]
        namespace = found["metadata"]["namespace"]
        self._nameless.discard(cluster_id)
        with self._refusals.trying(cluster_id, names.HEAD, namespace):
            head = self._dressed(head_pod(cluster, found), found, cluster)
            give_pass(self._api, namespace, cluster_id)
            for path, item in (
                (REPORT.path(namespace), report_object(found)),
                (SERVICE.path(namespace), service(cluster, found)),
            ):
                self._made(path, item, found)
            if cluster.plan.via is Via.OPERATOR:
                slots = [Slot(0, group.name) for group in cluster.plan.groups]
                workers = [self._dressed(worker_pod(cluster, found, slot), found, cluster) for slot in slots]
                self._operated.start(found, cluster, head, workers)
                return
            self._made(POD.path(namespace), head, found)
        todo = tend(cluster, [*self._view.pods.get(cluster_id, []), head], None)
        if todo.make:
            self._view.confirm_record(found)  # its end may have been written since its head was decided on
            self._make(todo.make, found, cluster)

    def start_script(self, cluster_id: str) -> None:
        """Its pod. That it runs once, whatever happens, is seen to where it gets its code."""
        found, cluster = self._view.found[cluster_id], self._view.records[cluster_id]
        namespace = found["metadata"]["namespace"]
        with self._refusals.trying(cluster_id, names.RUNNER, namespace):
            self._made(POD.path(namespace), self._dressed(runner_pod(cluster, found), found, cluster), found)

    def _dressed(self, pod: Object, found: Object, cluster: Cluster) -> Object:
        """As the place has it; StaleRecordError where its quota does not give yet what was admitted."""
        self._quotas.wait_for(pod["metadata"]["namespace"])
        spec = spec_of(found)
        its = self._view.in_force.around(spec.applied, "" if spec.template else cluster.plan.template)
        return dressed(pod, cluster.plan, its.kubernetes, its.mounts)

    def stop_head(self, cluster_id: str) -> None:
        """It reads in its record that it is to end; one that does not run yet cannot. Its script gets a signal."""
        with self._refusals.trying(cluster_id, END):
            for pod in self._view.pods.get(cluster_id, []):
                if role(pod) == names.RUNNER and not over(pod) and not going(pod):
                    # A pod that is deleted may be gone before it is seen again.
                    self._keep_log(cluster_id, pod)
                    self._end(pod, _SCRIPT)
                if (
                    role(pod) == names.HEAD
                    and not going(pod)
                    and pod.get("status", {}).get("phase") in (None, "Pending")
                ):
                    self._release(cluster_id)
                    self._end(pod, None)

    def kill_head(self, cluster_id: str) -> None:
        """End it at once."""
        with self._refusals.trying(cluster_id, END):
            self._release(cluster_id)
            for pod in self._view.pods.get(cluster_id, []):
                if role(pod) == names.HEAD:
                    self._end(pod, 0)

    def end_remains(self, cluster_id: str) -> None:
        """All its pods, its name, and what lets in to it: each is told once."""
        with self._refusals.trying(cluster_id, END):
            self._release(cluster_id)
            for pod in self._view.pods.get(cluster_id, []):
                grace = _SCRIPT if role(pod) == names.RUNNER else 1  # its script has its time
                if goes_within(pod, grace):
                    continue
                if role(pod) == names.RUNNER or (over(pod) and role(pod) == names.HEAD):
                    self._keep_log(cluster_id, pod)
                self._end(pod, grace)
        if (found := self._view.found.get(cluster_id)) is not None and cluster_id not in self._nameless:
            namespace, name = found["metadata"]["namespace"], found["metadata"]["name"]
            self._api.delete(SERVICE.path(namespace, names.head_of(name)))
            take_pass(self._api, namespace, cluster_id)
            self._nameless.add(cluster_id)

    def reap(self, namespace: str, known: Collection[str]) -> None:
        """What dask-kubernetes' operator was asked for, for clusters whose object somebody deleted."""
        self._view.forget_there()
        self._operated.reap(namespace, known, self._view.confirm_gone)

    def _release(self, cluster_id: str) -> None:
        """What dask-kubernetes' operator has of it goes first: it would make its pods again."""
        found, cluster = self._view.found.get(cluster_id), self._view.records.get(cluster_id)
        if found is not None and cluster is not None and cluster.plan.via is Via.OPERATOR:
            self._operated.release(found, cluster)

    def _keep_log(self, cluster_id: str, pod: Object) -> None:
        metadata = pod["metadata"]
        path = POD.path(metadata["namespace"], metadata["name"], "log")
        try:
            more = {"previous": "true"} if started_again(pod) else {}
            more["container"] = names.CONTAINERS[role(pod)]
            self.logs[cluster_id, role(pod)] = last_lines(self._api.text(path, tailLines=str(LINES), **more))
        except ShoalError as error:
            _log.info("the log of %s is lost: %s", metadata["name"], error)

    def tend(self, found: Object, cluster: Cluster) -> None:
        """Its workers' pods: as many as its plan has, and those go that it has retired."""
        if cluster.plan.via is Via.OPERATOR:
            with self._refusals.trying(cluster.id, names.WORKER, found["metadata"]["namespace"]):
                self._operated.tend(found, cluster)
            return
        now = time.monotonic()
        nowhere = {uid: now - since for uid, since in self._view.lost.get(cluster.id, {}).items()}
        pods = self._view.pods.get(cluster.id, [])
        rests = paused(cluster.plan, self._view.crashes.get(cluster.id, {}), now)
        todo = tend(cluster, pods, self._view.reports.get(cluster.id), nowhere, rests)
        if todo.make or todo.end:
            self._view.confirm(cluster.id)  # a worker too many is over a limit, and one that goes holds data
        namespace = found["metadata"]["namespace"]
        with self._refusals.trying(cluster.id, END):
            for name, uid in todo.end:
                self._api.delete(POD.path(namespace, name), uid, 5)
        if todo.make:
            self._make(todo.make, found, cluster)
        elif pods:
            self._refusals.taken(cluster.id, names.WORKER)

    def _make(self, slots: tuple[Slot, ...], found: Object, cluster: Cluster) -> None:
        """Workers' pods."""
        namespace, longest = found["metadata"]["namespace"], cluster.plan.may_last
        now = self._api.clock.now()
        left = None if longest is None else longest - (now - (cluster.admitted_at or now))

        def make(slot: Slot) -> None:
            pod = self._dressed(worker_pod(cluster, found, slot, left), found, cluster)
            self._made(POD.path(namespace), pod, found)

        with self._refusals.trying(cluster.id, names.WORKER, namespace):
            make(slots[0])  # what is refused is refused once
            for first in range(1, len(slots), _AT_ONCE):
                made = [self._pool.submit(make, slot) for slot in slots[first : first + _AT_ONCE]]
                wait(made)  # none of them goes on when this has failed
                for each in made:
                    each.result()

    def clear(self, found: Object, cluster: Cluster) -> None:
        """What an end may have left where somebody died over it."""
        if cluster.id not in self._view.reports:
            return
        reports = {its["metadata"]["uid"]: its["metadata"] for its in self._watched.reports.owned(cluster.id)}
        news = reports.keys() - self._cleared.get(cluster.id, set())
        held = cluster.plan.via is Via.OPERATOR and cluster.id not in self._view.released
        if held or news or cluster.id in self._view.pods:
            self._view.confirm(cluster.id)  # else they may be another's of its name
            if news:  # also what a start made that came late
                self._nameless.discard(cluster.id)
            self.end_remains(cluster.id)
            self._cleared[cluster.id] = set(reports)
            if cluster.plan.via is Via.OPERATOR and cluster.id not in self._view.released:
                return  # at the next look
        for uid, its in reports.items():
            self._api.delete(REPORT.path(its["namespace"], its["name"]), uid)

    def _made(self, path: str, item: Object, owner: Object) -> None:
        """Create it; one of that name that belongs to this cluster is as good, another one is waited for."""
        try:
            new = self._api.create(path, item)
            if item["kind"] == POD.name:
                self._watched.pods.put(new)
            elif item["kind"] == REPORT.name:
                self._watched.reports.put(new)
        except (StaleRecordError, ObjectRefusedError) as error:
            # A quota or a policy answers before the name does: another governor may have made it a moment ago.
            try:
                there = self._api.get(f"{path}/{item['metadata']['name']}")
            except NotFoundError:
                raise error from None
            owners = [each.get("uid") for each in there["metadata"].get("ownerReferences", ())]
            if owner["metadata"]["uid"] not in owners:
                if isinstance(error, StaleRecordError):
                    refuse_foreign(there, item["kind"])
                raise

    def _end(self, pod: Object, grace: int | None) -> None:
        metadata = pod["metadata"]
        path = POD.path(metadata["namespace"], metadata["name"])
        now = self._api.delete(path, metadata["uid"], grace)
        if now is not None and now.get("kind") == POD.name and going(now):
            self._watched.pods.put(now)  # it is not told again
