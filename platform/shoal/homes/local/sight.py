"""What is seen of a cluster's processes from this machine.

Why it exists: a cluster's life goes by what is seen (``governor.lifecycle``), and here that is a process of this boot
of this host, or of another machine that shares the ledger.

What it must not do: conclude anything, or change anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shoal.governor.actions import Seen
from shoal.governor.ends import End
from shoal.governor.ports import Sight
from shoal.homes.local.rebuild import last_words
from shoal.machine.processes import is_alive, of_another
from shoal.model.cluster import Cluster, State


@dataclass(frozen=True)
class LocalSight(Sight):
    """Also what a head that is GONE left of its ``report``, and when it ended (None: it did not say)."""

    report: Mapping[str, Any] | None = None
    ended_at: float | None = None


# Of a cluster, at a time by the store's clock, in the ledger at a path (see ``Transaction``).
Look = Callable[[Cluster, float, str], LocalSight]


def look(cluster: Cluster, now: float, ledger_path: str = "") -> LocalSight:
    """What is seen of ``cluster`` now."""
    head = cluster.head
    if not head:
        return LocalSight(Seen.NEVER)
    alive, owner = is_alive(head), of_another(head, ledger_path)
    if alive is None:
        return LocalSight(Seen.UNKNOWN, None, silent=now - (cluster.renewed_at or cluster.created))
    if alive and owner:
        return LocalSight(Seen.FOREIGN, owner=owner)
    if alive:
        return LocalSight(Seen.ALIVE, None, lived=_lived(cluster, now))
    # What it left is looked for outside of the transaction; one that waited started nothing.
    remains = False if owner or cluster.state is State.QUEUED else None
    if (words := last_words(cluster.id)) is None:
        return LocalSight(Seen.GONE, remains, owner=owner)
    end = End(words.reason, words.message)
    return LocalSight(Seen.GONE, remains, owner=owner, last=end, report=words.report, ended_at=words.ended_at)


def _lived(cluster: Cluster, now: float) -> float | None:
    """By a clock that neither jumps nor counts while the machine sleeps: all processes of one boot share it. One that
    waited, and hangs since before it was admitted, is not on it."""
    if (since := cluster.head.get("since")) is not None:
        return float(time.monotonic() - since)
    return None if cluster.admitted_at is None else now - cluster.admitted_at
