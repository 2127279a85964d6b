"""What a cluster does on the queue's answer: it goes on, waits and says for what, or is refused.

Why it exists: it is the part of ``lifecycle`` that only those need who decide on quota.

What it must not do: work the answer out (``quota.queueing`` does).
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal.governor.actions import Action, Charge, Free, Move, Observation, Scope
from shoal.governor.ends import End, unattended
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.codec import plain
from shoal.model.report import QueueStatus
from shoal.quota.admission import Verdict
from shoal.quota.queueing import TurnResult, admitted
from shoal.units import Seconds

_NEWS = 30.0  # s by which a time that was told must be wrong to be told again


def in_the_queue(cluster: Cluster, seen: Observation, now: float) -> list[Action]:
    """What to do next for a cluster that waits."""
    end = seen.stop
    if end is None and seen.pulse is not None:
        end = unattended(seen.pulse, cluster.plan.timeouts)
    if end is not None:
        return [Move(State.STOPPED, *end)]
    outcome = seen.outcome
    if outcome is None:
        return []
    if outcome.verdict is Verdict.ADMIT:
        message = admitted(outcome)
        if cluster.reason is not Reason.REQUESTED:
            message += f", after {Seconds(max(0.0, now - cluster.created))} in the queue"
        move = Move(State.ADMITTED, Reason.ADMITTED, message, outcome.workers, {})
        return [*charges(seen, outcome), move]
    refused = outcome.verdict is Verdict.REFUSE
    if refused or (not cluster.workload.queue and seen.decision is not None):
        end = End(Reason.OVER_LIMIT, outcome.message)
        if seen.decision is not None:
            end = End(seen.decision.reason, seen.decision.message)
        return [Move(State.REFUSED, *end)]
    reason, message, report = waits(outcome)
    move = Move(State.QUEUED, reason, message, report=report)
    if seen.charged:
        # Charged in part by somebody who died or came too late: give it back, the record first.
        return [move, *(Free(scope) for scope in reversed(Scope) if scope in seen.charged)]
    return [move] if says_more(cluster, reason, message, report) else []


def charges(seen: Observation, outcome: TurnResult) -> list[Action]:
    """For one that is admitted, or may grow: each account has to hold it before its record says so."""
    fair = {Scope.TEAM: outcome.team, Scope.USER: outcome.user}
    return [
        # Never less than it holds: workers that are being retired still count.
        Charge(scope, its | seen.charged.get(scope, its), fair.get(scope))
        for scope, its in seen.wants.items()
    ]


def waits(outcome: TurnResult) -> tuple[Reason, str, dict[str, float | None]]:
    """The reason, the sentence and the report of a cluster that waits in the queue.

    The report has ``place`` in the queue and ``latest``: when it starts at the latest (seconds since the
    epoch), if what runs now uses its whole lifetime and nobody goes first; None where that is open.
    """
    report = plain(QueueStatus(outcome.position, outcome.latest))
    if outcome.behind is not None and not outcome.short:
        message = f"position {outcome.position} in the queue"
        return Reason.WAITING_FOR_QUOTA, message, report
    if outcome.budget:
        whose = " and ".join("your" if scope == "you" else f"{scope}'s" for scope in outcome.budget)
        message = f"position {outcome.position} in the queue, waiting for room in {whose} budget"
        return Reason.WAITING_FOR_QUOTA, message, report
    limits = ["your" if scope == "you" else f"{scope}'s" for scope in outcome.short]
    message = f"position {outcome.position} in the queue, waiting for room in {' and '.join(limits)} quota"
    capacity = outcome.short == ("the machine",)
    return Reason.WAITING_FOR_CAPACITY if capacity else Reason.WAITING_FOR_QUOTA, message, report


def says_more(cluster: Cluster, reason: Reason, message: str, report: Mapping[str, float | None]) -> bool:
    """Whether this is news to who reads the record; some seconds more or less until its start are none."""
    if (cluster.reason, cluster.message) != (reason, message):
        return True
    known, latest = cluster.turn.latest, report["latest"]
    if known is None or latest is None:
        return known is not latest
    return abs(float(known) - latest) > _NEWS
