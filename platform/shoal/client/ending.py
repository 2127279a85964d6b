"""The end of a cluster: waiting for one that was asked to end, and the error that says why one has.

Why it exists: a handle that is closed and ``shoal down`` wait for the same, equally long, and say the same.

What it must not do: end anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from shoal.errors import ClusterEndedError, DeadlineError
from shoal.homes.base import Home
from shoal.model.cluster import Cluster, State
from shoal.model.names import command

STOP_WAIT = 90.0  # s that an end is waited for: a head that hangs is killed after 60
_POLL = 0.02


def until_ended(
    home: Home, cluster_id: str, late: Callable[[Cluster], DeadlineError], *, gone: bool = False
) -> Cluster:
    """The record once the cluster has ended; ``gone``: and nothing of it is left.

    Raises:
        DeadlineError: that takes longer than ``STOP_WAIT``; what ``late`` makes of the record.
    """
    begin = time.monotonic()
    while not (cluster := home.get(cluster_id)).state.ended or (gone and home.remains(cluster_id)):
        if time.monotonic() - begin > STOP_WAIT:
            raise late(cluster)
        time.sleep(_POLL)
    return cluster


def wait_for_end(home: Home, cluster_id: str) -> Cluster:
    """The record once the cluster, which was asked to end, has ended and nothing of it is left.

    Raises:
        DeadlineError: that takes longer than ``STOP_WAIT``.
    """

    def late(cluster: Cluster) -> DeadlineError:
        why = home.unresponsive(cluster) or f"`{command('why', cluster.name)}` tells how far it is."
        return DeadlineError(
            f"{cluster.name} has not ended {STOP_WAIT:.0f} s after it was asked to: {cluster.state} "
            f"({cluster.message})",
            hint=f"It is still ending. {why}",
        )

    return until_ended(home, cluster_id, late, gone=True)


def why_ended(home: Home, cluster_id: str) -> ClusterEndedError | None:
    """The error that says why a cluster has ended or is about to; None while it lives."""
    return ended_error(home.get(cluster_id))


def ended_error(cluster: Cluster) -> ClusterEndedError | None:
    """The error that says why it has ended or is about to; None while it lives."""
    if not (cluster.state.ended or cluster.state is State.STOPPING):
        return None
    where = f"`shoal logs {cluster.name}`"
    return ClusterEndedError(
        f"{cluster.name} ended: {cluster.reason}, {cluster.message}",
        hint="" if where in cluster.message else f"{where} shows what it wrote.",
        reason=cluster.reason.value,
        cluster=cluster.id,
    )
