"""What is seen of a script that runs beside its cluster, and how it ended; from its pod, without a server.

Why it exists: its exit code, and whatever ended it instead, are told as they are on a laptop.

What it must not do: import a client, or decide.
"""

from __future__ import annotations

from shoal.governor.actions import Seen
from shoal.governor.ends import Exit
from shoal.homes.kubernetes.containers import ended, over, taken_away
from shoal.homes.kubernetes.names import RUNNER, Json
from shoal.homes.kubernetes.objects import legible
from shoal.model.cluster import Cluster

_KILLED = 128 + 9  # as shells count


def script_seen(cluster: Cluster, pod: Json | None) -> Seen | None:
    """What is seen of a cluster's script; None where none is to run. One whose pod was seen never starts again."""
    if cluster.run is None:
        return None
    if pod is None:
        return Seen.GONE if cluster.head.get(RUNNER) else Seen.NEVER
    return Seen.GONE if over(pod) else Seen.ALIVE


def exit_of(cluster: Cluster, pod: Json | None) -> Exit | None:
    """How it ended; None where it did not, or never was."""
    if script_seen(cluster, pod) is not Seen.GONE:
        return None
    if pod is None:
        return Exit(_KILLED, "its pod was deleted, or its node is gone")
    status = pod["status"]
    why = taken_away(pod)
    if (how := ended(pod)) is None:
        return Exit(_KILLED, why)
    code = int(how.get("exitCode", _KILLED))
    if how.get("reason") == "OOMKilled":
        size = cluster.plan.head_there or cluster.plan.head
        why = f"it took more than the {size.memory} that it had"
    elif not why:
        why = legible(how.get("message", ""))
    return Exit(code or (_KILLED if status.get("reason") else 0), why)
