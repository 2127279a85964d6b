"""What the local home decides, inside one transaction of its ledger: who is gone, who starts, who may grow.

Why it exists: every request, every waiter and every release runs the same pass over the whole queue, so
nobody has to be looking for it to move; and one transaction at a time means no two passes overlap.

What it must not do: work out verdicts (the pure core does), or start and end processes (the home does, after
the transaction).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from shoal.governor.lifecycle import DEADLINE_GRACE, STOP_LIMIT, Scope, says_more, waits
from shoal.homes.base import Ask, requested
from shoal.homes.local.lease import SILENT
from shoal.homes.local.rebuild import last_words
from shoal.homes.local.tidy import Deed, Found
from shoal.homes.local.transaction import Transaction
from shoal.machine.processes import is_alive, of_another, since
from shoal.model.cluster import FAILURES, Cluster, Reason, State
from shoal.project.loading import Project, look_up
from shoal.quota import admission
from shoal.quota.account import Account, Amounts, amounts, real
from shoal.quota.admission import Decision, Place, Verdict, with_workers
from shoal.quota.queueing import Books, Outcome, Waiting, admit, admitted, explain
from shoal.units import Seconds

HEADLESS = 30.0  # s that a cluster may be without a head before its quota is free again
_IDLE_WORTH_SAYING = 60.0  # s


@dataclass(frozen=True)
class Governing:
    """The decisions of one project's policy over a ledger that several projects may share."""

    project: Project

    def settle(self, tx: Transaction) -> list[Found]:
        """Note what is gone, late or hung, then let the queue move; returns what is left to do for whom."""
        found = []
        for cluster in tx.live():
            if (end := _gone(tx, cluster)) is not None:
                self._note_end(tx, cluster, *end)
                copy = of_another(cluster.head, tx.place)
                found.append(Found(cluster, Deed.LEAVE if copy else Deed.TIDY))
            elif is_late(cluster):
                message = f"it reached its maximum lifetime of {cluster.plan.timeouts.max}, and its head did not end it"
                reason = Reason.DEADLINE_REACHED
                tx.update(cluster.id, stop_reason=reason.value, stop_message=message)
                tx.move(cluster.id, State.STOPPING, reason, message)
                found.append(Found(cluster, Deed.TELL))
            elif is_hung(cluster, tx.now):
                said = f"its head did not end within {STOP_LIMIT} and was killed"
                if said not in cluster.message:
                    message = f"{cluster.message}; {said}"
                    tx.move(cluster.id, State.STOPPING, cluster.reason, message, since=cluster.since)
                found.append(Found(cluster, Deed.KILL))
        self.move_queue(tx)
        return found

    def _note_end(
        self, tx: Transaction, cluster: Cluster, state: State, reason: Reason, message: str
    ) -> None:
        """As the head itself would have: with its own report and time, where it left them."""
        words = last_words(cluster.id) if not of_another(cluster.head, tx.place) else None
        if words is not None:
            tx.update(cluster.id, report=words.report)
        self.end(tx, cluster, state, reason, message, words.ended_at if words is not None else None)

    def end(
        self,
        tx: Transaction,
        cluster: Cluster,
        state: State,
        reason: Reason,
        message: str,
        at: float | None = None,
    ) -> bool:
        """Write a cluster's end, and what its owner and team held until now. False: it had ended before.

        ``at``: when it was, if not just now.
        """
        keys = _keys(cluster.owner, cluster.team)
        before = {key: _account(tx, key, tx.live()) for key in keys} if cluster.state.admitted else {}
        more = {} if at is None else {"ended_at": min(at, tx.now)}
        if not tx.move(cluster.id, state, reason, message, workers=0, **more):
            return False
        for key, account in before.items():
            tx.keep_history(key, account.without(cluster.id, tx.now))
        return True

    def move_queue(self, tx: Transaction) -> None:
        """One pass over everybody of this project who waits."""
        live = tx.live()
        queued = [c for c in live if c.state is State.QUEUED and c.project == str(self.project.folder)]
        if not queued:
            return
        by_id = {cluster.id: cluster for cluster in queued}
        books = self._books(tx, live, {c.owner for c in queued})
        for outcome in admit(
            [Waiting.of(c) for c in queued], books, self.project.policy, self.place(live), tx.now
        ):
            self._follow(tx, by_id[outcome.ask.cluster], outcome)

    def request(self, tx: Transaction, ask: Ask) -> tuple[Cluster, Decision]:
        """The record of a new request: admitted, queued (if it may wait) or refused, with the decision.

        Run :meth:`settle` first, in the same transaction.
        """
        team = self.project.policy.limits_of(ask.owner).team
        cluster = requested(ask, ask.id or secrets.token_hex(6), team, tx.now, str(self.project.folder))
        decision, outcome = self._decide(tx, cluster, Waiting.of(cluster))
        if decision.verdict is Verdict.ADMIT:
            cluster = _with(cluster, outcome)
            self._charge(tx, cluster, outcome)
            cluster = replace(
                cluster,
                state=State.ADMITTED,
                reason=Reason.ADMITTED,
                message=admitted(outcome),
                admitted_at=tx.now,
            )
        elif decision.verdict is Verdict.WAIT and ask.workload.queue:
            reason, message, report = waits(outcome)
            cluster = replace(cluster, reason=reason, message=message, report=report)
        else:
            cluster = replace(
                cluster,
                state=State.REFUSED,
                reason=decision.reason,
                message=decision.message,
                ended_at=tx.now,
            )
        tx.insert(cluster)
        return cluster, decision

    def resize(self, tx: Transaction, cluster: Cluster, workers: int) -> Decision:
        """Whether ``cluster`` may have this many workers now; if so, its record and accounts say it has.

        Fewer it may always have, also where a policy has since taken away what it holds.
        """
        plan = with_workers(cluster.plan, workers)
        if workers <= cluster.plan.workers:
            for key in _keys(cluster.owner, cluster.team):
                account = _account(tx, key, tx.live())
                tx.keep_history(key, account.with_(cluster.id, amounts(plan), None, tx.now))
            tx.update(cluster.id, plan=plan.to_json())
            return Decision(Verdict.ADMIT, Reason.ADMITTED, "fewer than it has")
        larger = replace(cluster, plan=plan)
        asking = admission.Ask(cluster.id, cluster.name, plan, cluster.workload.priority)
        waiting = Waiting(asking, cluster.owner, cluster.created, cluster.workload.priority)
        decision, outcome = self._decide(tx, larger, waiting)
        if decision.verdict is Verdict.ADMIT:
            self._charge(tx, larger, outcome)
            tx.update(cluster.id, plan=plan.to_json())
        return decision

    def would(self, tx: Transaction, ask: Ask) -> Decision:
        """What :meth:`request` would decide now; changes nothing."""
        same = [c for c in tx.named(ask.name, ask.owner) if not c.state.ended]
        team = self.project.policy.limits_of(ask.owner).team
        asked = requested(ask, same[-1].id if same else "", team, tx.now)
        return self._decide(tx, asked, Waiting.of(asked))[0]

    def place(self, live: Iterable[Cluster]) -> Place | None:
        """What the machine holds, and what really runs there; None where the target does not say."""
        machine = self.project.target.machine
        if machine is None:
            return None
        running = [cluster for cluster in live if cluster.state.admitted]
        until = {cluster.id: _until(cluster) for cluster in running}
        return Place(look_up(machine), Account({c.id: real(c.plan) for c in running}, until))

    def _decide(self, tx: Transaction, asked: Cluster, asking: Waiting) -> tuple[Decision, Outcome]:
        """The decision on one request, as if it joined the queue now."""
        live = [c for c in tx.live() if c.id == asked.id or _gone(tx, c) is None]
        queued = [
            c
            for c in live
            if c.state is State.QUEUED and c.project == str(self.project.folder) and c.id != asked.id
        ]
        books = self._books(tx, live, {c.owner for c in queued} | {asked.owner})
        place = self.place(live)
        queue = [*map(Waiting.of, queued), asking]
        outcomes = admit(queue, books, self.project.policy, place, tx.now)
        outcome = next(each for each in outcomes if each.ask.cluster == asked.id)
        names = {cluster.id: cluster.name for cluster in live}
        notes = {c.id: _note(c) for c in live if _note(c)}
        limits = self.project.policy.limits_of(asked.owner)
        return explain(outcome, limits, books, place, names, notes), outcome

    def _follow(self, tx: Transaction, cluster: Cluster, outcome: Outcome) -> None:
        if outcome.verdict is Verdict.ADMIT:
            cluster = _with(cluster, outcome)
            self._charge(tx, cluster, outcome)
            message = f"{admitted(outcome)}, after {Seconds(max(0.0, tx.now - cluster.created))} in the queue"
            more = {"admitted_at": tx.now, "report": {}, "plan": cluster.plan.to_json()}
            tx.move(cluster.id, State.ADMITTED, Reason.ADMITTED, message, **more)
        elif outcome.verdict is Verdict.REFUSE:
            tx.move(cluster.id, State.REFUSED, Reason.OVER_LIMIT, outcome.message)
        else:
            reason, message, report = waits(outcome)
            if says_more(cluster, reason, message, report):
                tx.update(cluster.id, reason=reason.value, message=message, report=report)

    def _charge(self, tx: Transaction, cluster: Cluster, outcome: Outcome) -> None:
        live = tx.live()
        fair = {Scope.USER: outcome.user, Scope.TEAM: outcome.team}
        for key in _keys(cluster.owner, cluster.team):
            account = _account(tx, key, live)
            its = amounts(cluster.plan)
            tx.keep_history(key, account.with_(cluster.id, its, None, tx.now, fair[key[0]]))

    def _books(self, tx: Transaction, live: list[Cluster], owners: set[str]) -> Books:
        owners = owners | {cluster.owner for cluster in live}
        teams = {self.project.policy.limits_of(owner).team for owner in owners} | {c.team for c in live}
        return Books(
            {owner: _account(tx, (Scope.USER, owner), live) for owner in owners},
            {team: _account(tx, (Scope.TEAM, team), live) for team in teams if team is not None},
        )


def _gone(tx: Transaction, cluster: Cluster) -> tuple[State, Reason, str] | None:
    if cluster.id not in tx.gone:
        tx.gone[cluster.id] = why_gone(cluster, tx.now, tx.place)
    found: tuple[State, Reason, str] | None = tx.gone[cluster.id]
    return found


def why_gone(cluster: Cluster, now: float, place: str = "") -> tuple[State, Reason, str] | None:
    """Why a live cluster is not there any more; None while it is, or while that is unknown.

    ``place``: of the ledger that it is read from, see ``Transaction``.
    """
    if cluster.state.ended:
        return None
    if not cluster.head:
        # Either way: after a clock that went back, none could appear to be late.
        if abs(now - (cluster.admitted_at or cluster.created)) < HEADLESS:
            return None
        return State.FAILED, Reason.START_FAILED, f"no head appeared within {HEADLESS:.0f} s"
    alive = is_alive(cluster.head)
    if alive and (theirs := of_another(cluster.head, place)):
        copy = f"this ledger is a copy: the head (pid {cluster.head['pid']}) belongs to {theirs}, and is left alone"
        return State.FAILED, Reason.HEAD_LOST, copy
    if alive or (alive is None and now - (cluster.renewed_at or cluster.created) < SILENT):
        return None
    if cluster.state is State.STOPPING:
        failed = cluster.reason in FAILURES
        return State.FAILED if failed else State.STOPPED, cluster.reason, cluster.message
    if alive is False and (words := last_words(cluster.id)) is not None:
        return words.state, words.reason, words.message
    if alive is None:
        return State.FAILED, Reason.HEAD_LOST, f"no heartbeat from the head for {SILENT:.0f} s"
    return (
        State.FAILED,
        Reason.HEAD_CRASHED,
        f"the head process (pid {cluster.head['pid']}) exited unexpectedly; `shoal logs {cluster.name}`",
    )


def is_late(cluster: Cluster) -> bool:
    """Whether its head lives on this machine and has not ended it a while after its maximum lifetime."""
    if not cluster.state.admitted or cluster.state is State.STOPPING:
        return False
    lived = since(cluster.head, cluster.head.get("since"))
    return lived is not None and lived > cluster.plan.timeouts.max + DEADLINE_GRACE


def is_hung(cluster: Cluster, now: float) -> bool:
    """Whether its head lives on this machine and has not ended long after it was told to."""
    stopping = cluster.state is State.STOPPING and now - cluster.since > STOP_LIMIT
    return stopping and bool(is_alive(cluster.head))


def needs_a_look(cluster: Cluster, now: float, place: str) -> bool:
    """Whether :meth:`Governing.settle` would change it, were it run now."""
    return why_gone(cluster, now, place) is not None or is_late(cluster) or is_hung(cluster, now)


def _with(cluster: Cluster, outcome: Outcome) -> Cluster:
    """The cluster with as many workers as it is admitted with."""
    if outcome.workers is None:
        return cluster
    return replace(cluster, plan=with_workers(cluster.plan, outcome.workers))


def _keys(owner: str, team: str | None) -> list[tuple[Scope, str]]:
    return [(Scope.USER, owner), *([(Scope.TEAM, team)] if team is not None else [])]


def _account(tx: Transaction, key: tuple[Scope, str], live: Iterable[Cluster]) -> Account:
    """What is admitted now comes from the live clusters themselves; only the past is kept apart."""
    scope, name = key
    theirs = [
        cluster
        for cluster in live
        if cluster.state.admitted and (cluster.owner if scope is Scope.USER else cluster.team) == name
    ]
    held: Mapping[str, Amounts] = {cluster.id: amounts(cluster.plan) for cluster in theirs}
    return replace(
        tx.history_of(key), admitted=held, until={cluster.id: _until(cluster) for cluster in theirs}
    )


def _until(cluster: Cluster) -> float:
    return (cluster.admitted_at or cluster.created) + cluster.plan.timeouts.max


def _note(cluster: Cluster) -> str:
    idle = float(cluster.report.get("idle", 0.0))
    return f"idle {Seconds(idle)}" if idle >= _IDLE_WORTH_SAYING else ""
