"""What can be said ahead of time: when a queued cluster starts at the latest, and that one is about to end.

Why it exists: people plan by it, and nobody may lose work because a limit of time came without warning. The
same sentences are shown by ``ls``, by cards in notebooks and in the logs of flows.

What it must not do: guess (where nothing is known it says nothing), look anything up, or show anything.
"""

from __future__ import annotations

import time

from shoal.governor.ends import limit
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.names import command
from shoal.model.status import NextEnd
from shoal.units import Seconds

# Told when this part of a limit is left, but not earlier than so long before the end: of 4 hours the last
# quarter of an hour, of 20 minutes without work the last 4.
PART = 0.2
EARLIEST = Seconds(15 * 60)
_RUNS = (State.ADMITTED, State.STARTING, State.READY)


def latest_start(cluster: Cluster) -> float | None:
    """When it starts at the latest (seconds since the epoch); None where that cannot be told.

    It holds if what runs now uses its whole lifetime, and nobody is extended or goes first.
    """
    return cluster.turn.latest


def starts(cluster: Cluster, now: float) -> str:
    """``"starts by 14:35 at the latest"``, in this machine's time zone; empty where that cannot be told."""
    latest = latest_start(cluster)
    if latest is None or latest <= now:
        return ""
    return f"starts by {clock(latest, now)} at the latest"


def clock(at: float, now: float) -> str:
    """``14:35``; with the date where it is not of the same day."""
    there, here = time.localtime(at), time.localtime(now)
    same_day = (there.tm_year, there.tm_yday) == (here.tm_year, here.tm_yday)
    return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", there)


def until_warning(cluster: Cluster, ends_in: NextEnd | None) -> float:
    """Seconds until its own limit is something to warn of if nothing changes; below 0 when it is now."""
    if ends_in is None:
        return float("inf")
    return float(ends_in.seconds) - min(EARLIEST, PART * limit(ends_in.reason, cluster.plan.timeouts))


def warnings(cluster: Cluster, ends_in: NextEnd | None) -> dict[Reason, str]:
    """That it is about to end, why, and what to do about it, by reason; none while there is time.

    ``ends_in`` is what its head says.
    """
    found, notice = {}, cluster.notice
    if notice.at is not None and notice.reason is not None and cluster.state in _RUNS:
        found[notice.reason] = f"ends at {clock(notice.at, notice.since)}: {notice.message}"
    if ends_in is not None and (said := _own_limit(cluster, ends_in)):
        found[ends_in.reason] = said
    return found


def warning(cluster: Cluster, ends_in: NextEnd | None) -> str:
    """:func:`warnings` in one line; empty while there is time."""
    return "; ".join(warnings(cluster, ends_in).values())


def _own_limit(cluster: Cluster, ends_in: NextEnd) -> str:
    if cluster.state is not State.READY or until_warning(cluster, ends_in) > 0:
        return ""
    reason = ends_in.reason
    most = limit(reason, cluster.plan.timeouts)
    ends = f"ends in {left(ends_in.seconds)}"
    if reason is Reason.IDLE:
        return f"{ends} unless it gets work: idle for most of {most}"
    if reason is Reason.CLIENT_GONE:
        return f"{ends} unless a client connects: without one for most of {most}"
    said = f"{ends}, its maximum lifetime ({most})"
    given = cluster.plan.may_last
    more = 3600.0 if given is None else min(3600.0, float(given) - float(most))
    if more < 60:
        return f"{said}, the most that your tier allows"
    asked = "one hour more" if more == 3600 else f"{left(more)} more"
    return f"{said}; {asked}: {command('extend', cluster.name, f'+{more / 60:.0f}min' if more < 3600 else '+1h')}"


def left(seconds: float) -> Seconds:
    """As exact as anybody wants to know it: from two minutes on, whole minutes."""
    return Seconds(round(seconds / 60) * 60) if seconds >= 120 else Seconds(round(seconds))
