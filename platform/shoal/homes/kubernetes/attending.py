"""Who waits for a cluster that is in the queue, told by a Lease that the waiting process renews.

Why it exists: a request whose process was killed must not take its turn, and an API server sees no processes. A Lease
tells it wherever that process is: on a laptop, in a notebook's pod, in a flow's pod of another namespace.

What it must not do: go by a time that somebody wrote: clocks may be an hour off. What counts is that a Lease changes.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shoal.errors import NotFoundError, ShoalError
from shoal.governor.ends import Pulse
from shoal.homes.kubernetes.errors import ApiClosedError, RightsError
from shoal.homes.kubernetes.leases import renew
from shoal.homes.kubernetes.names import CLUSTER, OF_CLUSTER, Object
from shoal.homes.kubernetes.objects import legible, owned_by
from shoal.homes.kubernetes.periods import KUBERNETES
from shoal.model.cluster import Cluster, State

if TYPE_CHECKING:  # which needs a client of HTTP
    from shoal.homes.kubernetes.api import Api

_log = logging.getLogger("shoal.homes")
_PARTS = 4  # renewals in the time after which nobody counts as waiting
_OFTEN, _SELDOM = 0.5, 30.0  # s between two renewals: at least, at most
_BLIND = (
    3 * KUBERNETES.look
)  # s after which a look is the first one again: renewals may have failed meanwhile

_attended: set[tuple[str, int]] = set()  # by a cluster's uid and the process that attends


def attend(api: Api, found: Object, read: Callable[[Object], Cluster]) -> None:
    """This process waits for a cluster as long as it lives and the cluster is in the queue; ``read``: its record.

    Called again, it does nothing. So it does for a detached one, which waits with nobody looking. Where the rights
    were not given (by an older ``shoal apply``), nobody can tell that it waits, and the request stays in the queue.
    """
    times, metadata = read(found).plan.timeouts, found["metadata"]
    lasts = times.no_client
    if lasts >= times.max:
        return
    key = metadata["uid"], os.getpid()
    if key in _attended:
        return
    _attended.add(key)
    pause = min(max(lasts / _PARTS, _OFTEN), _SELDOM)
    named = {  # it goes with the cluster's object
        "name": f"{metadata['name']}-client-{secrets.token_hex(4)}",
        "namespace": metadata["namespace"],
        "labels": {OF_CLUSTER: metadata["uid"]},
        "ownerReferences": [owned_by(found)],
    }
    spec = {"holderIdentity": _who(), "leaseDurationSeconds": max(1, round(lasts))}

    def keep_renewing() -> None:
        while True:
            wait = pause
            try:
                now = api.get(CLUSTER.path(metadata["namespace"], metadata["name"]))
                if now["metadata"]["uid"] != metadata["uid"] or read(now).state is not State.QUEUED:
                    return
                renew(api, named, spec)
            except (NotFoundError, ApiClosedError, RightsError) as error:
                _log.debug("%s is attended no more: %s", metadata["name"], error)
                return
            except ShoalError as error:
                _log.debug("renewed again: %s", error)
                wait = min(1.0, pause)
            time.sleep(wait)

    threading.Thread(target=keep_renewing, name=f"attends {metadata['name']}", daemon=True).start()


def _who() -> str:
    """This process, as its user knows it; in a pod the host is the pod's name."""
    if (run := os.environ.get("PREFECT__FLOW_RUN_ID")) is not None:
        what = f"flow run {run}"
    elif "ipykernel" in sys.modules:
        what = "notebook"
    else:
        what = Path(sys.argv[0]).name or "python"
    return f"{what}, process {os.getpid()} on {socket.gethostname()}"


class _Attendance(NamedTuple):
    """The Leases of one cluster as they were last seen, by uid; when one last changed, by which holder."""

    versions: dict[str, str]
    at: float
    by: str


class Attendances:
    """Since when nobody has waited for the clusters in the queue, by this process's own clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._seen: dict[str, _Attendance] = {}
        self._clock, self._looked = clock, -_BLIND

    def pulses(self, waiting: Mapping[str, str], leases: Callable[[], Iterable[Object]]) -> dict[str, Pulse]:
        """Of the clusters in the queue, by uid; of one that nobody ever said they wait for nothing is known.

        ``waiting``: their namespaces, by uid. ``leases`` are asked for once in a while.
        """
        now = self._clock()
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in waiting}
        if waiting and now - self._looked >= KUBERNETES.look:
            try:
                self._look(waiting, leases(), now)
            except RightsError as error:  # given by an older `shoal apply`
                _log.info("whether clients wait for their clusters is not known: %s", error)
        return {uid: Pulse(alone=now - seen.at, last=seen.by) for uid, seen in self._seen.items()}

    def _look(self, waiting: Mapping[str, str], leases: Iterable[Object], now: float) -> None:
        """Compare the Leases with those of the look before. Of another namespace they are somebody else's."""
        found: dict[str, list[Object]] = {}
        for lease in leases:
            uid = lease["metadata"]["labels"][OF_CLUSTER]
            if waiting.get(uid) == lease["metadata"]["namespace"]:
                found.setdefault(uid, []).append(lease)
        blind, self._looked = now - self._looked > _BLIND, now
        for uid in {*found, *self._seen}:
            before = self._seen.get(uid, _Attendance({}, now, ""))
            versions, at, by = {}, now if blind else before.at, before.by
            for lease in found.get(uid, ()):
                its, version = lease["metadata"]["uid"], lease["metadata"]["resourceVersion"]
                versions[its] = version
                if before.versions.get(its) != version:
                    at, by = now, legible(str(lease["spec"].get("holderIdentity") or ""))[:200]
            self._seen[uid] = _Attendance(versions, at, by)
