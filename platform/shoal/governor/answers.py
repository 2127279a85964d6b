"""What whoever asks is told, of a snapshot: whether a request would start now, and why one did not.

Why it exists: a request is told in one sentence with its reasons, and most homes only see records change.

What it must not do: change anything, or read more than the snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal.governor.actions import Scope
from shoal.governor.ports import AccountKey, Snapshot
from shoal.model.cluster import Cluster, Reason, State
from shoal.project.policy import Policy
from shoal.quota.account import Account
from shoal.quota.admission import Capacity, Claim, Decision, Verdict, decide, with_workers
from shoal.quota.budgets import Spending
from shoal.quota.queueing import Books, TurnResult, Waiting, admit, explain


def would(snapshot: Snapshot, policy: Policy, asked: Cluster) -> Decision:
    """What admission would decide now of ``asked``, as if it joined the queue; a live one's own share is free."""
    queue = [
        Waiting.of(cluster)
        for cluster, _ in snapshot.clusters.values()
        if cluster.state is State.QUEUED and cluster.id != asked.id
    ]
    books, capacity = _books(snapshot), _capacity(snapshot)
    outcomes = admit([*queue, Waiting.of(asked)], books, policy, capacity, snapshot.now)
    outcome = next(each for each in outcomes if each.claim.cluster == asked.id)
    return explain(outcome, policy.limits_of(asked.owner), books, capacity, _names(snapshot))


def why_not(snapshot: Snapshot, policy: Policy, cluster: Cluster) -> Decision:
    """Why ``cluster`` waits or was refused, with who holds what it needs, and the ways on."""
    outcome = TurnResult(
        Claim(cluster.id, cluster.name, cluster.plan, cluster.workload.priority), Verdict.WAIT, 1
    )
    if cluster.reason is Reason.OVER_LIMIT:
        outcome = TurnResult(outcome.claim, Verdict.REFUSE, message=cluster.message)
    limits = policy.limits_of(cluster.owner)
    return explain(outcome, limits, _books(snapshot), _capacity(snapshot), _names(snapshot))


def grown(snapshot: Snapshot, policy: Policy, cluster: Cluster, workers: int, group: str = "") -> Decision:
    """What admission says of a live cluster with ``workers`` in a group, instead of those that it has; the queue
    aside.
    """
    plan = with_workers(cluster.plan, workers, group)
    claim = Claim(cluster.id, cluster.name, plan, cluster.workload.priority, group)
    limits, books = policy.limits_of(cluster.owner), _books(snapshot)
    user = books.users.get(limits.user, Account())
    team = books.teams.get(limits.team, Account()) if limits.team is not None else None
    purses = () if snapshot.spending is None else snapshot.spending.purses(limits)
    return decide(claim, limits, user, team, _capacity(snapshot), _names(snapshot), purses=purses)


def books_of(accounts: Mapping[AccountKey, tuple[Account, int]], spending: Spending | None) -> Books:
    """What admission looks at, of accounts with their versions."""
    by_scope: dict[Scope, dict[str, Account]] = {scope: {} for scope in Scope}
    for (scope, name), (account, _) in accounts.items():
        by_scope[scope][name] = account
    return Books(by_scope[Scope.USER], by_scope[Scope.TEAM], spending)


def _books(snapshot: Snapshot) -> Books:
    return books_of(snapshot.accounts, snapshot.spending)


def _capacity(snapshot: Snapshot) -> Capacity | None:
    if snapshot.machine is None:
        return None
    return Capacity(snapshot.machine, snapshot.accounts.get((Scope.PLACE, ""), (Account(), 0))[0])


def _names(snapshot: Snapshot) -> dict[str, str]:
    return {key: cluster.name for key, (cluster, _) in snapshot.clusters.items()}
