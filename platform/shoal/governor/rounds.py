"""The governor: reads a snapshot, asks the pure functions, does what they say. Again and again.

Why it exists: somebody has to look. It is level-triggered: each round starts from what is there, and owes
nothing to the round before, so it may die at any point, and two may work at once.

What it must not do: decide (``queueing`` and ``lifecycle`` do), or know a home.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, TypeAlias

from shoal.errors import InfrastructureError, OutcomeUnknownError, RefusedError, StaleRecordError, UsageError
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
from shoal.governor.answers import books_of
from shoal.governor.cautious import lowered
from shoal.governor.lifecycle import moved, step
from shoal.governor.periods import Periods
from shoal.governor.ports import AccountKey, Governed, Sight, Snapshot, UserWishes
from shoal.model.cluster import Cluster, State
from shoal.model.workload import Plan
from shoal.project.policy import Policy
from shoal.quota.account import Account, Amounts, amounts, in_pods, real
from shoal.quota.admission import Capacity, Claim, Decision, Verdict, with_workers
from shoal.quota.queueing import Books, TurnResult, Waiting, admit, explain
from shoal.quota.used_up import used_up

_log = logging.getLogger("shoal.governor")
# Like ``map``: calls something with each of these, in whatever order.
Each: TypeAlias = Callable[[Callable[[Any], int], Iterable[Any]], Iterable[int]]


class RoundPoint(StrEnum):
    """Every moment after a write at which a governor may die. Each has a test."""

    ADMISSION_PLACE_CHARGED = "admission: place charged"
    ADMISSION_TEAM_CHARGED = "admission: team charged"
    ADMISSION_USER_CHARGED = "admission: user charged"
    ADMISSION_QUOTA_CHARGED = "admission: quota charged"
    ADMISSION_RECORDED = "admission: record written"
    START_HEAD_STARTED = "start: head started"
    START_SCRIPT_STARTED = "start: script started"
    SCALE_PLACE_CHARGED = "scale: place charged"
    SCALE_TEAM_CHARGED = "scale: team charged"
    SCALE_USER_CHARGED = "scale: user charged"
    SCALE_QUOTA_CHARGED = "scale: quota charged"
    SCALE_RECORDED = "scale: record written"
    RELEASE_STOP_RECORDED = "release: stop recorded"
    RELEASE_HEAD_TOLD = "release: head told to end"
    RELEASE_REMAINS_ENDED = "release: remains ended"
    RELEASE_END_RECORDED = "release: end recorded"
    RELEASE_QUOTA_FREED = "release: quota freed"
    RELEASE_USER_FREED = "release: user freed"
    RELEASE_TEAM_FREED = "release: team freed"
    RELEASE_PLACE_FREED = "release: place freed"


def crash_point(cluster: Cluster, action: Action) -> RoundPoint:
    """The point that is reached once ``action`` is done for ``cluster`` (as it was before)."""
    match action:
        case Charge(scope):
            phase = "admission" if cluster.state is State.QUEUED else "scale"
            return RoundPoint(f"{phase}: {scope} charged")
        case Free(scope):
            return RoundPoint(f"release: {scope} freed")
        case Move(state):
            if state.ended:
                return RoundPoint.RELEASE_END_RECORDED
            if state is State.STOPPING:
                return RoundPoint.RELEASE_STOP_RECORDED
            queued = cluster.state is State.QUEUED
            return RoundPoint.ADMISSION_RECORDED if queued else RoundPoint.SCALE_RECORDED
        case EndRemains():
            return RoundPoint.RELEASE_REMAINS_ENDED
        case StartHead():
            return RoundPoint.START_HEAD_STARTED
        case StartScript():
            return RoundPoint.START_SCRIPT_STARTED
        case _:
            return RoundPoint.RELEASE_HEAD_TOLD


@dataclass
class Governor:
    """Governs ``home`` by ``policy``, and by the home's ``periods``.

    ``reached`` is told every point after a write (tests crash there). ``monotonic`` measures how long a head
    has been silent: by its own clock, so that a store's clock that jumps makes nobody seem lost.
    ``each``: a home whose writes take their time, and may be made by several threads, has those for different clusters
    made beside each other: those for one stay in their order, and one account is written by one at a time.
    """

    home: Governed
    policy: Policy
    periods: Periods
    reached: Callable[[RoundPoint], None] = lambda point: None
    monotonic: Callable[[], float] = time.monotonic
    each: Each = map
    _heard: dict[str, tuple[float | None, float]] = field(default_factory=dict)

    def round(self) -> int:
        """One look and everything that follows from it; returns how many actions were done."""
        snapshot = self.home.snapshot()
        self._heard = {key: heard for key, heard in self._heard.items() if key in snapshot.clusters}
        return _Round(self, snapshot).run()

    def silent(self, cluster: Cluster) -> float:
        """Seconds, by the governor's own clock, since the head renewed its record."""
        now = self.monotonic()
        known = self._heard.get(cluster.id)
        if known is None or known[0] != cluster.renewed_at:
            self._heard[cluster.id] = (cluster.renewed_at, now)
            return 0.0
        return now - known[1]


class _Round:
    """One round: the snapshot, and what this round itself has written since."""

    def __init__(self, governor: Governor, snapshot: Snapshot) -> None:
        self._governor = governor
        self._home = governor.home
        self._snapshot = snapshot
        self._accounts = dict(snapshot.accounts)
        self._locks: defaultdict[AccountKey, threading.Lock] = defaultdict(threading.Lock)
        self._lock, self._over = threading.Lock(), False
        self._freed = False  # whether any account holds less, or is to, than the pass went by
        self._charged: dict[str, dict[Scope, tuple[AccountKey, Amounts]]] = {}
        for key, (account, _) in snapshot.accounts.items():
            for cluster, its in account.admitted.items():
                self._charged.setdefault(cluster, {})[key[0]] = key, its

    def run(self) -> int:
        snapshot = self._snapshot
        outcomes = {outcome.claim.cluster: outcome for outcome in self._pass()}
        turn = {cluster: index for index, cluster in enumerate(outcomes)}
        done = self._strays()
        # What ends goes first; what is admitted, in the order of turns. Who does not wait is told why not by accounts
        # that hold what was admitted.
        ordered = sorted(snapshot.clusters.values(), key=lambda pair: turn.get(pair[0].id, -1))
        now: list[tuple[Cluster, int, TurnResult | None]] = []
        last = list(now)
        for cluster, version in ordered:
            if cluster.id not in snapshot.quiet:
                outcome = outcomes.get(cluster.id)
                (last if self._needs_reasons(cluster, outcome) else now).append((cluster, version, outcome))
        return done + sum(self._governor.each(self._go_on, now)) + sum(map(self._go_on, last))

    def _go_on(self, its: tuple[Cluster, int, TurnResult | None]) -> int:
        """What comes next for one cluster; how many actions were done."""
        cluster, version, outcome = its
        if self._over:
            return 0
        try:
            seen = self._observe(cluster, outcome)
            actions = step(cluster, seen, self._snapshot.now, self._governor.periods)
            return self._do_all(cluster, version, actions)
        except InfrastructureError:  # of the place, which all of them need
            self._over = True
            raise
        except Exception:  # a defect that one cluster meets keeps nobody else waiting
            _log.exception("%s of %s is looked at again in the next round", cluster.name, cluster.owner)
            return 0
        except BaseException:  # it ends here
            self._over = True
            raise

    def _pass(self) -> list[TurnResult]:
        snapshot = self._snapshot
        queue = []
        for cluster, _ in snapshot.clusters.values():
            plan = cluster.plan
            target, group = self._wishes(cluster).next(plan)
            if self._wishes(cluster).stop is not None:
                continue
            if cluster.state is State.QUEUED:
                queue.append(Waiting.of(cluster))
            elif cluster.state is State.READY and target is not None and target > plan.group(group).count:
                priority = cluster.workload.priority
                claim = Claim(cluster.id, cluster.name, with_workers(plan, target, group), priority, group)
                queue.append(Waiting(claim, cluster.owner, cluster.created, priority))
        return admit(queue, self._books(), self._governor.policy, self._place(), snapshot.now)

    def _place(self) -> Capacity | None:
        machine = self._snapshot.machine
        return None if machine is None else Capacity(machine, self._account((Scope.PLACE, ""))[0])

    def _books(self) -> Books:
        return books_of(self._accounts, self._snapshot.spending)

    def _account(self, key: AccountKey) -> tuple[Account, int]:
        return self._accounts.get(key, (Account(), 0))

    def _wishes(self, cluster: Cluster) -> UserWishes:
        return self._snapshot.wishes.get(cluster.id, UserWishes())

    def _observe(self, cluster: Cluster, outcome: TurnResult | None) -> Observation:
        sight = self._snapshot.sights.get(cluster.id, Sight())
        wishes = self._wishes(cluster)
        keys = self._keys(cluster)
        charged = self._charged.get(cluster.id, {})
        target, group = wishes.next(cluster.plan) if cluster.state is State.READY else (None, "")
        if cluster.state is State.QUEUED and outcome is not None:
            target = outcome.workers
        wanted = cluster.plan if target is None else with_workers(cluster.plan, target, group)
        waiting = cluster.state is State.QUEUED
        begin = cluster.admitted_at if cluster.admitted_at is not None else cluster.since
        return Observation(
            # What waits has no head here, and needs none.
            head=Seen.NONE if waiting else sight.head,
            lived=self._snapshot.now - begin,
            pulse=sight.pulse,
            last=sight.last,
            script=sight.script,
            exit=sight.exit,
            refused=sight.refused,
            owner=sight.owner,
            charged={scope: its for scope, (key, its) in charged.items() if keys.get(scope) == key[1]},
            wants={scope: _amount(scope, wanted) for scope in Scope if scope in keys},
            by_plan={scope: _amount(scope, cluster.plan) for scope in Scope if scope in keys},
            remains=sight.remains,
            silent=self._governor.silent(cluster),
            stop=wishes.stop,
            outcome=outcome,
            decision=self._explained(cluster, outcome),
            target=target,
            group=group,
            used_up=used_up(cluster, self._governor.policy, self._snapshot.spending),
        )

    @staticmethod
    def _needs_reasons(cluster: Cluster, outcome: TurnResult | None) -> bool:
        """Whether it does not wait, and cannot start."""
        waits = outcome is not None and outcome.verdict is Verdict.WAIT
        return waits and cluster.state is State.QUEUED and not cluster.workload.queue

    def _explained(self, cluster: Cluster, outcome: TurnResult | None) -> Decision | None:
        """The answer with its reasons, for one that needs them."""
        if outcome is None or not self._needs_reasons(cluster, outcome):
            return None
        if self._freed or self._about_to_free():  # its turn is in the next round, which knows what is free
            return None
        limits = self._governor.policy.limits_of(cluster.owner)
        names = {key: record.name for key, (record, _) in self._snapshot.clusters.items()}
        return explain(outcome, limits, self._books(), self._place(), names)

    def _about_to_free(self) -> bool:
        """Whether an account holds something for a cluster that has ended."""
        ended = (its for its in self._charged if its in self._snapshot.clusters)
        return any(self._snapshot.clusters[its][0].state.ended for its in ended)

    def _keys(self, cluster: Cluster) -> Mapping[Scope, str]:
        """Whose accounts the cluster counts in."""
        keys = {Scope.USER: cluster.owner}
        team = cluster.team
        if cluster.state is State.QUEUED:
            try:
                team = self._governor.policy.limits_of(cluster.owner).team
            except UsageError:
                team = None
        if team is not None:
            keys[Scope.TEAM] = team
        if self._snapshot.machine is not None:
            keys[Scope.PLACE] = ""
        if (quota := self._snapshot.quotas.get(cluster.id)) is not None:
            keys[Scope.QUOTA] = quota
        return keys

    def _strays(self) -> int:
        """Free what is held for clusters that nobody knows (any more) and of which nothing is seen."""
        done = 0
        for cluster, held in self._charged.items():
            record = self._snapshot.clusters.get(cluster)
            if self._snapshot.sights.get(cluster, Sight()) != Sight():
                continue
            for key, _ in held.values():
                # One that ended frees its own accounts by its life's steps; others it may hold by a change of
                # policy while it waited.
                if record and (not record[0].state.ended or self._keys(record[0]).get(key[0]) == key[1]):
                    continue
                try:
                    self._write(key, partial(Account.without, cluster=cluster, now=self._snapshot.now))
                except (StaleRecordError, OutcomeUnknownError, RefusedError):
                    continue
                done += 1
        return done

    def _do_all(self, cluster: Cluster, version: int, actions: list[Action]) -> int:
        done = 0
        for action in actions:
            if self._over:
                break
            try:
                version = self._do(cluster, version, action)
            except (StaleRecordError, OutcomeUnknownError):
                # Not failed and not assumed: the next round looks at what there is.
                return done
            except RefusedError as error:
                # By a quota or a policy of the place: this cluster waits, others do not.
                level = logging.WARNING if isinstance(action, (Charge, Free, Move)) else logging.DEBUG
                _log.log(level, "%s of %s is tried again: %s", cluster.name, cluster.owner, error.message)
                return done
            self._governor.reached(crash_point(cluster, action))
            done += 1
        return done

    def _do(self, cluster: Cluster, version: int, action: Action) -> int:
        now = self._snapshot.now
        match action:
            case Charge(scope, its, fair):
                until = now + cluster.plan.timeouts.max

                def charged(account: Account) -> Account:
                    known = account.until.get(cluster.id)
                    return account.with_(cluster.id, its, until if known is None else known, now, fair)

                self._write((scope, self._keys(cluster)[scope]), charged)
            case Free(scope):
                self._freed = True  # also where the write fails now: it is made again
                key = scope, self._keys(cluster)[scope]
                self._write(key, partial(Account.without, cluster=cluster.id, now=now))
            case Move():
                team = self._keys(cluster).get(Scope.TEAM)
                return self._home.write_cluster(moved(cluster, action, team, now), version)
            case StartHead():
                self._home.start_head(cluster.id)
            case StartScript():
                self._home.start_script(cluster.id)
            case StopHead():
                self._home.stop_head(cluster.id)
            case KillHead():
                self._home.kill_head(cluster.id)
            case EndRemains():
                self._home.end_remains(cluster.id)
        return version

    def _write(self, key: AccountKey, changed: Callable[[Account], Account]) -> None:
        with self._lock:
            its = self._locks[key]
        with its:
            account, version = self._account(key)
            after = changed(account)
            self._accounts[key] = after, self._home.write_account(key, after, version)
            if lowered(account, after):
                self._freed = True


def _amount(scope: Scope, plan: Plan) -> Amounts:
    if scope is Scope.QUOTA:
        return in_pods(plan)
    return real(plan) if scope is Scope.PLACE else amounts(plan)
