"""Whether the network of a place goes by NetworkPolicies: tried, since the API server takes them either way.

Why it exists: with a network that ignores them everything works, and nobody is told that nothing is held.

What it must not do: take what cannot be reached at all for what is held.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING

from shoal.errors import ShoalError
from shoal.homes.kubernetes.names import (
    ENGINE_PORT,
    HEAD,
    HEADS_REACHED,
    NETWORK,
    OF_CLUSTER,
    POD,
    ROLE,
    STATUS_PORT,
    Json,
)
from shoal.homes.kubernetes.objects import status_of
from shoal.model.cluster import State

if TYPE_CHECKING:  # which needs a client of HTTP
    from shoal.homes.kubernetes.api import Api

_AGAIN = 600.0  # s until it is tried again
_SOON, _IDLE = 20.0, 2.0  # s, where nothing came of it, or no cluster was Ready
_WAITS = 3.0  # s for an answer of a pod that is there
_TRIED = 3  # heads, at most, at one time


class Isolation(Enum):
    """What a try says."""

    HELD = "enforced"
    OPEN = "not enforced"
    UNKNOWN = "unknown"


def tried(host: str, permitted: int = STATUS_PORT, refused: int = ENGINE_PORT) -> Isolation:
    """By two connections to a pod that listens at both ports: the policies let us in to the first alone."""
    if not _connects(host, permitted):
        return Isolation.UNKNOWN
    return Isolation.OPEN if _connects(host, refused) else Isolation.HELD


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), _WAITS).close()
    except OSError:
        return False
    return True


class IsolationWatch:
    """Tries it now and then from the governor's pod, beside its rounds. Elsewhere it knows nothing: a node, or another
    network, is not where users' pods are.
    """

    def __init__(self, api: Api, *, in_pod: bool) -> None:
        self._api, self._in_pod = api, in_pod
        self._next, self._running = 0.0, threading.Lock()
        self.said = ""  # the outcome and when, as the governor's Lease has it

    def look(self, clusters: Callable[[], Iterable[Json]]) -> None:
        """Try it, if it is time to: at heads of clusters that are Ready. ``clusters`` is called only then."""
        if not self._in_pod or time.monotonic() < self._next:
            return
        found = (each for each in clusters() if (its := status_of(each)) and its.state is State.READY)
        ready = list(islice(found, _TRIED))
        if not self._running.acquire(blocking=False):
            return
        self._next = time.monotonic() + (_SOON if ready else _IDLE)
        threading.Thread(target=self._try, args=(ready,), name="isolation", daemon=True).start()

    def _try(self, ready: list[Json]) -> None:
        try:
            for each in ready:
                with suppress(ShoalError):  # by an older Role it may not look, and so it is unknown
                    if (found := self._of(each)) is not Isolation.UNKNOWN:
                        now = datetime.fromtimestamp(self._api.clock.now(), UTC)
                        self.said = f"{found.value}, seen {now.isoformat(timespec='seconds')}"
                        self._next = time.monotonic() + _AGAIN
                        return
        finally:
            self._running.release()

    def _of(self, cluster: Json) -> Isolation:
        metadata = cluster["metadata"]
        namespace = metadata["namespace"]
        self._api.get(NETWORK.path(namespace, HEADS_REACHED))  # NotFoundError: nothing is to be held there
        its = f"{OF_CLUSTER}={metadata['uid']},{ROLE}={HEAD}"
        pods = self._api.list(POD.path(namespace), labelSelector=its)[0]
        found = [where for pod in pods if (where := pod.get("status", {}).get("podIP"))]
        return tried(found[0]) if found else Isolation.UNKNOWN
