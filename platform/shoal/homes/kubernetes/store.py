"""The API server as the governor's store: a snapshot, and single writes that fail if somebody else wrote.

Why it exists: ``governor.rounds`` decides; this reads and does, in the order that it relies on. Everything is read
again in each round, from the API server itself and not from a watch's cache: what is freed or ended on old news
could be held twice. Watches only say when to look.

What it must not do: decide.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from shoal.errors import InfrastructureError, NotFoundError, ShoalError, StaleRecordError
from shoal.governor.actions import Scope
from shoal.governor.ports import Key, Sight, Snapshot, UserWishes
from shoal.homes.base import Request, requested
from shoal.homes.kubernetes import names
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.attending import Attendances
from shoal.homes.kubernetes.dressing import dressed
from shoal.homes.kubernetes.errors import ObjectRefusedError, RightsError
from shoal.homes.kubernetes.history import History
from shoal.homes.kubernetes.in_force import InForce, NotAppliedError
from shoal.homes.kubernetes.location import Location, namespaces_of_users, user_of
from shoal.homes.kubernetes.names import ACCOUNT, CLUSTER, LEASE, OF_CLUSTER, POD, REPORT, SERVICE
from shoal.homes.kubernetes.objects import (
    LINES,
    HeadReport,
    Object,
    Spec,
    Status,
    account_key,
    account_object,
    account_read,
    cluster_of,
    conditions,
    created,
    last_lines,
    report_object,
    spec_of,
    status_from,
    status_of,
    unplanned,
)
from shoal.homes.kubernetes.passes import give_pass, take_pass, take_stale_passes
from shoal.homes.kubernetes.periods import KUBERNETES
from shoal.homes.kubernetes.pods import head_pod, runner_pod, service, worker_pod
from shoal.homes.kubernetes.quotas import Quotas
from shoal.homes.kubernetes.refusals import END, Refusals, refuse_foreign
from shoal.homes.kubernetes.sight import (
    cluster_of_pod,
    going,
    lost_since,
    over,
    role,
    seen_in,
    sight,
    wishes_for,
)
from shoal.homes.kubernetes.structure import read, written
from shoal.homes.kubernetes.tending import surplus, tend
from shoal.model.cluster import Cluster, Reason, State
from shoal.planning.sizing import plan as size
from shoal.quota.account import Account
from shoal.quota.admission import lasting
from shoal.units import Seconds

_log = logging.getLogger("shoal.homes")
_OWNERS = 60.0  # s for which it is remembered whose a namespace is
_SWEEP = 60.0  # s between two looks for passes to clusters that are gone
_SCRIPT = 10  # s that a script gets to end, where its cluster ends before it
_OURS = {"labelSelector": OF_CLUSTER}


class ObjectStore:
    """What the governor of a place reads and writes. ``in_force``: templates, prices and policy as they are now.

    ``unplanned``: how many requests wait for a project to be applied.
    """

    def __init__(self, api: Api, location: Location) -> None:
        self._api, self._location = api, location
        self.in_force = InForce(location.system)
        self.unplanned, self._swept = 0, 0.0
        self._found: dict[str, Object] = {}
        self._pods: dict[str, list[Object]] = {}
        self._reports: dict[str, HeadReport] = {}
        self._records: dict[str, Cluster] = {}
        self._owners: dict[str, tuple[str, float]] = {}
        self._accounts: dict[Key, Object] = {}
        self._lost: dict[str, float] = {}
        self._logs: dict[tuple[str, str], tuple[str, ...]] = {}  # by cluster and role
        self._refusals, self._quotas = Refusals(), Quotas(api, location.system)
        self._where, self._system = location.namespaces or (None,), location.system
        self._history, self._attendances = History(api, location), Attendances()

    # -- what is decided on -----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Accounts first, records after them, pods and reports last: see ``governor.ports.Snapshot``."""
        now = time.time()
        quotas = self._quotas.look(self._where, self.in_force.owner, self.in_force.beside)
        accounts, _ = self._api.list(ACCOUNT.path(self._system))
        self._accounts = {account_key(found): found for found in accounts}
        self._logs = {key: log for key, log in self._logs.items() if key[0] in self._found}
        self._found = {found["metadata"]["uid"]: found for found in self._all(CLUSTER.path)}
        self._refusals.keep(self._found)
        self._pods = {}
        for pod in self._all(POD.path, **_OURS):
            uid = cluster_of_pod(pod)
            where = self._found.get(uid or "", pod)["metadata"]["namespace"]
            if uid is not None and where == pod["metadata"]["namespace"]:
                self._pods.setdefault(uid, []).append(pod)
        self._reports = {}
        for found in self._all(REPORT.path):
            owner = found["metadata"].get("ownerReferences", [{}])[0].get("uid", "")
            try:
                self._reports[owner] = read(HeadReport, found.get("said", {}))
            except InfrastructureError as error:
                _log.warning("the report of %s is left out: %s", found["metadata"]["name"], error)
        self._records, self.unplanned = {}, 0
        clusters: dict[str, tuple[Cluster, int]] = {}
        sights: dict[str, Sight] = {uid: Sight(remains=True) for uid in self._pods if uid not in self._found}
        wishes: dict[str, UserWishes] = {}
        waiting: dict[str, str] = {}
        for uid, found in self._found.items():
            try:
                spec, status = spec_of(found), status_of(found)
                cluster = self._record(found, spec, status)
            except NotAppliedError:  # it is answered once there is one
                self.unplanned += 1
                continue
            except ShoalError as error:  # one that cannot be read does not stop the others
                self._refuse(found, error)
                sights[uid] = Sight(remains=True)  # it may run, and keeps what it holds
                continue
            pods, report = self._pods.get(uid, []), self._reports.get(uid)
            if not cluster.state.ended:
                sights[uid] = sight(cluster, pods, report, KUBERNETES.pull, now, self._refusals.of(uid))
                if cluster.state is State.QUEUED:
                    waiting[uid] = found["metadata"]["namespace"]
            elif pods:
                sights[uid] = Sight(remains=True)
            more = sum(max(0, many) for many in surplus(cluster.plan, pods).values())
            cluster = self._records[uid] = seen_in(cluster, pods, more, report)
            clusters[uid] = cluster, _version(found)
            wishes[uid] = wishes_for(found, spec, cluster, report)
        for uid, pulse in self._attendances.pulses(waiting, partial(self._all, LEASE.path, **_OURS)).items():
            sights[uid] = replace(sights[uid], pulse=pulse)
        self._lost = lost_since(self._pods.values(), self._lost, time.monotonic())
        read_accounts = {key: (account_read(found), _version(found)) for key, found in self._accounts.items()}
        bounded = self._quotas.bounding(self._found.values())
        return Snapshot(now, quotas | read_accounts, clusters, sights, wishes, self.in_force.machine, bounded)

    def _all(self, path: Callable[[str | None], str], **params: str) -> Iterable[Object]:
        for namespace in self._where:
            yield from self._api.list(path(namespace), **params)[0]

    def _record(self, found: Object, spec: Spec, status: Status | None) -> Cluster:
        uid = found["metadata"]["uid"]
        if status is not None:
            return cluster_of(found, status, spec, status.plan or unplanned(spec), uid)
        workload = spec.workload
        template, target = self.in_force.meant(workload.template, spec.applied, spec.template)
        owner = self._owner(found["metadata"]["namespace"])
        limits = self.in_force.policy.limits_of(owner)
        plan = size(workload, template, limits, target, runner=spec.run is not None)
        request = Request(found["metadata"]["name"], owner, workload, plan, spec.tags, run=spec.run)
        fresh = requested(request, uid, limits.team, created(found), spec.project)
        return replace(fresh, head={"namespace": found["metadata"]["namespace"]})

    def _owner(self, namespace: str) -> str:
        known = self._owners.get(namespace)
        if known is None or time.monotonic() - known[1] > _OWNERS:
            known = self._owners[namespace] = user_of(self._api, namespace), time.monotonic()
        return known[0]

    def _refuse(self, found: Object, error: ShoalError) -> None:
        """One that asks for what makes no sense is told so, in its status."""
        if found.get("status"):
            _log.error("%s is left as it is: %s", found["metadata"]["name"], error)
            return
        now = time.time()
        owner = self._owner(found["metadata"]["namespace"])
        status = Status(State.REFUSED, Reason.OVER_LIMIT, error.message[:1000], now, owner, ended_at=now)
        try:
            self._api.replace(_path(found, "status"), found | {"status": written(status)})
        except ShoalError as again:
            _log.debug("refused in the next round: %s", again)

    # -- the writes -------------------------------------------------------------------------------------

    def write_account(self, key: Key, account: Account, version: int) -> int:
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
        self._accounts[key] = self._api.replace(
            ACCOUNT.path(self._system, found["metadata"]["name"], "status"), body
        )
        return _version(self._accounts[key])

    def write_cluster(self, cluster: Cluster, version: int) -> int:
        """Replace its status if the object still has this version."""
        found = self._found[cluster.id]
        before = status_of(found) if found.get("status") else None
        log, output = (self._logs.get((cluster.id, role), ()) for role in (names.HEAD, names.RUNNER))
        said = status_from(cluster, before, log, output)
        if cluster.state.ended and cluster.admitted_at is not None:
            self._history.end(found, said)  # whoever reads of the end may delete the object
        status = written(said) | {"conditions": conditions(cluster)}
        metadata = found["metadata"] | {"resourceVersion": str(version)}
        try:
            new = self._api.replace(_path(found, "status"), found | {"metadata": metadata, "status": status})
        except (NotFoundError, RightsError) as error:  # it was deleted, or its namespace's Role was
            raise StaleRecordError(error.message) from error
        self._found[cluster.id], self._records[cluster.id] = new, cluster
        return _version(new)

    def start_head(self, cluster_id: str) -> None:
        """Its pass, its name, its report and its pod; what is there already stays."""
        found, cluster = self._found[cluster_id], self._records[cluster_id]
        namespace = found["metadata"]["namespace"]
        with self._refusals.trying(cluster_id, names.HEAD, namespace):
            give_pass(self._api, namespace, cluster_id)
            for path, item in (
                (REPORT.path(namespace), report_object(found)),
                (SERVICE.path(namespace), service(cluster, found)),
                (POD.path(namespace), self._dressed(head_pod(cluster, found), cluster)),
            ):
                self._made(path, item, found)

    def start_script(self, cluster_id: str) -> None:
        """Its pod. That it runs once, whatever happens, is seen to where it gets its code."""
        found, cluster = self._found[cluster_id], self._records[cluster_id]
        namespace = found["metadata"]["namespace"]
        with self._refusals.trying(cluster_id, names.RUNNER, namespace):
            self._made(POD.path(namespace), self._dressed(runner_pod(cluster, found), cluster), found)

    def _dressed(self, pod: Object, cluster: Cluster) -> Object:
        """As the place has it; StaleRecordError where its quota does not give yet what was admitted."""
        self._quotas.wait_for(pod["metadata"]["namespace"])
        spec = spec_of(self._found[cluster.id])
        its = self.in_force.around(spec.applied, "" if spec.template else cluster.plan.template)
        return dressed(pod, cluster.plan, its.kubernetes, its.mounts)

    def stop_head(self, cluster_id: str) -> None:
        """It reads in its record that it is to end; one that does not run yet cannot. Its script gets a signal."""
        with self._refusals.trying(cluster_id, END):
            for pod in self._pods.get(cluster_id, []):
                if role(pod) == names.RUNNER and not over(pod) and not going(pod):
                    # A pod that is deleted may be gone before it is seen again.
                    self._keep_log(cluster_id, pod)
                    self._end(pod, _SCRIPT)
                if role(pod) == names.HEAD and pod.get("status", {}).get("phase") in (None, "Pending"):
                    self._end(pod, None)

    def kill_head(self, cluster_id: str) -> None:
        """End it at once."""
        with self._refusals.trying(cluster_id, END):
            for pod in self._pods.get(cluster_id, []):
                if role(pod) == names.HEAD:
                    self._end(pod, 0)

    def end_remains(self, cluster_id: str) -> None:
        """All its pods, its name, and what lets in to it."""
        with self._refusals.trying(cluster_id, END):
            for pod in self._pods.get(cluster_id, []):
                if role(pod) == names.RUNNER or (over(pod) and role(pod) == names.HEAD):
                    self._keep_log(cluster_id, pod)
                if role(pod) != names.RUNNER or not going(pod):  # its script has its time
                    self._end(pod, _SCRIPT if role(pod) == names.RUNNER else 1)
        if (found := self._found.get(cluster_id)) is not None:
            namespace, name = found["metadata"]["namespace"], found["metadata"]["name"]
            self._api.delete(SERVICE.path(namespace, names.head_of(name)))
            take_pass(self._api, namespace, cluster_id)

    def _keep_log(self, cluster_id: str, pod: Object) -> None:
        metadata = pod["metadata"]
        path = POD.path(metadata["namespace"], metadata["name"], "log")
        try:
            self._logs[cluster_id, role(pod)] = last_lines(self._api.text(path, tailLines=str(LINES)))
        except ShoalError as error:
            _log.info("the log of %s is lost: %s", metadata["name"], error)

    # -- what goes on beside a cluster's life -----------------------------------------------------------

    def tidy(self) -> bool:
        """After a round: workers' pods, news of use, other lifetimes, and what is left of what ended.

        Whether anything was refused that the next round has to tell.
        """
        self._history.look(self._found)
        for uid, found in list(self._found.items()):
            if (cluster := self._records.get(uid)) is None:
                continue
            try:
                self._history.remember(found, remains=uid in self._pods)
                if cluster.state.ended:
                    self._clear(found, cluster)
                else:
                    self._live_longer(found, cluster)
                    self._note(found, self._records[uid])
                    self._tend(found, self._records[uid])
            except (StaleRecordError, NotFoundError, ObjectRefusedError) as error:
                _log.debug("%s in the next round: %s", cluster.name, error)
            except ShoalError as error:
                _log.warning("%s is looked at again: %s", cluster.name, error)
        self._quotas.repair()
        self._sweep()
        return self._refusals.news()

    @property
    def soon(self) -> bool:
        """Whether to look again in a moment, though nothing may tell of it."""
        return self._quotas.pending or self._refusals.young

    def _sweep(self) -> None:
        """Now and then: passes to clusters whose object somebody deleted; and users' namespaces that are new."""
        if time.monotonic() - self._swept < _SWEEP:
            return
        self._swept = time.monotonic()
        where = self._location.namespaces or {its["metadata"]["namespace"] for its in self._found.values()}
        take_stale_passes(self._api, where, {*self._found, *self._pods})
        self._quotas.repair(self._location.namespaces or namespaces_of_users(self._api, self._system))

    def _tend(self, found: Object, cluster: Cluster) -> None:
        pods = self._pods.get(cluster.id, [])
        nowhere = {uid: time.monotonic() - since for uid, since in self._lost.items()}
        todo = tend(cluster, pods, self._reports.get(cluster.id), nowhere)
        namespace = found["metadata"]["namespace"]
        with self._refusals.trying(cluster.id, END):
            for name, uid in todo.end:
                self._api.delete(POD.path(namespace, name), uid, 5)
        longest = cluster.plan.may_last
        left = None if longest is None else longest - (time.time() - (cluster.admitted_at or time.time()))
        if not todo.make:
            self._refusals.taken(cluster.id, names.WORKER)
        for slot in todo.make:
            with self._refusals.trying(cluster.id, names.WORKER, namespace):
                pod = self._dressed(worker_pod(cluster, found, slot, left), cluster)
                self._made(POD.path(namespace), pod, found)

    def _note(self, found: Object, cluster: Cluster) -> None:
        """Write what its head says of it, on change of the workers' number, else now and then."""
        before = status_of(found)
        if before is None or cluster.state not in (State.ADMITTED, State.STARTING, State.READY):
            return
        news = before.workers != cluster.workers or before.runner != cluster.head.get(names.RUNNER, "")
        seen = before.usage.seen if before.usage is not None else 0.0
        if news or cluster.usage.seen - seen > KUBERNETES.report:
            self.write_cluster(cluster, _version(self._found[cluster.id]))

    def _live_longer(self, found: Object, cluster: Cluster) -> None:
        """Another maximum lifetime, if the policy gives it."""
        asked = spec_of(found).lifetime
        if asked is None or cluster.state is State.QUEUED or asked == cluster.plan.timeouts.max:
            return
        limits = self.in_force.policy.limits_of(cluster.owner)
        try:
            plan = lasting(cluster, Seconds(asked), limits, time.time())
        except ShoalError as error:
            _log.info("the lifetime of %s was not extended: %s", cluster.name, error)
            return
        self.write_cluster(replace(cluster, plan=plan), _version(self._found[cluster.id]))

    def _clear(self, found: Object, cluster: Cluster) -> None:
        """What an end may have left where somebody died over it."""
        if cluster.id in self._reports:
            self.end_remains(cluster.id)
            self._api.delete(REPORT.path(found["metadata"]["namespace"], found["metadata"]["name"]))

    def _made(self, path: str, item: Object, owner: Object) -> None:
        """Create it; one of that name that belongs to this cluster is as good, another one is waited for."""
        try:
            self._api.create(path, item)
        except StaleRecordError:
            there = self._api.get(f"{path}/{item['metadata']['name']}")
            owners = [each.get("uid") for each in there["metadata"].get("ownerReferences", ())]
            if owner["metadata"]["uid"] not in owners:
                refuse_foreign(there, item["kind"])
                raise

    def _end(self, pod: Object, grace: int | None) -> None:
        metadata = pod["metadata"]
        self._api.delete(POD.path(metadata["namespace"], metadata["name"]), metadata["uid"], grace)


def _version(found: Object) -> int:
    return int(found["metadata"]["resourceVersion"])


def _path(found: Object, sub: str = "") -> str:
    return CLUSTER.path(found["metadata"]["namespace"], found["metadata"]["name"], sub)
