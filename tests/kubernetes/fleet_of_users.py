"""Many users' clusters on simulated nodes: heads played by one process, and a watcher that no governor knows of.

Each follows the API server by a watch of its own, and asks nothing of what it checks.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from shoal.errors import ShoalError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.errors import WatchOverError
from shoal.homes.kubernetes.names import ACCOUNT, CLUSTER, HEAD, OF_CLUSTER, POD, REPORT, ROLE, WORKER
from shoal.homes.kubernetes.objects import EndWish, HeadReport
from shoal.homes.kubernetes.structure import written
from shoal.model.cluster import Reason, State
from shoal.model.report import Usage

Object = dict[str, Any]
Told = Callable[[Object, bool], None]  # an object as it is now, and whether it is there


class Follower:
    """Tells every change of some kinds, each in a thread of its own, from what is there on."""

    def __init__(self, api: Api, kinds: Mapping[str, tuple[dict[str, str], Told]]) -> None:
        self._api = api.again()
        self._over = threading.Event()
        self._fault: Exception | None = None
        self._threads = [
            threading.Thread(target=self._follow, args=(path, params, told), name=path, daemon=True)
            for path, (params, told) in kinds.items()
        ]
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """End the watches. Raises what one of them met: it would have told nothing since."""
        self._over.set()
        self._api.close()
        for each in self._threads:
            each.join()
        if self._fault is not None:
            raise self._fault

    def _follow(self, path: str, params: dict[str, str], told: Told) -> None:
        known: dict[str, Object] = {}
        version = ""
        while not self._over.is_set():
            try:
                if not version:
                    items, version = self._api.list(path, **params)
                    there = {each["metadata"]["uid"]: each for each in items}
                    for uid in known.keys() - there.keys():
                        told(known[uid], False)
                    for each in items:
                        told(each, True)
                    known = there
                for event in self._api.watch(path, version, **params):
                    its, uid = event["object"], event["object"]["metadata"].get("uid", "")
                    version = its["metadata"]["resourceVersion"]
                    if event["type"] == "BOOKMARK":
                        continue
                    there_now = event["type"] != "DELETED"
                    known[uid] = its
                    if not there_now:
                        del known[uid]
                    told(its, there_now)
            except WatchOverError:
                version = ""
            except ShoalError:
                self._over.wait(0.5)
            except Exception as error:
                self._fault = error
                raise


@dataclass
class _Played:
    """What is known of one cluster, and what its head said last."""

    wanted: int | None = None
    ends: bool = False
    head: Object | None = None
    workers: set[str] = field(default_factory=set)
    said: str = ""
    at: float = 0.0
    name: str = ""


class FleetHeads:
    """Plays the head of every cluster in ``namespaces``. A settled head reports every 30 s, as real ones do."""

    def __init__(self, api: Api, namespaces: frozenset[str]) -> None:
        self._api, self._namespaces = api.again(), namespaces
        self._known: dict[str, _Played] = {}
        self._lock = threading.Lock()
        self._writers = ThreadPoolExecutor(8, "played heads")
        self._follower = Follower(
            api, {CLUSTER.path(): ({}, self._cluster), POD.path(): ({"labelSelector": OF_CLUSTER}, self._pod)}
        )
        self._over = threading.Event()
        self._settled = threading.Thread(target=self._report_on, name="reports", daemon=True)
        self._settled.start()

    def stop(self) -> None:
        """Nobody plays any more."""
        self._over.set()
        self._settled.join()
        self._follower.stop()
        self._writers.shutdown(cancel_futures=True)
        self._api.close()

    def _cluster(self, found: Object, there: bool) -> None:
        metadata, status = found["metadata"], found.get("status") or {}
        if metadata["namespace"] not in self._namespaces:
            return
        with self._lock:
            if not there:
                self._known.pop(metadata["uid"], None)
                return
            its = self._known.setdefault(metadata["uid"], _Played())
            its.name = metadata["name"]
            its.ends = status.get("state") == State.STOPPING.value
            if (plan := status.get("plan")) is not None:
                its.wanted = sum(group["count"] for group in plan["groups"])
        self._next(metadata["uid"])

    def _pod(self, found: Object, there: bool) -> None:
        metadata = found["metadata"]
        if metadata["namespace"] not in self._namespaces:
            return
        uid, runs = metadata["labels"][OF_CLUSTER], found.get("status", {}).get("phase") == "Running"
        with self._lock:
            its = self._known.setdefault(uid, _Played())
            if metadata["labels"][ROLE] == HEAD:
                its.head = found if there and runs else None
            elif there and runs:
                its.workers.add(metadata["name"])
            else:
                its.workers.discard(metadata["name"])
        self._next(uid)

    def _next(self, uid: str) -> None:
        """What the head of this cluster says now, if it is anything new."""
        with self._lock:
            its = self._known.get(uid)
            if its is None or its.head is None or its.wanted is None:
                return
            if its.ends:
                said = "ends"
            elif its.said == "ready" or len(its.workers) >= its.wanted:
                said = "ready"
            else:
                said = "starts"
            if said == its.said:
                return
            its.said, its.at = said, time.monotonic()
            pod, many = its.head, len(its.workers)
        with suppress(RuntimeError):  # nobody plays any more
            self._writers.submit(self._say, pod, its.name, said, many)

    def _say(self, pod: Object, name: str, said: str, workers: int) -> None:
        now, usage = time.time(), Usage(seen=time.monotonic())
        if said == "ends":
            stop = EndWish(Reason.STOPPED_BY_USER, "asked to stop")
            report = HeadReport(stop=stop, usage=usage, beat=now)
        else:
            state, reason = (
                (State.READY, Reason.SERVING)
                if said == "ready"
                else (State.STARTING, Reason.WORKERS_STARTING)
            )
            report = HeadReport(state.value, reason.value, f"it {said}", workers, usage=usage, beat=now)
        namespace = pod["metadata"]["namespace"]
        with suppress(ShoalError):  # its cluster is gone
            body = {"said": written(report)}
            self._api.patch(REPORT.path(namespace, name), body, fieldValidation="Strict")
            if said == "ends":
                path = POD.path(namespace, pod["metadata"]["name"], "status")
                self._api.patch(path, {"status": {"phase": "Succeeded"}})

    def _report_on(self) -> None:
        while not self._over.wait(0.5):
            with self._lock:
                due = [
                    its
                    for its in self._known.values()
                    if its.said == "ready" and its.head is not None and time.monotonic() - its.at > 30
                ]
                for its in due:
                    its.at = time.monotonic()
            for its in due:
                if its.head is not None:
                    self._say(its.head, its.name, "ready", len(its.workers))


class Watcher:
    """Notes whatever exceeds a limit, at every event: accounts by what they hold, namespaces by the pods there."""

    def __init__(
        self, api: Api, system: str, namespaces: frozenset[str], clusters: int, workers: int
    ) -> None:
        self.over: list[str] = []
        self.events = 0
        self._states: dict[str, str] = {}
        self._clusters, self._workers, self._namespaces = clusters, workers, namespaces
        self._pods: dict[str, set[str]] = {}
        self._follower = Follower(
            api,
            {
                CLUSTER.path(): ({}, self._cluster),
                ACCOUNT.path(system): ({}, self._account),
                POD.path(): ({"labelSelector": f"{ROLE}={WORKER}"}, self._pod),
            },
        )

    def stop(self) -> None:
        """Look no more."""
        self._follower.stop()

    def states(self) -> Counter[str]:
        """How many clusters are in which state."""
        return Counter(self._states.copy().values())

    def _cluster(self, found: Object, there: bool) -> None:
        if found["metadata"]["namespace"] in self._namespaces:
            self._states[found["metadata"]["uid"]] = str((found.get("status") or {}).get("state", ""))

    def _account(self, found: Object, there: bool) -> None:
        self.events += 1
        held = found.get("status", {}).get("admitted", {}) if there else {}
        workers = sum(its.get("workers", 0) for its in held.values())
        if len(held) > self._clusters or workers > self._workers:
            name = found["spec"]["holder"]
            self.over.append(f"account {name} holds {len(held)} clusters of {workers} workers")

    def _pod(self, found: Object, there: bool) -> None:
        metadata = found["metadata"]
        if metadata["namespace"] not in self._namespaces:
            return
        self.events += 1
        its = self._pods.setdefault(metadata["namespace"], set())
        (its.add if there else its.discard)(metadata["uid"])
        if len(its) > self._workers:
            self.over.append(f"{len(its)} workers in namespace {metadata['namespace']}")
