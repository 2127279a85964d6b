"""The life of one cluster, as a pure function: what is recorded and what is seen -> what to do next.

Why it exists: governors crash between any two steps, replies get lost, two governors work at once. So each
step is worked out again from what stands written and what is seen, is safe to do twice, and is done only if
nobody wrote in between. What is unknown is not failed.

The order of writes keeps three promises at every moment, whoever dies in between:
 - a cluster counts in every account before it is Admitted, and until nothing of it is left;
 - an account is lowered for a cluster only when that cluster has ended, or after its record was written again,
   so that whoever is just raising it fails instead;
 - nothing is started for a cluster that is not Admitted.

What it must not do: do I/O, or read a clock (``now`` is the store's). What decides on quota is imported where it is
asked: a head has this module from its start.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

from shoal.governor.actions import (
    Action,
    Charge,
    EndRemains,
    Free,
    KillHead,
    Move,
    Observation,
    Scope,
    Seen,
    StartHead,
    StartScript,
    StopHead,
)
from shoal.governor.ends import PHASES, End, Phase, Sentence, due
from shoal.governor.periods import Periods
from shoal.model.cluster import EXIT_CODE, Cluster, EndNotice, Reason, State, script_end

_NEWS = 30.0  # s by which an end that was told must be wrong to be told again


def step(cluster: Cluster, seen: Observation, now: float, periods: Periods) -> list[Action]:
    """What to do next for ``cluster``, in this order; the first that cannot be done ends the round for it."""
    if cluster.state.ended:
        return _after_the_end(seen)
    if (end := _without_a_head(cluster, seen, now, periods)) is not None:
        return _over(cluster, end, seen, periods)
    if cluster.state is State.QUEUED:
        from shoal.governor.waiting import in_the_queue

        return in_the_queue(cluster, seen, now)
    if cluster.state is State.STOPPING:
        return _stopping(cluster, seen, now, periods)
    if (end := _reason_to_end(cluster, seen, now, periods)) is not None:
        return [Move(State.STOPPING, *end)]
    if seen.exit is not None:
        end = End(Reason.STOPPED_BY_USER, script_end(*seen.exit))
        return [Move(State.STOPPING, *end, exit_code=seen.exit.code)]
    if seen.pulse is not None and (phase := seen.pulse.phase) is not None and _is_news(cluster, phase):
        return [Move(*phase)]
    if (notice := _told(cluster, seen, now)) is not None:
        return [Move(cluster.state, cluster.reason, cluster.message, notice=notice)]
    if Scope.QUOTA in seen.by_plan and Scope.QUOTA not in seen.charged:
        # Somebody emptied or deleted it, or it is new: until it counts what runs, nothing of that is taken any more.
        return [Charge(Scope.QUOTA, seen.by_plan[Scope.QUOTA])]
    start: list[Action] = [StartHead()] if seen.head is Seen.NEVER else []
    if cluster.state is State.READY and seen.script is Seen.NEVER:
        start.append(StartScript())
    return [*start, *_resize(cluster, seen)]


def moved(cluster: Cluster, move: Move, team: str | None, now: float) -> Cluster:
    """The record as ``move`` has it; ``team``: whose account it counts in besides its owner's, once admitted."""
    is_news = (move.state, move.reason, move.message) != (cluster.state, cluster.reason, cluster.message)
    # Who waits or stops does so since it began to, whatever else is told of it.
    goes_on = move.state is cluster.state and move.state in (State.QUEUED, State.STOPPING)
    more: dict[str, Any] = {} if move.report is None else {"report": dict(move.report)}
    if move.exit_code is not None:
        more["report"] = {**more.get("report", cluster.report), EXIT_CODE: move.exit_code}
    if move.notice is not None:
        more["notice"] = move.notice
    if is_news and not goes_on:
        more["since"] = now
    if move.state is State.READY and cluster.ready_at is None:
        more["ready_at"] = now
    if move.state is State.ADMITTED and cluster.state is State.QUEUED:
        more |= {"admitted_at": now, "team": team}
    if move.state.ended:
        more |= {"ended_at": now, "workers": 0}
    elif move.workers is not None:
        from shoal.quota.admission import with_workers

        more["plan"] = with_workers(cluster.plan, move.workers, move.group)
        if cluster.state.admitted:
            from shoal.quota.budgets import accrued

            more["accrued"] = accrued(cluster, now)
    return replace(cluster, state=move.state, reason=move.reason, message=move.message, **more)


def _after_the_end(seen: Observation) -> list[Action]:
    actions: list[Action] = []
    # It ended, so by what was known nothing was left. If something shows up after all, it has no owner.
    if seen.head is Seen.ALIVE:
        actions.append(KillHead())
    if seen.remains:
        actions.append(EndRemains())
    return actions or _freed(seen)


def _freed(seen: Observation) -> list[Action]:
    return [Free(scope) for scope in reversed(Scope) if scope in seen.charged]


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
            headless = Sentence.HEADLESS.format(limit=periods.headless)
            refused = cluster.reason in PHASES.get(cluster.state, ())
            return End(Reason.START_FAILED, f"{headless}: {cluster.message}" if refused else headless)
    return None


def _over(cluster: Cluster, end: End, seen: Observation, periods: Periods) -> list[Action]:
    """To its end: at once where nothing of it is left, else by way of Stopping, for as long as it counts."""
    if cluster.state.admitted and _is_left(seen, periods):
        return [Move(State.STOPPING, *end)]
    return [Move(end.state, *end, workers=0), *_freed(seen)]


def _is_left(seen: Observation, periods: Periods) -> bool:
    """Whether something may run of a cluster whose head does not; what cannot be told counts for a while."""
    return bool(seen.remains) or (seen.remains is None and seen.silent <= periods.silent)


def _reason_to_end(cluster: Cluster, seen: Observation, now: float, periods: Periods) -> End | None:
    if seen.stop is not None:
        return seen.stop
    longest = cluster.plan.timeouts.max
    if seen.pulse is not None and (end := due(seen.pulse, cluster.plan.timeouts)) is not None:
        return end
    if seen.lived is not None and seen.lived > longest + periods.overdue:
        return End(Reason.DEADLINE_REACHED, Sentence.OVERDUE.format(limit=longest))
    its, told = seen.used_up, cluster.notice
    # Whenever the budget was used up: not before it was told for long enough.
    if its is not None and told.at is not None and now >= max(its.at, told.since + its.grace):
        return End(Reason.BUDGET_SPENT, its.message)
    return None


def _told(cluster: Cluster, seen: Observation, now: float) -> EndNotice | None:
    """What its owner is told of its end, where that is news: that it is near, at another time, or not near any more."""
    its, known = seen.used_up, cluster.notice
    if its is None:
        return None
    if its.at == inf:
        return EndNotice() if known.at is not None else None
    since = now if known.at is None else known.since
    at = max(its.at, since + its.grace)
    if known.at is not None and abs(at - known.at) <= _NEWS:
        return None
    return EndNotice(at, since, Reason.BUDGET_SPENT, its.message)


def _is_news(cluster: Cluster, phase: Phase) -> bool:
    """Whether its head tells of a phase that is not recorded yet; none goes back from Ready."""
    if phase == (cluster.state, cluster.reason, cluster.message):
        return False
    return phase.reason in PHASES.get(phase.state, ()) and not (
        cluster.state is State.READY and phase.state is not State.READY
    )


def _stopping(cluster: Cluster, seen: Observation, now: float, periods: Periods) -> list[Action]:
    if (refused := seen.refused[:400]) and refused not in cluster.message:
        return [Move(cluster.state, cluster.reason, f"{cluster.message[:500]}; {refused}")]
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
    return [Move(end.state, *end, workers=0), *_freed(seen)]


def _resize(cluster: Cluster, seen: Observation) -> list[Action]:
    """Growing goes through admission; shrinking frees what workers held once they are gone."""
    target, group = seen.target, seen.group
    now_has = cluster.plan.group(group).count
    if target is not None and target > now_has and seen.outcome is not None:
        from shoal.governor.waiting import charges
        from shoal.quota.admission import Verdict

        if seen.outcome.verdict is Verdict.ADMIT:
            grown = Move(cluster.state, cluster.reason, cluster.message, workers=target, group=group)
            return [*charges(seen, seen.outcome), grown]
    if target is not None and target < now_has:
        return [Move(cluster.state, cluster.reason, cluster.message, workers=target, group=group)]
    over = [scope for scope in seen.charged if seen.charged[scope] != seen.by_plan.get(scope)]
    if over and cluster.workers <= cluster.plan.workers:
        # The record again first: whoever raises the account at this moment fails then.
        lowered = [Charge(scope, seen.by_plan[scope]) for scope in reversed(Scope) if scope in over]
        kept = Move(cluster.state, cluster.reason, cluster.message, workers=now_has, group=group)
        return [kept, *lowered]
    return []
