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

from shoal.governor.actions import (
    Action,
    EndRemains,
    KillHead,
    Scope,
    Seen,
    StopHead,
)
from shoal.governor.ends import End
from shoal.governor.ports import Sight
from shoal.homes.base import Request, requested
from shoal.homes.local.sight import LocalSight, Look, look
from shoal.homes.local.steps import Stepped, holds, live_on, news
from shoal.homes.local.tidy import Deed, Found
from shoal.homes.local.transaction import Transaction
from shoal.model.cluster import Cluster, Reason, State
from shoal.project.loading import Project, look_up
from shoal.quota import admission
from shoal.quota.account import Account, Amounts, amounts, real
from shoal.quota.admission import Capacity, Decision, Verdict, with_workers
from shoal.quota.budgets import Purse, Spending, month_of
from shoal.quota.queueing import Books, TurnResult, Waiting, admit, explain
from shoal.quota.used_up import UsedUp, used_up

_DEEDS: dict[type[Action], Deed] = {StopHead: Deed.TELL, KillHead: Deed.KILL, EndRemains: Deed.END}


@dataclass(frozen=True)
class Governing:
    """The decisions of one project's policy over a ledger that several projects may share.

    ``look`` is how the clusters' processes are seen.
    """

    project: Project
    look: Look = look

    def settle(self, tx: Transaction, gone: frozenset[str] = frozenset()) -> list[Found]:
        """Note what is gone, late or hung, then let the queue move; returns what is left to do for whom.

        ``gone``: clusters of which nothing is left (see ``tidy.follow``).
        """
        found, live = [], tx.live()
        used_up = self._used_up(tx, live)
        for cluster in live:
            sight = self._sight(tx, cluster)
            if cluster.id in gone:
                sight = replace(sight, remains=False)
            done = live_on(tx, cluster, sight, last=_last(tx, sight), used_up=used_up.get(cluster.id))
            if done.cluster.state.ended:
                if cluster.id not in gone and not sight.owner:
                    found.append(Found(cluster, Deed.TIDY))
                continue
            for action in done.outside:
                # It is told when its end is written; where it misses that, it reads it there.
                if type(action) in _DEEDS and (done.changed or not isinstance(action, StopHead)):
                    found.append(Found(done.cluster, _DEEDS[type(action)]))
        self.move_queue(tx)
        return found

    def needs_a_look(self, tx: Transaction, *clusters: Cluster) -> bool:
        """Whether :meth:`settle` would change one of these, were it run now."""
        live = [cluster for cluster in clusters if not cluster.state.ended]
        used_up = self._used_up(tx, live)
        return any(news(its, self._sight(tx, its), tx.now, used_up=used_up.get(its.id)) for its in live)

    def hold_to_budget(self, tx: Transaction, cluster: Cluster) -> None:
        """Tell a cluster that runs that a budget of it is nearly used up, or to end once it is."""
        live_on(tx, cluster, Sight(Seen.ALIVE), used_up=self._used_up(tx, [cluster]).get(cluster.id))

    def _sight(self, tx: Transaction, cluster: Cluster) -> LocalSight:
        if cluster.id not in tx.sights:
            tx.sights[cluster.id] = self.look(cluster, tx.now, tx.ledger_path)
        found: LocalSight = tx.sights[cluster.id]
        return found

    def stop(self, tx: Transaction, cluster: Cluster, end: End) -> Cluster:
        """Somebody asks for its end: it is Stopping from now on, or Stopped where it waited."""
        return live_on(tx, cluster, self._sight(tx, cluster), stop=end).cluster

    def move_queue(self, tx: Transaction) -> None:
        """One pass over everybody of this project who waits."""
        live = tx.live()
        queued = [c for c in live if c.state is State.QUEUED and c.project == str(self.project.folder)]
        if not queued or self.project.policy.faults:
            return  # by half a policy nobody is let in or refused
        by_id = {cluster.id: cluster for cluster in queued}
        books = self._books(tx, live, {c.owner for c in queued})
        for outcome in admit(
            [Waiting.of(c) for c in queued], books, self.project.policy, self.capacity(live), tx.now
        ):
            self._answer(tx, by_id[outcome.claim.cluster], outcome)

    def _answer(
        self, tx: Transaction, cluster: Cluster, outcome: TurnResult, decision: Decision | None = None
    ) -> Stepped:
        """Let one that waits go on by the queue's answer. With ``decision`` it is new, and not written yet."""
        team = None
        if outcome.verdict is Verdict.ADMIT:
            team = self.project.policy.limits_of(cluster.owner).team
        plan = cluster.plan if outcome.workers is None else with_workers(cluster.plan, outcome.workers)
        wants = holds(plan, team)
        return live_on(
            tx,
            cluster,
            Sight(Seen.NONE),
            team=team,
            stored=decision is None,
            wants=wants,
            outcome=outcome,
            decision=decision,
        )

    def request(self, tx: Transaction, request: Request) -> tuple[Cluster, Decision]:
        """The record of a new request: admitted, queued (if it may wait) or refused, with the decision.

        Run :meth:`settle` first, in the same transaction.
        """
        team = self.project.policy.limits_of(request.owner).team
        cluster = requested(
            request, request.id or secrets.token_hex(6), team, tx.now, str(self.project.folder)
        )
        decision, outcome = self._decide(tx, cluster, Waiting.of(cluster))
        cluster = self._answer(tx, cluster, outcome, decision).cluster
        tx.insert(cluster)
        return cluster, decision

    def resize(self, tx: Transaction, cluster: Cluster, workers: int, group: str = "") -> Decision:
        """Whether ``cluster`` may have this many workers in a group now; if so, its record and accounts say it has.

        Fewer it may always have, also where a policy has since taken away what it holds.
        """
        larger = replace(cluster, plan=with_workers(cluster.plan, workers, group))
        decision, outcome = Decision(Verdict.ADMIT, Reason.ADMITTED, "fewer than it has"), None
        if workers > cluster.plan.group(group).count:
            priority = cluster.workload.priority
            asking = admission.Claim(cluster.id, cluster.name, larger.plan, priority, group)
            waiting = Waiting(asking, cluster.owner, cluster.created, priority)
            decision, outcome = self._decide(tx, larger, waiting)
        if decision.verdict is not Verdict.ADMIT:
            return decision
        if cluster.state is State.QUEUED:  # it asks for another size, and goes on waiting
            tx.update(cluster.id, plan=larger.plan)
            return decision
        wants, sight = holds(larger.plan, cluster.team), self._sight(tx, cluster)
        live_on(tx, cluster, sight, wants=wants, outcome=outcome, target=workers, group=group)
        return decision

    def would(self, tx: Transaction, request: Request) -> Decision:
        """What :meth:`request` would decide now; changes nothing."""
        same = [c for c in tx.named(request.name, request.owner) if not c.state.ended]
        team = self.project.policy.limits_of(request.owner).team
        asked = requested(request, same[-1].id if same else "", team, tx.now)
        # A request has what is over ended before it is decided; here nothing may be changed.
        live = [c for c in tx.live() if c.id == asked.id or not self._is_over(tx, c)]
        return self._decide(tx, asked, Waiting.of(asked), live)[0]

    def capacity(self, live: Iterable[Cluster]) -> Capacity | None:
        """What the machine holds, and what really runs there; None where the target does not say."""
        machine = self.project.target.machine
        if machine is None:
            return None
        running = [cluster for cluster in live if cluster.state.admitted]
        until = {cluster.id: _until(cluster) for cluster in running}
        return Capacity(look_up(machine), Account({c.id: real(c.plan) for c in running}, until))

    def _decide(
        self, tx: Transaction, asked: Cluster, asking: Waiting, live: list[Cluster] | None = None
    ) -> tuple[Decision, TurnResult]:
        """The decision on one request, as if it joined the queue now, beside ``live`` (default: all that counts)."""
        live = tx.live() if live is None else live
        queued = [
            c
            for c in live
            if c.state is State.QUEUED and c.project == str(self.project.folder) and c.id != asked.id
        ]
        books = self._books(tx, live, {c.owner for c in queued} | {asked.owner})
        capacity = self.capacity(live)
        queue = [*map(Waiting.of, queued), asking]
        outcomes = admit(queue, books, self.project.policy, capacity, tx.now)
        outcome = next(each for each in outcomes if each.claim.cluster == asked.id)
        limits = self.project.policy.limits_of(asked.owner)
        if outcome.verdict is Verdict.ADMIT:
            return explain(outcome, limits, books), outcome
        names = {cluster.id: cluster.name for cluster in live}
        idle = {c.id: c.usage.idle for c in live}
        return explain(outcome, limits, books, capacity, names, idle), outcome

    def _is_over(self, tx: Transaction, cluster: Cluster) -> bool:
        """Whether a look would note that its head is not there any more."""
        sight = self._sight(tx, cluster)
        return sight.head is not Seen.ALIVE and news(cluster, sight, tx.now)

    def _books(self, tx: Transaction, live: list[Cluster], owners: set[str]) -> Books:
        owners = owners | {cluster.owner for cluster in live}
        teams = {self.project.policy.limits_of(owner).team for owner in owners} | {c.team for c in live}
        return Books(
            {owner: _account(tx, (Scope.USER, owner), live) for owner in owners},
            {team: _account(tx, (Scope.TEAM, team), live) for team in teams if team is not None},
            self._spending(tx, live),
        )

    def purses(self, tx: Transaction, owner: str) -> tuple[Purse, ...]:
        """The budgets that the owner's requests are held against, as they stand now."""
        return self._spending(tx, tx.live()).purses(self.project.policy.limits_of(owner))

    def _used_up(self, tx: Transaction, clusters: list[Cluster]) -> dict[str, UsedUp]:
        """By cluster, of those that this project admitted."""
        theirs = [its for its in clusters if its.project == str(self.project.folder)]
        if not theirs or not self.project.policy.stops:
            return {}
        spending = self._spending(tx, tx.live())
        known = ((its.id, used_up(its, self.project.policy, spending)) for its in theirs)
        return {cluster: its for cluster, its in known if its is not None}

    def _spending(self, tx: Transaction, live: list[Cluster]) -> Spending:
        """What the live clusters take, and those that ended this month; nothing is read where there is no budget."""
        if not self.project.policy.budgets():
            return Spending(tx.now)
        return Spending.of([*tx.ended_since(month_of(tx.now).begin), *live], tx.now)


def _last(tx: Transaction, sight: LocalSight) -> dict[str, object]:
    """What is noted of an end besides its reason: its head's own report and time, where it left them."""
    if sight.report is None:
        return {}
    return {"report": dict(sight.report)} | (
        {} if sight.ended_at is None else {"ended_at": min(sight.ended_at, tx.now)}
    )


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
