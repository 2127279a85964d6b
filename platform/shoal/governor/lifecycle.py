"""The life of one cluster, as a pure function: what is recorded and what is seen -> what to do next.

Why it exists: governors crash between any two steps, replies get lost, two governors work at once. So each
step is worked out anew from what stands written and what is seen, is safe to do twice, and is done only if
nobody wrote in between. What is unknown is not failed.

The order of writes keeps three promises at every moment, whoever dies in between:
 - a cluster counts in every account before it is Admitted, and until nothing of it is left;
 - an account is lowered for a cluster only when that cluster has ended, or after its record was written anew,
   so that whoever is just raising it fails instead;
 - nothing is started for a cluster that is not Admitted.

What it must not do: do I/O, or read a clock (``now`` is the store's).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from shoal.governor.ends import End, Pulse, Sentence, due
from shoal.governor.periods import Periods
from shoal.model.cluster import Cluster, Reason, State
from shoal.quota.account import Amounts, Fair
from shoal.quota.admission import Decision, Verdict, with_workers
from shoal.quota.queueing import Outcome, admitted
from shoal.units import Seconds

_NEWS = 30.0  # s by which a time that was told must be wrong to be told anew


class Scope(StrEnum):
    """Whose account. In this order they are charged, in the reverse they are freed."""

    PLACE = "place"
    TEAM = "team"
    USER = "user"


class Seen(StrEnum):
    """What is seen of a head.

    NONE: none is there, and none has to be (a request that waits without a process). NEVER: none was ever there.
    GONE: it was, and is not. UNKNOWN: cannot tell. FOREIGN: it lives, and belongs to another ledger.
    """

    NONE = "none"
    NEVER = "never"
    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Observation:
    """What is seen of one cluster besides its record.

    Of its processes: ``head``; ``owner``: the ledger that a FOREIGN head belongs to; ``remains``: whether anything of
    it still runs besides the head (None: cannot tell); ``silent``: seconds since its head was heard of; ``lived``:
    seconds since it was admitted, by a clock that does not jump (None: cannot tell); ``pulse``: what its head tells
    of it; ``last``: why a head that is GONE was ending.

    Of people: ``stop``: that somebody asked for its end; ``target``: the number of workers wanted now.

    Of the accounts: ``charged``: what each holds for it; ``by_plan``: what its plan takes of each; ``wants``: the
    same with ``target`` workers; ``outcome``: the queue's answer, for one that waits or wants to grow; ``decision``:
    that answer explained, for one that does not want to wait.
    """

    head: Seen = Seen.NEVER
    charged: Mapping[Scope, Amounts] = field(default_factory=dict)
    wants: Mapping[Scope, Amounts] = field(default_factory=dict)
    by_plan: Mapping[Scope, Amounts] = field(default_factory=dict)
    remains: bool | None = False
    silent: float = 0.0
    lived: float | None = None
    pulse: Pulse | None = None
    last: End | None = None
    owner: str = ""
    stop: End | None = None
    outcome: Outcome | None = None
    decision: Decision | None = None
    target: int | None = None


@dataclass(frozen=True)
class Charge:
    """Write into an account what it holds for the cluster, even where it holds that already.

    The write is what makes another governor's decision on the same account fail.
    """

    scope: Scope
    amounts: Amounts
    fair: Fair | None = None


@dataclass(frozen=True)
class Free:
    """Take the cluster out of an account."""

    scope: Scope


@dataclass(frozen=True)
class Move:
    """Write the record: a state with its reason (it may be the one that it has).

    ``report``: what it tells of its waiting, see :func:`waits`.
    """

    state: State
    reason: Reason
    message: str
    workers: int | None = None
    report: Mapping[str, float | None] | None = None


@dataclass(frozen=True)
class StartHead:
    """Start its head; nothing happens where one is or ever was."""


@dataclass(frozen=True)
class StopHead:
    """Tell its head to end in good order."""


@dataclass(frozen=True)
class KillHead:
    """End its head at once."""


@dataclass(frozen=True)
class EndRemains:
    """End every process that carries its mark."""


Action = Charge | Free | Move | StartHead | StopHead | KillHead | EndRemains


def step(cluster: Cluster, seen: Observation, now: float, periods: Periods) -> list[Action]:
    """What to do next for ``cluster``, in this order; the first that cannot be done ends the round for it."""
    if cluster.state.ended:
        return _after_the_end(seen)
    if (end := _without_a_head(cluster, seen, now, periods)) is not None:
        return [_over(cluster, end, seen, periods)]
    if cluster.state is State.QUEUED:
        return _in_the_queue(cluster, seen, now)
    if cluster.state is State.STOPPING:
        return _stopping(cluster, seen, now, periods)
    if (end := _reason_to_end(cluster, seen, periods)) is not None:
        return [Move(State.STOPPING, *end)]
    start: list[Action] = [StartHead()] if seen.head is Seen.NEVER else []
    return [*start, *_resize(cluster, seen)]


def moved(cluster: Cluster, move: Move, team: str | None, now: float) -> Cluster:
    """The record as ``move`` has it; ``team``: whose account it counts in besides its owner's, once admitted."""
    result = replace(
        cluster,
        state=move.state,
        reason=move.reason,
        message=move.message,
        since=cluster.since if move.state is cluster.state else now,
    )
    if move.state is State.ADMITTED and cluster.state is State.QUEUED:
        result = replace(result, admitted_at=now, team=team)
    if move.workers is not None and not move.state.ended:
        result = replace(result, plan=with_workers(result.plan, move.workers))
    if move.state.ended:
        result = replace(result, ended_at=now, workers=0)
    return result if move.report is None else replace(result, report=dict(move.report))


def _after_the_end(seen: Observation) -> list[Action]:
    actions: list[Action] = []
    # It ended, so by what was known nothing was left. If something shows up after all, it has no owner.
    if seen.head is Seen.ALIVE:
        actions.append(KillHead())
    if seen.remains:
        actions.append(EndRemains())
    return actions + [Free(scope) for scope in reversed(Scope) if scope in seen.charged]


def _without_a_head(cluster: Cluster, seen: Observation, now: float, periods: Periods) -> End | None:
    """Why it ends though nobody asked for it: its head is not there, not to be reached, or somebody else's."""
    pid = f" (pid {cluster.head['pid']})" if cluster.head.get("pid") else ""
    if seen.head is Seen.FOREIGN:
        return End(Reason.HEAD_LOST, Sentence.COPY.format(pid=pid, owner=seen.owner))
    if cluster.state is State.STOPPING:
        return None
    if seen.head is Seen.GONE:
        crashed = Sentence.CRASHED.format(pid=pid, name=cluster.name)
        return seen.last or End(Reason.HEAD_CRASHED, crashed)
    if seen.head is Seen.UNKNOWN and seen.silent > periods.silent:
        return End(Reason.HEAD_LOST, Sentence.SILENT.format(limit=periods.silent))
    if seen.head is Seen.NEVER:
        begin = cluster.admitted_at if cluster.admitted_at is not None else cluster.created
        # Either way: after a clock that went back, none could appear to be late.
        if abs(now - begin) > periods.headless:
            return End(Reason.START_FAILED, Sentence.HEADLESS.format(limit=periods.headless))
    return None


def _over(cluster: Cluster, end: End, seen: Observation, periods: Periods) -> Move:
    """To its end: at once where nothing of it is left, else by way of Stopping, for as long as it counts."""
    if cluster.state.admitted and _is_left(seen, periods):
        return Move(State.STOPPING, *end)
    return Move(end.state, *end, workers=0)


def _is_left(seen: Observation, periods: Periods) -> bool:
    """Whether something may run of a cluster whose head does not; what cannot be told counts for a while."""
    return bool(seen.remains) or (seen.remains is None and seen.silent <= periods.silent)


def _in_the_queue(cluster: Cluster, seen: Observation, now: float) -> list[Action]:
    if seen.stop is not None:
        return [Move(State.STOPPED, *seen.stop)]
    outcome = seen.outcome
    if outcome is None:
        return []
    if outcome.verdict is Verdict.ADMIT:
        message = admitted(outcome)
        if cluster.reason is not Reason.REQUESTED:
            message += f", after {Seconds(max(0.0, now - cluster.created))} in the queue"
        move = Move(State.ADMITTED, Reason.ADMITTED, message, outcome.workers, {})
        return [*_charges(seen, outcome), move]
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


def _charges(seen: Observation, outcome: Outcome) -> list[Action]:
    fair = {Scope.TEAM: outcome.team, Scope.USER: outcome.user}
    return [
        # Never less than it holds: workers that are being retired still count.
        Charge(scope, its | seen.charged.get(scope, its), fair.get(scope))
        for scope, its in seen.wants.items()
    ]


def waits(outcome: Outcome) -> tuple[Reason, str, dict[str, float | None]]:
    """The reason, the sentence and the report of a cluster that waits in the queue.

    The report has ``place`` in the queue and ``latest``: when it starts at the latest (seconds since the
    epoch), by the longest lives of what runs now and if nobody's turn comes before; None where that is open.
    """
    report = {"place": outcome.place, "latest": outcome.latest}
    if outcome.behind is not None and not outcome.short:
        message = f"position {outcome.place} in the queue"
        return Reason.WAITING_FOR_QUOTA, message, report
    limits = ["your" if scope == "you" else f"{scope}'s" for scope in outcome.short]
    message = f"position {outcome.place} in the queue, waiting for room in {' and '.join(limits)} quota"
    capacity = outcome.short == ("the machine",)
    return Reason.WAITING_FOR_CAPACITY if capacity else Reason.WAITING_FOR_QUOTA, message, report


def says_more(cluster: Cluster, reason: Reason, message: str, report: Mapping[str, float | None]) -> bool:
    """Whether this is news to who reads the record; some seconds more or less until its start are none."""
    if (cluster.reason, cluster.message) != (reason, message):
        return True
    known, told = cluster.report.get("latest"), report["latest"]
    if known is None or told is None:
        return known is not told
    return abs(float(known) - told) > _NEWS


def _reason_to_end(cluster: Cluster, seen: Observation, periods: Periods) -> End | None:
    if seen.stop is not None:
        return seen.stop
    longest = cluster.plan.timeouts.max
    if seen.pulse is not None and (end := due(seen.pulse, cluster.plan.timeouts)) is not None:
        return end
    if seen.lived is not None and seen.lived > longest + periods.overdue:
        return End(Reason.DEADLINE_REACHED, Sentence.OVERDUE.format(limit=longest))
    return None


def _stopping(cluster: Cluster, seen: Observation, now: float, periods: Periods) -> list[Action]:
    if seen.head is Seen.ALIVE:
        if now - cluster.since <= periods.stop:
            return [StopHead()]
        hung = Sentence.HUNG.format(limit=periods.stop)
        if hung in cluster.message:
            return [KillHead()]
        return [Move(cluster.state, cluster.reason, f"{cluster.message}; {hung}"), KillHead()]
    if seen.head is Seen.UNKNOWN and seen.silent <= periods.silent:
        return []  # not failed: only not known yet
    if _is_left(seen, periods):
        return [EndRemains()]
    end = End(cluster.reason, cluster.message)
    return [Move(end.state, *end, workers=0)]


def _resize(cluster: Cluster, seen: Observation) -> list[Action]:
    """Growing goes through admission; shrinking frees what workers held once they are gone."""
    target, now_has = seen.target, cluster.plan.workers
    grows = target is not None and target > now_has
    if grows and seen.outcome is not None and seen.outcome.verdict is Verdict.ADMIT:
        return [
            *_charges(seen, seen.outcome),
            Move(cluster.state, cluster.reason, cluster.message, workers=target),
        ]
    if target is not None and target < now_has:
        return [Move(cluster.state, cluster.reason, cluster.message, workers=target)]
    over = [scope for scope in seen.charged if seen.charged[scope] != seen.by_plan.get(scope)]
    if over and cluster.workers <= now_has:
        # The record anew first: whoever raises the account at this moment fails then.
        lowered = [Charge(scope, seen.by_plan[scope]) for scope in reversed(Scope) if scope in over]
        return [Move(cluster.state, cluster.reason, cluster.message, workers=now_has), *lowered]
    return []
