"""Does inside one transaction of the ledger what a cluster's life says (``governor.lifecycle``).

Why it exists: where every write stands alone a governor does one step at a time; here all steps that follow from one
look are one transaction, so nobody sees anything in between. What has to be done to processes is left for after it.

What it must not do: decide, or touch a process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from shoal.governor.actions import Action, Charge, Free, Move, Observation, Scope, Seen, StartHead, StopHead
from shoal.governor.ends import End, Pulse
from shoal.governor.lifecycle import moved, step
from shoal.governor.ports import Sight
from shoal.homes.local import periods, schema
from shoal.homes.local.transaction import Transaction
from shoal.model.cluster import Cluster, State
from shoal.model.workload import Plan
from shoal.quota.account import Amounts, amounts

_MOST = 8  # steps that follow from one look: from waiting to its end are fewer


@dataclass(frozen=True)
class Stepped:
    """``cluster`` as it is now, whether that is news, and what is left to do to its processes."""

    cluster: Cluster
    changed: bool
    outside: tuple[Action, ...]


def observed(sight: Sight, **more: Any) -> Observation:
    """What is seen of its processes, and what else there is to say."""
    return Observation(
        head=sight.head,
        remains=sight.remains,
        silent=sight.silent,
        lived=sight.lived,
        pulse=sight.pulse,
        last=sight.last,
        owner=sight.owner,
        **more,
    )


def holds(plan: Plan, team: str | None) -> dict[Scope, Amounts]:
    """What the accounts hold for a cluster with this plan. The ledger counts it from its record: they always agree."""
    its = amounts(plan)
    return {Scope.USER: its} if team is None else {Scope.TEAM: its, Scope.USER: its}


def live_on(
    tx: Transaction,
    cluster: Cluster,
    sight: Sight,
    *,
    team: str | None = None,
    stored: bool = True,
    last: Mapping[str, Any] | None = None,
    **more: Any,
) -> Stepped:
    """Take every step that follows from what is seen.

    ``team``: whose account it is to count in, if it is admitted now (default: its own). ``stored`` is False for a
    record that the caller inserts. ``last``: columns that its end sets besides. ``more``: what else there is to say
    of it, as :class:`Observation` has it.
    """
    team = cluster.team if cluster.state.admitted else team
    charged = holds(cluster.plan, team) if cluster.state.admitted else {}
    changed, outside = False, []
    for _ in range(_MOST):
        its = holds(cluster.plan, team)
        seen = observed(sight, charged=charged, by_plan=its, **more)
        actions = step(cluster, seen, tx.now, periods.LOCAL)
        outside = [action for action in actions if not isinstance(action, Move | Charge | Free)]
        if len(outside) == len(actions):
            break
        for action in actions:
            match action:
                case Charge(scope, amount, fair):
                    key = scope, cluster.owner if scope is Scope.USER else str(team)
                    account = tx.history_of(key)
                    if cluster.state.admitted:
                        account = replace(account, admitted={cluster.id: amount})
                    tx.keep_history(key, account.with_(cluster.id, amount, None, tx.now, fair))
                    charged = {**charged, scope: amount}
                case Free(scope):
                    key = scope, cluster.owner if scope is Scope.USER else str(team)
                    tx.keep_history(key, tx.history_of(key).without(cluster.id, tx.now))
                    charged = {other: held for other, held in charged.items() if other is not scope}
                case Move():
                    after = moved(cluster, action, team, tx.now)
                    columns = dict(last or {}) if after.state.ended else {}
                    if after.state is State.STOPPING:  # where its head looks what it is to do
                        told = schema.first_reason(after.reason)
                        columns = {"stop_reason": told, "stop_message": after.message}
                    if stored and not tx.change(cluster, after, **columns):
                        return Stepped(tx.get(cluster.id), changed, ())
                    cluster, changed = after, True
    return Stepped(cluster, changed, tuple(outside))


def reported(tx: Transaction, cluster: Cluster, pulse: Pulse) -> Cluster:
    """Its head tells what it sees of it; returns what is recorded of it then."""
    return live_on(tx, cluster, Sight(Seen.ALIVE, pulse=pulse)).cluster


def ended(tx: Transaction, cluster: Cluster, end: End) -> None:
    """Its head, or whoever started it, says that nothing of it is left, and why it ended, where that is not written
    yet."""
    live_on(tx, cluster, Sight(Seen.GONE, remains=False, last=end))


def news(cluster: Cluster, sight: Sight, now: float, **more: Any) -> bool:
    """Whether something follows from what is seen, besides telling a head what is written already."""
    actions = step(cluster, observed(sight, **more), now, periods.LOCAL)
    return any(not isinstance(action, StartHead | StopHead) for action in actions)
