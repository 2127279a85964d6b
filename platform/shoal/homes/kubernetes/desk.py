"""The desk of a head in a pod: it reads its own record, and writes its report. It may nothing else.

Why it exists: user code runs in a head, so what governs is the governor's to write; see ``homes.base.Desk``. Reports
go out from a thread of their own, so that an API server that is away never holds up the cluster itself.

What it must not do: wait for the API server while the cluster serves.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from shoal.errors import ClusterEndedError, DeadlineError, InfrastructureError, NotFoundError, ShoalError
from shoal.governor.ends import serving
from shoal.homes.base import Wishes
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.errors import ApiClosedError
from shoal.homes.kubernetes.names import CLUSTER, DASHBOARD_PORT, ENGINE_PORT, REPORT, STATUS_PORT
from shoal.homes.kubernetes.objects import EndWish, HeadReport, cluster_of, spec_of, status_of
from shoal.homes.kubernetes.periods import KUBERNETES
from shoal.homes.kubernetes.structure import read, written
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.endpoint import Endpoint
from shoal.model.report import Usage
from shoal.model.stand import Stand

_log = logging.getLogger("shoal.homes")
_WATCH = 240  # s of one watch
_FIRST = 60.0  # s that the first look and report get: an API server may just be restarting
_LAST = 10.0  # s that the last report gets


class KubernetesDesk:
    """For the head of one cluster, in its pod. ``api``, ``namespace`` and ``name`` default to the pod's own."""

    periods = KUBERNETES

    def __init__(
        self, cluster_id: str, api: Api | None = None, namespace: str | None = None, name: str | None = None
    ) -> None:
        self.id = cluster_id
        self.cluster: Cluster
        self._api = api or Api.of()
        self._namespace = namespace or os.environ["SHOAL_NAMESPACE"]
        self._name = name or os.environ["SHOAL_CLUSTER_NAME"]
        self._path = CLUSTER.path(self._namespace, self._name)
        self._report = HeadReport()
        self._sent: HeadReport | None = None
        self._sent_at = 0.0
        self._news = threading.Condition()
        self._wishes = Wishes()
        self._over = False

    @property
    def folder(self) -> Path:
        folder = Path(os.environ["SHOAL_SCRATCH"]) / "head"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @cached_property
    def token(self) -> str:
        return (Path(os.environ["SHOAL_CERTIFICATE"]) / "token").read_text()

    @cached_property
    def stand(self) -> Stand:
        folder = Path(os.environ["SHOAL_CERTIFICATE"])
        certificate = (folder / "tls.crt").read_text(), (folder / "tls.key").read_text()
        return Stand("0.0.0.0", ENGINE_PORT, DASHBOARD_PORT, STATUS_PORT, certificate, own_workers=False)  # noqa: S104 - a pod's own network

    def wait(self) -> bool:
        return True  # its pod is made when it is admitted

    def prepare(self) -> None:
        pass

    def born(self, status_url: str) -> Cluster:
        if (failed := _tried(self._look_before, _FIRST)) is not None:
            raise failed
        if self._report.beat:
            # What a scheduler knew is lost with it: one that Kubernetes starts again would serve nobody.
            lost = EndWish(
                Reason.HEAD_LOST, "its head was started again, and what its scheduler knew is lost"
            )
            self._report = replace(self._report, stop=self._report.stop or lost)
            _tried(self._send, _LAST)
            raise ClusterEndedError(f"cluster {self._name} had a head before this one")
        self._say(state=State.STARTING.value, reason=Reason.HEAD_STARTING.value, message="its head lives")
        if (failed := _tried(self._send, _FIRST)) is not None:
            raise failed
        threading.Thread(target=self._keep_reading, name="desk: reads", daemon=True).start()
        threading.Thread(target=self._keep_sending, name="desk: reports", daemon=True).start()
        return self.cluster

    def _look_before(self) -> None:
        if not self._take(self._api.get(self._path)):
            raise NotFoundError(f"the record of {self._name} is another cluster's: its own was deleted")
        found = self._api.get(REPORT.path(self._namespace, self._name))
        self._report = read(HeadReport, found.get("said", {}))

    def let_in(self) -> None:
        pass  # the Secret is its user's to read from the start

    def say(self, reason: Reason, message: str, state: State = State.STARTING) -> None:
        _log.info("%s", message)
        self._say(state=state.value, reason=reason.value, message=message[:500])
        if self.cluster.state.ended:
            raise DeadlineError("its record says that it ended")

    def serves(self, endpoint: Endpoint) -> None:
        pass  # who may connect knows its name, and has its certificate from the Secret

    def ready(self, workers: int) -> Wishes:
        wishes = self.wishes()
        if wishes.stop is None:
            state, reason, said = serving(workers)
            self._say(state=state.value, reason=reason.value, message=said, workers=workers)
        return wishes

    def report(self, workers: int, usage: Usage) -> Wishes:
        self._say(workers=workers, usage=replace(usage, samples=()))
        return self.wishes()

    def retired(self, names: frozenset[str]) -> None:
        self._say(retired=tuple(sorted(names)))

    def wishes(self) -> Wishes:
        with self._news:
            return self._wishes

    def look(self) -> Cluster:
        self._take(self._api.get(self._path))
        return self.cluster

    def resize(self, workers: int, group: str = "") -> None:
        if self.cluster.plan.group(group) is self.cluster.plan.groups[0]:  # of others a person says how many
            self._say(wants=workers)

    def ending(self, reason: Reason, message: str) -> None:
        self._say(stop=EndWish(reason, message[:500]))

    def ended(self, reason: Reason, message: str, usage: Usage) -> bool:
        self._say(workers=0, usage=replace(usage, samples=()), stop=EndWish(reason, message[:500]))
        self._over = True
        failed = _tried(self._send, _LAST)
        if failed is None or isinstance(failed, NotFoundError):
            return True  # where its record is gone, so is whoever would want to know
        _log.error("its end could not be reported: %s", failed)
        return False

    def _say(self, **said: Any) -> None:
        with self._news:
            self._report = replace(self._report, **said)
            self._news.notify_all()

    def _send(self) -> None:
        with self._news:
            report = replace(self._report, beat=time.time())
        body = {"said": written(report)}
        if report.wants is None:
            body["said"]["wants"] = None
        self._api.patch(REPORT.path(self._namespace, self._name), body, fieldValidation="Strict")
        self._sent, self._sent_at = replace(report, beat=0.0), time.monotonic()

    def _keep_sending(self) -> None:
        """What is new at once, what only counts on now and then."""
        while not self._over:
            with self._news:
                self._news.wait_for(self._due, timeout=1.0)
                if not self._due():
                    continue
            try:
                self._send()
            except ApiClosedError:
                return
            except ShoalError as error:
                _log.debug("reported again: %s", error)
                time.sleep(1.0)
            time.sleep(0.2)

    def _due(self) -> bool:
        if self._over:
            return False
        now = replace(self._report, beat=0.0)
        if self._sent is None or replace(now, usage=None) != replace(self._sent, usage=None):
            return True
        return now != self._sent and time.monotonic() - self._sent_at > KUBERNETES.report

    def _keep_reading(self) -> None:
        """Follow its own record; whatever breaks is begun again."""
        one = {"fieldSelector": f"metadata.name={self._name}"}
        while not self._over:
            try:
                found = self._api.get(self._path)
                self._take(found)
                version = found["metadata"]["resourceVersion"]
                for event in self._api.watch(CLUSTER.path(self._namespace), version, _WATCH, **one):
                    if event["type"] == "DELETED":
                        break
                    if event["type"] != "BOOKMARK":
                        self._take(event["object"])
            except NotFoundError:
                self._gone()
                return
            except ApiClosedError:
                return
            except ShoalError as error:
                _log.debug("read again: %s", error)
                time.sleep(1.0)

    def _take(self, found: dict[str, Any]) -> bool:
        """Whether it is its own."""
        if found["metadata"]["uid"] != self.id:
            self._gone()
            return False
        spec, status = spec_of(found), status_of(found)
        if status is None or status.plan is None:
            raise InfrastructureError(f"the record of {self._name} says nothing yet")
        cluster = cluster_of(found, status, spec, status.plan, self.id)
        ends = cluster.state is State.STOPPING or cluster.state.ended
        first, *others = cluster.plan.groups
        within = None if spec.replicas is None else min(spec.replicas, first.count)
        groups = {
            its.name: min(spec.groups[its.name], its.count) for its in others if its.name in spec.groups
        }
        stop, message = (cluster.reason, cluster.message) if ends else (None, "")
        with self._news:
            self.cluster = cluster
            longest = float(cluster.plan.timeouts.max)
            self._wishes = Wishes(within, stop, message, longest, groups)
        return True

    def _gone(self) -> None:
        with self._news:
            self._wishes = Wishes(None, Reason.STOPPED_BY_USER, "its object was deleted")


def _tried(do: Callable[[], None], seconds: float) -> ShoalError | None:
    """Do it, again and again for so long; returns why it failed at last. What is gone, or closed, stays so."""
    begin = time.monotonic()
    while True:
        try:
            do()
            return None
        except (NotFoundError, ApiClosedError) as error:
            return error
        except ShoalError as error:
            if time.monotonic() - begin > seconds:
                return error
            time.sleep(0.5)
