"""How a pod's own container is, and why a pod was lost; from plain objects, without a server.

Why it exists: a place may put containers of its own beside ours (a mesh's, for one), and it may take a pod away. What
ours does, and what was done to it, are told apart here.

What it must not do: import a client, or decide what becomes of a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from shoal.homes.kubernetes.names import CONTAINERS, DASK_PART, HEAD, ROLE, WORKER, Json
from shoal.homes.kubernetes.objects import legible

_LOST = re.compile(r"; (lost: [^;]*)")
_SHOWN = 3  # of those that were lost


def role(pod: Json) -> str:
    """Which part of a cluster a pod is."""
    return str(pod["metadata"].get("labels", {}).get(ROLE, ""))


def own(pod: Json) -> list[Json]:
    """How the container that we put into it is, as far as that is told."""
    its, all_ = CONTAINERS.get(role(pod), ""), pod.get("status", {}).get("containerStatuses", ())
    return [each for each in all_ if (each.get("name") or its) == its]


def ended(pod: Json) -> Json | None:
    """How its own container ended, this time or the last; None where it did not."""
    for each in own(pod):
        for which in ("state", "lastState"):
            if (found := (each.get(which) or {}).get("terminated")) is not None:
                return dict(found)
    return None


def over(pod: Json) -> bool:
    """Whether nothing of ours runs in it any more, and nothing will, whatever runs beside that.

    A head runs once, though Kubernetes start it again.
    """
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return True
    if role(pod) == HEAD and any(each.get("restartCount") for each in own(pod)):
        return True
    labels = pod["metadata"].get("labels", {})
    again = role(pod) == WORKER and DASK_PART in labels  # a Deployment's starts again
    return not again and any("terminated" in each.get("state", {}) for each in own(pod))


def taken_away(pod: Json) -> str:
    """Why its place ends it, or has: an eviction, a drained or a lost node; empty where nothing says so."""
    status = pod.get("status", {})
    said = [status] if status.get("reason") else []
    said += [each for each in status.get("conditions", ()) if _disrupts(each)]
    if not said:
        return ""
    words = (str(said[0].get(each) or "").strip(" .") for each in ("reason", "message"))
    return legible(": ".join(filter(None, words)))


def _disrupts(condition: Json) -> bool:
    return condition.get("type") == "DisruptionTarget" and condition.get("status") == "True"


def failure(pod: Json) -> str:
    """Why it was lost, in a sentence; empty where it was not: it runs, or ended in good order."""
    if taken := taken_away(pod):
        return taken
    if "deletionTimestamp" in pod["metadata"] or not over(pod):
        return ""
    if (how := ended(pod)) is None:
        return "" if pod["status"].get("phase") == "Succeeded" else "it failed"
    code, reason = how.get("exitCode"), how.get("reason", "ended")
    if not code:
        return ""
    return f"{reason}, exit code {code}" + (", more memory than it may take" if reason == "OOMKilled" else "")


def with_losses(
    message: str, before: str, pods: Collection[Json], retired: Collection[str], *, goes_on: bool
) -> str:
    """``message`` with the workers that are being lost, and why the first one is.

    One that is gone says nothing any more, so what the record said of it ``before`` stays as long as its head says the
    same, or of a worker that left (``goes_on``).
    """
    lost = {
        pod["metadata"]["name"]: why
        for pod in pods
        if role(pod) == WORKER and pod["metadata"]["name"] not in retired and (why := failure(pod))
    }
    if lost:
        named = ", ".join(sorted(lost)[:_SHOWN]) + (
            f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        )
        why = lost[min(lost)].replace(";", ",")
        return f"{message}; lost: {named} ({why})"[:1000]
    known = _LOST.search(before)
    return f"{message}; {known[1]}"[:1000] if known and (goes_on or before.startswith(message)) else message
