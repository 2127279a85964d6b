"""Heads of clusters on simulated nodes, played by threads: they report through the real desk, and compute nothing."""

from __future__ import annotations

import threading
import time
from typing import Any

from shoal.errors import ShoalError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.desk import KubernetesDesk
from shoal.homes.kubernetes.names import HEAD, OF_CLUSTER, OF_GROUP, POD, ROLE, WORKER
from shoal.model.cluster import Reason
from shoal.model.report import Usage


class PlayedHeads:
    """Plays a head for each head's pod that runs in ``namespace``."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._played: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="played heads", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.2):
            for pod in self._pods(f"{ROLE}={HEAD}"):
                if pod["metadata"]["uid"] not in self._played:
                    self._played.add(pod["metadata"]["uid"])
                    threading.Thread(target=self._head, args=(pod,), daemon=True).start()

    def _pods(self, selector: str) -> list[dict[str, Any]]:
        try:
            found, _ = self._api.list(POD.path(self._namespace), labelSelector=selector)
        except ShoalError:
            return []
        return [pod for pod in found if pod["status"].get("phase") == "Running"]

    def _head(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        uid, name = metadata["labels"][OF_CLUSTER], metadata["labels"]["app.kubernetes.io/instance"]
        api = self._api.again()
        try:
            self._play(KubernetesDesk(uid, api, self._namespace, name), uid, metadata["name"])
        except ShoalError:
            pass  # its cluster is gone
        finally:
            api.close()

    def _play(self, desk: KubernetesDesk, uid: str, pod: str) -> None:
        desk.born("")
        desk.say(Reason.WORKERS_STARTING, "starting workers")
        began = time.monotonic()
        ready, retired = False, frozenset[str]()
        wanted: dict[str, int] = {}
        fewer: set[str] = set()
        while not self._over.is_set():
            pods = self._pods(f"{OF_CLUSTER}={uid},{ROLE}={WORKER}")
            workers = {each["metadata"]["name"]: each["metadata"]["labels"][OF_GROUP] for each in pods}
            there = [each for each in sorted(workers) if each not in retired]
            usage = Usage(seen=time.monotonic() - began)
            wishes = desk.wishes()
            if wishes.stop is not None:
                desk.ending(wishes.stop, wishes.message)
                desk.ended(wishes.stop, wishes.message, usage)
                status = {"status": {"phase": "Succeeded"}}
                self._api.patch(POD.path(self._namespace, pod, "status"), status)
                return
            # As real ones: a surplus goes when fewer are wanted. A worker may come before its head hears of the wish.
            before, wanted = wanted, {group.name: group.count for group in desk.cluster.plan.groups}
            fewer = {
                name
                for name, many in wanted.items()
                if many < before.get(name, 0) or (name in fewer and many == before[name])
            }
            if not ready and len(there) >= desk.cluster.plan.workers:
                ready = desk.ready(len(there)).stop is None
            elif ready:
                for name in fewer:
                    its = [each for each in there if workers[each] == name]
                    if surplus := its[wanted[name] :]:
                        retired |= frozenset(surplus)
                        desk.retired(retired)
                        there = [each for each in there if each not in retired]
                retired &= frozenset(workers)
                desk.report(len(there), usage)
            time.sleep(0.2)
