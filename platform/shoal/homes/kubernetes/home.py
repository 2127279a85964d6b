"""Home ``kubernetes`` as handles and commands see it: a cluster is an object, and whoever asks writes a wish into it.

Why it exists: what a person's process does. It makes, reads and wishes; the governor decides and does.

What it must not do: govern.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

from shoal.errors import (
    InfrastructureError,
    NotFoundError,
    QuotaExceededError,
    RefusedError,
    ShoalError,
    StaleRecordError,
)
from shoal.governor.actions import Scope
from shoal.governor.answers import grown, why_not, would
from shoal.governor.ports import AccountKey, Snapshot
from shoal.homes.base import Request, Wrote, at_least_one, requested
from shoal.homes.kubernetes import accounts, connecting, history, in_force, logs, tunnel
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.applied import applied_name
from shoal.homes.kubernetes.attending import attend
from shoal.homes.kubernetes.errors import ObjectRefusedError, RightsError
from shoal.homes.kubernetes.location import Location, user_of
from shoal.homes.kubernetes.names import (
    ASKED_AS,
    CLUSTER,
    OF_CLUSTER,
    POD,
    Object,
)
from shoal.homes.kubernetes.objects import (
    EndWish,
    Spec,
    Status,
    asked,
    cluster_of,
    created,
    spec_of,
    status_of,
    unplanned,
)
from shoal.homes.kubernetes.periods import KUBERNETES
from shoal.homes.kubernetes.refusals import by_limit
from shoal.homes.kubernetes.structure import written
from shoal.homes.same import same_or_refused
from shoal.model.checks import Check
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.endpoint import Endpoint
from shoal.model.homes import HomeKind
from shoal.model.names import LONGEST, checked
from shoal.model.status import Event, HeadStatus
from shoal.project.loading import Project, load
from shoal.project.policy import Policy
from shoal.quota.account import Account
from shoal.quota.admission import Decision, Verdict, lasting
from shoal.units import Seconds
from shoal.words import count

_LOOK = 0.1
_AWAY = "no governor has answered yet"


class KubernetesHome:
    """The clusters of one namespace, which is one user's."""

    name = HomeKind.KUBERNETES.value

    def __init__(self, project: Project) -> None:
        self._project = project
        self._location, self._via = Location.of(project.target), project.target.via
        self._names: dict[str, tuple[str, str, str]] = {}  # id -> namespace, name, uid

    def __reduce__(self) -> tuple[Callable[..., KubernetesHome], tuple[Any, ...]]:
        return _again, (self._project.folder, self._project.target.name)

    @cached_property
    def _api(self) -> Api:
        return Api.of(self._location.context)

    @cached_property
    def _namespace(self) -> str:
        return self._location.own(self._api)

    @cached_property
    def _policy(self) -> Policy:
        return in_force.asked(self._project, self._api).policy

    @cached_property
    def _user(self) -> str:
        return user_of(self._api, self._namespace)

    def user(self) -> str:
        """Whose the namespace is that is asked in."""
        return self._user

    # -- asking ------------------------------------------------------------------------------------------

    def request(self, request: Request) -> Cluster:
        """Make the object, and wait for the governor's answer."""
        checked(request.name)
        found = self._granted(request)
        if isinstance(found, Cluster):
            return found
        begin = time.monotonic()
        while True:
            found = self._api.get(_path(found))
            cluster = self._read(found)
            if cluster.state is State.REFUSED:
                raise self._refusal(cluster)
            if cluster.state is not State.QUEUED:
                return cluster
            answered = cluster.reason not in (Reason.REQUESTED, Reason.GOVERNOR_AWAY)
            if (answered and request.workload.queue) or time.monotonic() - begin > KUBERNETES.decide:
                attend(self._api, found, self._read)
                return cluster
            time.sleep(_LOOK)

    def _granted(self, request: Request) -> Cluster | Object:
        """The live cluster of that name if it is what is asked for, else a new object."""
        times = request.plan.timeouts
        workload = request.workload
        if times.no_client >= times.max and workload.no_client is None:
            workload = replace(workload, no_client=times.no_client)  # asked for with `detach`
        name, folder = applied_name(self._project), str(self._project.folder)
        own = in_force.own(self._project, self._api, workload.template)
        tags, run = dict(request.tags), request.run
        spec = Spec(workload, request.id or "", tags, folder, run=run, applied=name, template=own)
        for _ in range(10):
            if (known := self._object(request.name)) is not None:
                cluster = self._read(known)
                if not cluster.state.ended:
                    return same_or_refused(self._settled(known), request)
                self._api.delete(_path(known), known["metadata"]["uid"])
            try:
                return self._api.create(
                    CLUSTER.path(self._namespace), asked(request.name, self._namespace, spec)
                )
            except StaleRecordError:
                time.sleep(_LOOK)
            except ObjectRefusedError as error:
                raise by_limit(error) from error
        raise InfrastructureError(
            f"the name {request.name!r} is still in use in namespace {self._namespace}",
            hint=f"`kubectl get {CLUSTER.plural} {request.name} -o yaml` shows what holds it.",
        )

    def _settled(self, found: Object) -> Cluster:
        """The record once the governor has planned it, or as it is when that takes too long."""
        begin = time.monotonic()
        while (cluster := self._read(found)).reason is Reason.GOVERNOR_AWAY:
            if time.monotonic() - begin > KUBERNETES.decide:
                break
            time.sleep(_LOOK)
            found = self._api.get(_path(found))
        return cluster

    def _refusal(self, cluster: Cluster) -> ShoalError:
        error: RefusedError = QuotaExceededError(cluster.message)
        with contextlib.suppress(ShoalError):
            error = why_not(self._snapshot(), self._policy, cluster).error()
        error.args, error.message = (cluster.message,), cluster.message
        return error

    def would(self, request: Request) -> Decision:
        """By the accounts that may be read here, and this project's own policy."""
        known = self.find(request.name, request.owner)
        same = self._names[known.id][2] if known is not None and not known.state.ended else ""
        team = self._policy.limits_of(request.owner).team
        fresh = requested(request, same, team, self._api.clock.now(), str(self._project.folder))
        return would(self._snapshot(), self._policy, fresh)

    def held(self, owner: str, *, team: bool = False) -> Account:
        """By the account; RightsError where that may not be read."""
        key = Scope.TEAM if team else Scope.USER, owner
        account = accounts.held_by(self._api, self._location.system, key)
        ids = {uid: cluster_id for cluster_id, (_, _, uid) in self._names.items()}
        if set(account.admitted) - set(ids):
            self.clusters()
            ids = {uid: cluster_id for cluster_id, (_, _, uid) in self._names.items()}
        return replace(account, admitted={ids.get(uid, uid): its for uid, its in account.admitted.items()})

    def _snapshot(self) -> Snapshot:
        team = self._policy.limits_of(self._user).team
        keys: set[AccountKey] = {(Scope.USER, self._user), *({(Scope.TEAM, team)} if team else ())}
        if (machine := self._project.target.machine) is not None:
            keys.add((Scope.PLACE, ""))
        held = accounts.readable(self._api, self._location.system, keys)
        found, _ = self._api.list(CLUSTER.path(self._namespace))
        clusters = {}
        for each in found:
            uid = each["metadata"]["uid"]
            clusters[uid] = replace(self._read(each), id=uid), 0
        ended = [uid for uid, (cluster, _) in clusters.items() if cluster.state.ended]  # about to be freed
        left = {key: (reduce(Account.without, ended, account), 0) for key, account in held.items()}
        return Snapshot(self._api.clock.now(), left, clusters, {}, {}, machine)

    # -- reading -----------------------------------------------------------------------------------------

    def get(self, cluster_id: str) -> Cluster:
        return self._read(self._by_id(cluster_id))

    def find(self, name: str, owner: str) -> Cluster | None:
        if owner == self._user:
            if len(name) > LONGEST:
                return None
            found = self._object(name) or history.newest(self._api, self._namespace, name)
            return None if found is None else self._read(found)
        named = [each for each in self.clusters(owner=owner, ended=True) if each.name == name]
        return named[0] if named else None

    def clusters(self, *, owner: str | None = None, ended: bool = False) -> list[Cluster]:
        """Of all namespaces where that may be seen, else of one's own."""
        found: list[Object] = []
        if owner != self._user:
            with contextlib.suppress(RightsError):
                found = history.every(self._api, None, ended=ended)
        found = found or history.every(self._api, self._namespace, ended=ended)
        every = sorted((self._read(each) for each in found), key=lambda each: each.created, reverse=True)
        return [each for each in every if owner in (None, each.owner) and (ended or not each.state.ended)]

    def history(self, cluster_id: str) -> list[Event]:
        status = status_of(self._by_id(cluster_id))
        return [] if status is None else list(status.history)

    def unresponsive(self, cluster: Cluster) -> str:
        if cluster.reason is Reason.GOVERNOR_AWAY:
            return f"{_AWAY}; `shoal doctor` looks for it"
        return ""

    def remains(self, cluster_id: str) -> bool:
        return bool(self._pods(self._by_id(cluster_id)["metadata"]))

    def logs(self, cluster_id: str, lines: int = 200, wrote: Wrote = Wrote.ANYBODY) -> str:
        found = self._by_id(cluster_id)
        return logs.engine(self._api, found, self._pods(found["metadata"]), lines, wrote)

    def output(self, cluster_id: str, *, follow: bool = False) -> Iterator[str]:
        yield from logs.output(self._api, lambda: self._by_id(cluster_id), follow=follow)

    # -- wishes ------------------------------------------------------------------------------------------

    def stop(self, cluster_id: str, reason: Reason, message: str) -> Cluster:
        found = self._by_id(cluster_id)
        if not self._read(found).state.ended and spec_of(found).stop is None:
            with contextlib.suppress(ObjectRefusedError):  # somebody was quicker
                self._wish(found, {"stop": written(EndWish(reason, message[:500]))})
        return self.get(cluster_id)

    def scale(self, cluster_id: str, workers: int, group: str = "") -> Cluster:
        found = self._by_id(cluster_id)
        cluster = replace(self._read(found), id=found["metadata"]["uid"])
        its = cluster.plan.group(group)
        at_least_one(workers, cluster.plan, group)
        if workers > its.count:
            decision = grown(self._snapshot(), self._policy, cluster, workers, group)
            if decision.verdict is not Verdict.ADMIT:
                raise decision.error()
        first = its is cluster.plan.groups[0]
        self._wish(found, {"replicas": workers} if first else {"groups": {its.name: workers}})
        return self._given(
            cluster_id,
            lambda cluster: cluster.plan.group(group).count == workers,
            f"give {cluster.name} {count(workers, 'worker')}",
            "The wish stands: `shoal why` tells what it waits for, `shoal doctor` looks for a governor.",
        )

    def extend(self, cluster_id: str, longest: Seconds) -> Cluster:
        found = self._by_id(cluster_id)
        cluster = self._read(found)
        limits = self._policy.limits_of(cluster.owner)
        lasting(cluster, longest, limits, self._api.clock.now())
        self._wish(found, {"lifetime": float(longest)})
        return self._given(
            cluster_id,
            lambda cluster: cluster.plan.timeouts.max == longest,
            f"let {cluster.name} live {longest}",
            "The policy that the governor goes by may give less: `shoal why` tells its state.",
        )

    def _given(self, cluster_id: str, done: Callable[[Cluster], bool], what: str, hint: str) -> Cluster:
        """The record once the governor has granted a wish, or the cluster has ended."""
        begin = time.monotonic()
        while not done(cluster := self.get(cluster_id)) and not cluster.state.ended:
            if time.monotonic() - begin > KUBERNETES.decide:
                raise InfrastructureError(
                    f"the governor did not {what} within {KUBERNETES.decide:.0f} s", hint=hint
                )
            time.sleep(_LOOK)
        return cluster

    def attend(self, cluster_id: str) -> None:
        """By a Lease that this process renews."""
        attend(self._api, self._by_id(cluster_id), self._read)

    def note_exit(self, cluster_id: str, code: int) -> None:
        self._wish(self._by_id(cluster_id), {"exitCode": code})

    def _wish(self, found: Object, spec: Object) -> None:
        try:
            self._api.patch(_path(found), {"spec": spec}, fieldValidation="Strict")
        except ObjectRefusedError as error:
            raise by_limit(error) from error

    # -- connecting --------------------------------------------------------------------------------------

    def endpoint(self, cluster_id: str) -> Endpoint:
        return connecting.endpoint(self._api, self._location.context, self._ready(cluster_id))

    def dashboard(self, cluster_id: str, *, lasting: bool = False) -> str:
        found = self._ready(cluster_id)
        return connecting.dashboard(self._api, self._location.context, found, lasting=lasting)

    def _ready(self, cluster_id: str) -> Object:
        found = self._by_id(cluster_id)
        cluster = self._read(found)
        if cluster.state is not State.READY:
            raise InfrastructureError(f"{cluster.name} cannot be connected to: it is {cluster.state}")
        return found

    def status(self, cluster_id: str, timeout: float = 2.0) -> HeadStatus | None:
        try:
            found = self._by_id(cluster_id)
            if self._read(found).state is not State.READY:
                return None
            return connecting.status(self._api, self._location.context, found, timeout)
        except (ShoalError, OSError, ValueError):
            return None

    def proofs(self) -> Iterable[Check]:
        from shoal.homes.kubernetes.proofs import proofs

        return proofs(lambda: self._api, self._location, lambda: self._namespace, self._via)

    # -- objects -----------------------------------------------------------------------------------------

    def _object(self, name: str) -> Object | None:
        try:
            return self._api.get(CLUSTER.path(self._namespace, name))
        except NotFoundError:
            return None

    def _by_id(self, cluster_id: str) -> Object:
        if (known := self._names.get(cluster_id)) is not None:
            with contextlib.suppress(NotFoundError):
                found = self._api.get(CLUSTER.path(known[0], known[1]))
                if found["metadata"]["uid"] == known[2]:
                    return found
            tunnel.close(known[2])  # its object is gone
            if (past := history.of_uid(self._api, known[0], known[2])) is not None:
                return past
        found_, _ = self._api.list(CLUSTER.path(self._namespace), labelSelector=f"{ASKED_AS}={cluster_id}")
        for each in found_ or self._api.list(CLUSTER.path(self._namespace))[0]:
            if cluster_id in (each["metadata"]["uid"], each["spec"].get("id")):
                return each
        if (past := history.of_id(self._api, self._namespace, cluster_id)) is not None:
            return past
        raise NotFoundError(f"there is no cluster {cluster_id!r} in namespace {self._namespace}")

    def _read(self, found: Object) -> Cluster:
        """The record as who asked knows it."""
        metadata, spec, status = found["metadata"], spec_of(found), status_of(found)
        its_id = spec.id or metadata["uid"]
        self._names[its_id] = metadata["namespace"], metadata["name"], metadata["uid"]
        now = created(found)
        if status is None:
            status = Status(State.QUEUED, Reason.GOVERNOR_AWAY, _AWAY, now, owner=self._user)
        if status.state.ended:
            tunnel.close(metadata["uid"])
        return cluster_of(found, status, spec, status.plan or unplanned(spec), its_id)

    def _pods(self, metadata: Object) -> list[Object]:
        selector = f"{OF_CLUSTER}={metadata['uid']}"
        return self._api.list(POD.path(metadata["namespace"]), labelSelector=selector)[0]


def _path(found: Object) -> str:
    return CLUSTER.path(found["metadata"]["namespace"], found["metadata"]["name"])


def _again(folder: Path, target: str) -> KubernetesHome:
    return KubernetesHome(load(folder, target))
