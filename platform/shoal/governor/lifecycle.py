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
from dataclasses import dataclass, field
from enum import StrEnum

from shoal.model.cluster import FAILURES, Cluster, Reason, State
from shoal.quota.account import Amounts, Fair
from shoal.quota.admission import Verdict
from shoal.quota.queueing import Outcome, admitted
from shoal.units import Seconds

START_LIMIT = Seconds(300)  # that a head may take to appear
SILENT = Seconds(
    45
)  # without a renewal, after which an unreachable head counts as gone (it ends itself at 30)
DEADLINE_GRACE = Seconds(60)  # past its maximum life a head ends itself; after this it is told to
STOP_LIMIT = Seconds(60)  # that an orderly stop may take before the head is killed

_NEWS = 30.0  # s by which a time that was told must be wrong to be told anew


class Scope(StrEnum):
    """Whose account. In this order they are charged, in the reverse they are freed."""

    PLACE = "place"
    TEAM = "team"
    USER = "user"


class Seen(StrEnum):
    """What is seen of a head. NEVER: none was ever there; GONE: it was, and is not; UNKNOWN: cannot tell."""

    NEVER = "never"
    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Observation:
    """What is seen of one cluster besides its record.

    ``charged``: what each account holds for it. ``by_plan``: what its plan takes of each. ``wants``: the same
    with ``target`` workers. ``remains``: whether anything of it still runs besides the head (None: cannot
    tell). ``silent``: seconds since its head was heard of. ``stop``: that somebody asked for its end.
    ``outcome``: the queue's answer, for one that waits or wants to grow. ``target``: the number of workers
    wanted now.
    """

    head: Seen = Seen.NEVER
    charged: Mapping[Scope, Amounts] = field(default_factory=dict)
    wants: Mapping[Scope, Amounts] = field(default_factory=dict)
    by_plan: Mapping[Scope, Amounts] = field(default_factory=dict)
    remains: bool | None = False
    silent: float = 0.0
    stop: tuple[Reason, str] | None = None
    outcome: Outcome | None = None
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


def step(cluster: Cluster, seen: Observation, now: float) -> list[Action]:
    """What to do next for ``cluster``, in this order; the first that cannot be done ends the round for it."""
    if cluster.state.ended:
        return _after_the_end(seen)
    if cluster.state is State.QUEUED:
        return _in_the_queue(cluster, seen)
    if cluster.state is State.STOPPING:
        return _stopping(cluster, seen, now)
    end = _reason_to_end(cluster, seen, now)
    if end is not None:
        return [Move(State.STOPPING, *end)]
    if seen.head is Seen.NEVER:
        return [StartHead()]
    return _resize(cluster, seen)


def _after_the_end(seen: Observation) -> list[Action]:
    actions: list[Action] = []
    # It ended, so by what was known nothing was left. If something shows up after all, it has no owner.
    if seen.head is Seen.ALIVE:
        actions.append(KillHead())
    if seen.remains:
        actions.append(EndRemains())
    return actions + [Free(scope) for scope in reversed(Scope) if scope in seen.charged]


def _in_the_queue(cluster: Cluster, seen: Observation) -> list[Action]:
    if seen.stop is not None:
        return [Move(State.STOPPED, *seen.stop)]
    outcome = seen.outcome
    if outcome is None:
        return []
    if outcome.verdict is Verdict.REFUSE:
        return [Move(State.REFUSED, Reason.OVER_LIMIT, outcome.message)]
    if outcome.verdict is Verdict.ADMIT:
        move = Move(State.ADMITTED, Reason.ADMITTED, admitted(outcome), outcome.workers, {})
        return [*_charges(seen, outcome), move]
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


def _reason_to_end(cluster: Cluster, seen: Observation, now: float) -> tuple[Reason, str] | None:
    if seen.stop is not None:
        return seen.stop
    admitted = cluster.admitted_at if cluster.admitted_at is not None else cluster.since
    if seen.head is Seen.GONE:
        return Reason.HEAD_CRASHED, "the head process exited unexpectedly"
    if seen.head is Seen.UNKNOWN and seen.silent > SILENT:
        return Reason.HEAD_LOST, f"no heartbeat from the head for {SILENT}"
    if seen.head is Seen.NEVER and now - admitted > START_LIMIT:
        return Reason.START_FAILED, f"no head appeared within {START_LIMIT}"
    longest = cluster.plan.timeouts.max
    if now - admitted > longest + DEADLINE_GRACE:
        return Reason.DEADLINE_REACHED, f"it reached its maximum lifetime ({longest})"
    return None


def _stopping(cluster: Cluster, seen: Observation, now: float) -> list[Action]:
    if seen.head is Seen.ALIVE:
        return [KillHead() if now - cluster.since > STOP_LIMIT else StopHead()]
    if seen.head is Seen.UNKNOWN and seen.silent <= SILENT:
        return []  # not failed: only not known yet
    if seen.remains:
        return [EndRemains()]
    if seen.remains is None and seen.silent <= SILENT:
        return []
    failed = cluster.reason in FAILURES
    return [Move(State.FAILED if failed else State.STOPPED, cluster.reason, cluster.message, workers=0)]


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
