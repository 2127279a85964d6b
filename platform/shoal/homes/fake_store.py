"""What a home in memory keeps, and what may happen to it: the part of :class:`shoal.homes.fake.FakeHome` that governs.

Why it exists: see there. It keeps to what a real store promises and no more: single writes with a version, whose
replies may be lost, doubled or late; heads that live, die and end themselves on a clock of their own; old caches.

What it must not do: be kinder than Kubernetes.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from shoal.errors import OutcomeUnknownError, RefusedError, StaleRecordError
from shoal.governor.actions import Move, Scope, Seen
from shoal.governor.ends import Exit, Pulse, due, serving
from shoal.governor.lifecycle import moved
from shoal.governor.ports import AccountKey, Sight, Snapshot, UserWishes
from shoal.homes.faked import FOLLOW, RETIRE, START_TIME, refuse_uncounted
from shoal.homes.faked import PERIODS as PERIODS
from shoal.homes.faked import FakeCaches as FakeCaches
from shoal.homes.faked import FakeClock as FakeClock
from shoal.homes.faked import FakeHead as FakeHead
from shoal.homes.faked import FakeScript as FakeScript
from shoal.homes.faked import InjectedFault as InjectedFault
from shoal.model.cluster import Cluster, State
from shoal.model.status import Event
from shoal.project.policy import Policy
from shoal.project.targets import Machine
from shoal.quota.account import Account
from shoal.quota.budgets import Spending

T = TypeVar("T")


@dataclass
class FakeStore:
    """What a home in memory keeps, and its governing port; ``faults`` says what happens to each write.

    ``changed`` is called after everything that changes anything: tests check there that no limit is exceeded
    at any moment. ``caches`` says how old the news are that a governor goes by.
    """

    policy: Policy
    machine: Machine | None = None
    clock: FakeClock = field(default_factory=FakeClock)
    faults: Callable[[str], InjectedFault] = lambda operation: InjectedFault.NONE
    changed: Callable[[], None] = lambda: None
    who: str = "somebody"
    name: str = "fake"
    records: dict[str, tuple[Cluster, int]] = field(default_factory=dict)
    accounts: dict[AccountKey, tuple[Account, int]] = field(default_factory=dict)
    wishes: dict[str, UserWishes] = field(default_factory=dict)
    heads: dict[str, FakeHead] = field(default_factory=dict)
    scripts: dict[str, FakeScript] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)  # when its last client went, by ``elapsed``
    deleted: dict[str, Cluster] = field(default_factory=dict)  # records that somebody took away
    late: list[Callable[[], object]] = field(default_factory=list)
    events: dict[str, list[Event]] = field(default_factory=dict)
    caches: FakeCaches = field(default_factory=FakeCaches)
    _looked: tuple[dict[str, tuple[Cluster, int]], dict[str, Sight]] = field(default_factory=lambda: ({}, {}))
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    # -- the governing port ----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        self._note_all()
        seen = self.caches.seen
        records, sights = seen("records"), seen("sights")
        self._looked = dict(records), sights
        quotas = {key: cluster.owner for key, (cluster, _) in records.items()}
        accounts, wishes = seen("accounts"), seen("wishes")
        spending = self._spending(records) if self.policy.budgets() else None
        now, machine = self.clock.now, self.machine
        return Snapshot(now, accounts, records, sights, wishes, machine, quotas, spending=spending)

    def _spending(self, records: Mapping[str, tuple[Cluster, int]]) -> Spending:
        """By what is known of the records; of one that was taken away, by what it was."""
        known = (cluster for cluster, _ in records.values())
        return Spending.of((*self.deleted.values(), *known), self.clock.now)

    def confirm(self, cluster_id: str) -> None:
        """StaleRecordError where it is not as the last snapshot had it, with what was written since."""
        self._note_all()
        records, sights = self._looked
        known, now = records.get(cluster_id), self.records.get(cluster_id)
        if now != known or self._sights().get(cluster_id) != sights.get(cluster_id):
            raise StaleRecordError(f"{cluster_id} is not as it was")

    def _note_all(self) -> None:
        records, accounts, wishes = dict(self.records), dict(self.accounts), dict(self.wishes)
        self.caches.note(
            {"records": records, "accounts": accounts, "wishes": wishes, "sights": self._sights()}
        )

    def _sights(self) -> dict[str, Sight]:
        sights = {}
        for key, head in self.heads.items():
            if key not in self.records:  # whatever is left of it is all that counts
                if head.alive or head.workers > 0 or self._script(key).alive:
                    sights[key] = Sight(remains=True)
            elif not head.reachable:
                # Of another machine that does not answer, nothing can be told.
                sights[key] = Sight(Seen.UNKNOWN, None)
            else:
                remains = head.workers > 0 or self._script(key).alive
                seen = Seen.ALIVE if head.alive else Seen.GONE
                sights[key] = Sight(seen, remains, script=self._seen(key), exit=self._script(key).exit)
        for key, left in self.left.items():
            if key in self.records and self.records[key][0].state is State.QUEUED:
                sights[key] = Sight(pulse=Pulse(alone=self.clock.elapsed - left))
        return sights

    def write_account(self, key: AccountKey, account: Account, version: int) -> int:
        def write() -> int:
            if self.accounts.get(key, (None, 0))[1] != version:
                raise StaleRecordError(f"the account of {key[0]} {key[1]} was changed by somebody else")
            self.accounts[key] = account, version + 1
            return version + 1

        return self._through(f"charge {key[0]}", write)

    def write_cluster(self, cluster: Cluster, version: int) -> int:
        new = self._through("record", lambda: self._store(cluster, version))
        self._looked[0][cluster.id] = cluster, new
        return new

    def _store(self, cluster: Cluster, version: int) -> int:
        if cluster.id not in self.records or self.records[cluster.id][1] != version:
            raise StaleRecordError(f"the record of {cluster.name} was changed by somebody else")
        before = self.records[cluster.id][0]
        if before.state.ended:
            raise StaleRecordError(f"{cluster.name} has ended")
        self.records[cluster.id] = cluster, version + 1
        if (before.state, before.reason, before.message) != (cluster.state, cluster.reason, cluster.message):
            self._note(cluster)
        return version + 1

    def start_head(self, cluster_id: str) -> None:
        def start() -> None:
            if cluster_id not in self.records:
                raise StaleRecordError(f"the record of {cluster_id} was deleted")
            if cluster_id not in self.heads:
                refuse_uncounted(cluster_id, self._quota(self.records[cluster_id][0].owner)[0])
                self.heads[cluster_id] = FakeHead(cluster_id, self.clock.elapsed, renewed=self.clock.elapsed)

        self._through("start head", start)

    def start_script(self, cluster_id: str) -> None:
        self._through("start script", lambda: self.scripts.setdefault(cluster_id, FakeScript()))

    def _script(self, cluster_id: str) -> FakeScript:
        return self.scripts.get(cluster_id, FakeScript(alive=False))

    def _seen(self, cluster_id: str) -> Seen | None:
        if self.records[cluster_id][0].run is None:
            return None
        if cluster_id not in self.scripts:
            return Seen.NEVER
        return Seen.ALIVE if self._script(cluster_id).alive else Seen.GONE

    def stop_head(self, cluster_id: str) -> None:
        self._through("stop head", lambda: self._to_head(cluster_id, kill=False))

    def kill_head(self, cluster_id: str) -> None:
        self._through("kill head", lambda: self._to_head(cluster_id, kill=True))

    def end_remains(self, cluster_id: str) -> None:
        def end() -> None:
            head = self.heads.get(cluster_id)
            if head is not None and head.reachable and not head.alive:
                head.remains_end = True  # they take a moment

        self._through("end remains", end)

    def _to_head(self, cluster_id: str, *, kill: bool) -> None:
        head = self.heads.get(cluster_id)
        if head is None or not head.reachable or not head.alive:
            return
        if kill:
            self.crash_head(cluster_id)
        else:
            head.to_end = True
            self._script(cluster_id).alive = False

    def _through(self, operation: str, write: Callable[[], T]) -> T:
        """Do ``write`` as the network has it."""
        fault = self.faults(operation)
        if fault is InjectedFault.LOST_REQUEST:
            raise OutcomeUnknownError(f"no reply to: {operation}")
        if fault is InjectedFault.LATE:
            self.late.append(write)
            raise OutcomeUnknownError(f"no reply to: {operation}")
        result = write()
        if fault is InjectedFault.DOUBLED:
            with contextlib.suppress(StaleRecordError):  # the second of two equal writes has an old version
                write()
        self._note_all()
        self.changed()
        if fault is InjectedFault.LOST_REPLY:
            raise OutcomeUnknownError(f"no reply to: {operation}")
        return result

    # -- what happens to it ----------------------------------------------------------------------------

    def deliver_late(self) -> None:
        """Do the oldest of the writes that were under way."""
        if self.late:
            with contextlib.suppress(StaleRecordError, RefusedError):  # it came too late
                self.late.pop(0)()
            self._note_all()
            self.changed()

    def crash_head(self, cluster_id: str) -> None:
        """kill -9: its workers follow a moment later."""
        head = self.heads[cluster_id]
        if head.alive:
            head.alive, head.died = False, self.clock.elapsed
            self.changed()

    def script_ends(self, cluster_id: str, code: int, said: str = "") -> None:
        """The script beside this cluster ends."""
        script = self.scripts[cluster_id]
        script.alive, script.exit = False, script.exit or Exit(code, said)
        self.changed()

    def empty_quota(self, owner: str) -> None:
        """Somebody takes everything out of the quota by which the place itself bounds what this owner runs."""
        self.accounts[Scope.QUOTA, owner] = Account(), self._quota(owner)[1] + 1

    def _quota(self, owner: str) -> tuple[Account, int]:
        return self.accounts.get((Scope.QUOTA, owner), (Account(), 0))

    def delete_record(self, cluster_id: str) -> None:
        """Somebody takes it away; what runs ends by itself once it sees that."""
        self.deleted[cluster_id] = self.records.pop(cluster_id)[0]
        self.changed()

    def kill_clients(self, cluster_id: str) -> None:
        """kill -9 of all who wait for it."""
        self.left[cluster_id] = self.clock.elapsed

    def attend(self, cluster_id: str) -> None:
        self.left.pop(cluster_id, None)

    def advance(self, seconds: float) -> None:
        """Let time go by: heads start, renew, and end themselves."""
        self.clock.elapsed += seconds
        self.clock.now += seconds
        for head in list(self.heads.values()):
            self._tick(head)
        self._note_all()
        self.changed()

    def _tick(self, head: FakeHead) -> None:
        elapsed = self.clock.elapsed
        if not head.alive:
            if head.remains_end:
                self._script(head.cluster).alive = False
            if head.remains_end or elapsed - head.died >= FOLLOW:
                head.workers = 0
            return
        if not head.reachable:
            if elapsed - head.renewed > PERIODS.lease:
                self._end_head(head)
            return
        if head.cluster not in self.records:
            self._end_head(head)
            return
        cluster, version = self.records[head.cluster]
        if head.to_end or cluster.state.ended or cluster.state is State.STOPPING:
            self._end_head(head)
        elif (end := due(Pulse(elapsed - head.born), cluster.plan.timeouts)) is not None:
            move = Move(State.STOPPING, *end)
            self._store(moved(cluster, move, cluster.team, self.clock.now), version)
            self._end_head(head)
        elif elapsed - head.born >= START_TIME:
            self._serve(head, cluster, version)

    def _serve(self, head: FakeHead, cluster: Cluster, version: int) -> None:
        workers = cluster.plan.workers
        head.renewed = self.clock.elapsed
        if workers >= head.workers:
            head.retiring = None
        elif head.retiring is None or self.clock.elapsed - head.retiring < RETIRE:
            head.retiring = head.retiring or self.clock.elapsed
            workers = head.workers
        if cluster.workers != workers or cluster.state is not State.READY or self._due(cluster):
            head.workers = workers
            move = Move(*serving(workers))
            ready = moved(cluster, move, cluster.team, self.clock.now)
            self._store(replace(ready, renewed_at=self.clock.now, workers=workers), version)

    def _due(self, cluster: Cluster) -> bool:
        return cluster.renewed_at is None or abs(self.clock.now - cluster.renewed_at) >= PERIODS.renew

    def _end_head(self, head: FakeHead) -> None:
        """In good order: the workers first."""
        head.workers, head.alive, head.died = 0, False, self.clock.elapsed

    def _note(self, cluster: Cluster) -> None:
        event = Event(cluster.state, cluster.reason, cluster.message, self.clock.now)
        self.events.setdefault(cluster.id, []).append(event)
