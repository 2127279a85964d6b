"""A home in memory: an injected clock, lost and doubled replies, crashes. Public, for tests.

Why it exists: what governs is our own logic, and a million interleavings of it run here in seconds. It keeps
to what a real store promises and no more: single writes with a version, whose replies may be lost, doubled or
late; heads that live, die and end themselves on a clock of their own.

What it must not do: be kinder than Kubernetes.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from shoal.errors import InfrastructureError, NotFoundError, OutcomeUnknownError, StaleRecordError
from shoal.governor.actions import Move, Scope, Seen
from shoal.governor.answers import why_not, would
from shoal.governor.ends import End, Exit, Pulse, due
from shoal.governor.lifecycle import moved
from shoal.governor.ports import Key, Sight, Snapshot, UserWishes
from shoal.governor.rounds import Governor
from shoal.homes.base import Request, Wrote, at_least_one, requested
from shoal.homes.faked import FOLLOW, RETIRE, START_TIME, refuse_uncounted
from shoal.homes.faked import PERIODS as PERIODS
from shoal.homes.faked import FakeClock as FakeClock
from shoal.homes.faked import FakeHead as FakeHead
from shoal.homes.faked import FakeScript as FakeScript
from shoal.homes.faked import InjectedFault as InjectedFault
from shoal.homes.same import same_or_refused
from shoal.model.checks import Check
from shoal.model.cluster import EXIT_CODE, Cluster, Reason, State
from shoal.model.endpoint import Endpoint
from shoal.model.status import Event, HeadStatus, NextEnd
from shoal.project.policy import Policy
from shoal.project.targets import Machine
from shoal.quota.account import Account
from shoal.quota.admission import Decision, lasting, with_workers
from shoal.units import Seconds
from shoal.words import count

T = TypeVar("T")


@dataclass
class FakeHome:
    """A home in memory, and its governing port; ``faults`` says what happens to each write.

    ``changed`` is called after everything that changes anything: tests check there that no limit is exceeded
    at any moment.
    """

    policy: Policy
    machine: Machine | None = None
    clock: FakeClock = field(default_factory=FakeClock)
    faults: Callable[[str], InjectedFault] = lambda operation: InjectedFault.NONE
    changed: Callable[[], None] = lambda: None
    who: str = "somebody"
    name: str = "fake"
    records: dict[str, tuple[Cluster, int]] = field(default_factory=dict)
    accounts: dict[Key, tuple[Account, int]] = field(default_factory=dict)
    wishes: dict[str, UserWishes] = field(default_factory=dict)
    heads: dict[str, FakeHead] = field(default_factory=dict)
    scripts: dict[str, FakeScript] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)  # when its last client went, by ``elapsed``
    late: list[Callable[[], object]] = field(default_factory=list)
    events: dict[str, list[Event]] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    # -- the governing port ----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        sights = {}
        for key, head in self.heads.items():
            if not head.reachable:
                # Of another machine that does not answer, nothing can be told.
                sights[key] = Sight(Seen.UNKNOWN, None)
            else:
                remains = head.workers > 0 or self._script(key).alive
                seen = Seen.ALIVE if head.alive else Seen.GONE
                sights[key] = Sight(seen, remains, script=self._seen(key), exit=self._script(key).exit)
        for key, left in self.left.items():
            if self.records[key][0].state is State.QUEUED:
                sights[key] = Sight(pulse=Pulse(alone=self.clock.elapsed - left))
        accounts, records, wishes = dict(self.accounts), dict(self.records), dict(self.wishes)
        quotas = {key: cluster.owner for key, (cluster, _) in records.items()}
        return Snapshot(self.clock.now, accounts, records, sights, wishes, self.machine, quotas)

    def write_account(self, key: Key, account: Account, version: int) -> int:
        def write() -> int:
            if self.accounts.get(key, (None, 0))[1] != version:
                raise StaleRecordError(f"the account of {key[0]} {key[1]} was changed by somebody else")
            self.accounts[key] = account, version + 1
            return version + 1

        return self._through(f"charge {key[0]}", write)

    def write_cluster(self, cluster: Cluster, version: int) -> int:
        return self._through("record", lambda: self._store(cluster, version))

    def _store(self, cluster: Cluster, version: int) -> int:
        if self.records[cluster.id][1] != version:
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
                head.workers = 0
                self._script(cluster_id).alive = False

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
        self.changed()
        if fault is InjectedFault.LOST_REPLY:
            raise OutcomeUnknownError(f"no reply to: {operation}")
        return result

    # -- what happens to it ----------------------------------------------------------------------------

    def deliver_late(self) -> None:
        """Do the oldest of the writes that were under way."""
        if self.late:
            with contextlib.suppress(StaleRecordError):  # it came too late
                self.late.pop(0)()
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
        self.changed()

    def _tick(self, head: FakeHead) -> None:
        elapsed = self.clock.elapsed
        if not head.alive:
            if elapsed - head.died >= FOLLOW:
                head.workers = 0
            return
        if not head.reachable:
            if elapsed - head.renewed > PERIODS.lease:
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
            move = Move(State.READY, Reason.SERVING, f"{count(workers, 'worker')} ready")
            ready = moved(cluster, move, cluster.team, self.clock.now)
            self._store(replace(ready, renewed_at=self.clock.now, workers=workers), version)

    def _due(self, cluster: Cluster) -> bool:
        return cluster.renewed_at is None or abs(self.clock.now - cluster.renewed_at) >= PERIODS.renew

    def _end_head(self, head: FakeHead) -> None:
        """In good order: the workers first."""
        head.workers, head.alive, head.died = 0, False, self.clock.elapsed

    # -- the home, as handles and the CLI see it -----------------------------------------------------------

    def user(self) -> str:
        return self.who

    def request(self, request: Request) -> Cluster:
        """Write the request, and let a governor look at it; without ``queue`` it is admitted or raises."""
        known = self.find(request.name, request.owner)
        if known is not None and not known.state.ended:
            self.attend(known.id)
            return same_or_refused(known, request)
        team = self.policy.limits_of(request.owner).team
        cluster = requested(request, request.id or f"c{next(self._numbers)}", team, self.clock.now)
        self.records[cluster.id] = cluster, 1
        self._note(cluster)
        if request.workload.queue:
            return cluster
        self.govern(rounds=2)
        cluster = self.get(cluster.id)
        if cluster.state is State.REFUSED:
            raise self._why(cluster).error()
        return cluster

    def would(self, request: Request) -> Decision:
        """What a request would be told now."""
        known = self.find(request.name, request.owner)
        same = known.id if known is not None and not known.state.ended else ""
        team = self.policy.limits_of(request.owner).team
        return would(self.snapshot(), self.policy, requested(request, same, team, self.clock.now))

    def held(self, owner: str, *, team: bool = False) -> Account:
        """What the owner's clusters, or a team's, hold."""
        return self.accounts.get((Scope.TEAM if team else Scope.USER, owner), (Account(), 0))[0]

    def _why(self, cluster: Cluster) -> Decision:
        return why_not(self.snapshot(), self.policy, cluster)

    def govern(self, rounds: int = 10) -> None:
        """Rounds of a governor until nothing is left to do, at most ``rounds``."""
        governor = Governor(self, self.policy, PERIODS, monotonic=lambda: self.clock.elapsed)
        for _ in range(rounds):
            if not governor.round():
                return

    def get(self, cluster_id: str) -> Cluster:
        if cluster_id not in self.records:
            raise NotFoundError(f"There is no cluster {cluster_id!r}")
        return self.records[cluster_id][0]

    def find(self, name: str, owner: str) -> Cluster | None:
        named = [c for c, _ in self.records.values() if (c.name, c.owner) == (name, owner)]
        live = [cluster for cluster in named if not cluster.state.ended]
        return (live or named)[-1] if named else None

    def clusters(self, *, owner: str | None = None, ended: bool = False) -> list[Cluster]:
        found = [
            c for c, _ in self.records.values() if owner in (None, c.owner) and (ended or not c.state.ended)
        ]
        return found[::-1]

    def stop(self, cluster_id: str, reason: Reason, message: str) -> Cluster:
        known = self.wishes.get(cluster_id, UserWishes())
        if known.stop is None:
            self.wishes[cluster_id] = replace(known, stop=End(reason, message))
        return self.get(cluster_id)

    def remains(self, cluster_id: str) -> bool:
        head = self.heads.get(cluster_id)
        alive = self._script(cluster_id).alive
        return alive or (head is not None and (head.alive or head.workers > 0))

    def scale(self, cluster_id: str, workers: int, group: str = "") -> Cluster:
        cluster, known = self.get(cluster_id), self.wishes.get(cluster_id, UserWishes())
        at_least_one(workers, cluster.plan, group)
        self.wish(cluster_id, workers, group)
        if workers > cluster.plan.group(group).count:
            self.govern(rounds=2)
            if self.get(cluster_id).plan.group(group).count < workers:
                self.wishes[cluster_id] = known
                larger = replace(cluster, plan=with_workers(cluster.plan, workers, group))
                raise self._why(larger).error()
        return self.get(cluster_id)

    def extend(self, cluster_id: str, longest: Seconds) -> Cluster:
        cluster = self.get(cluster_id)
        plan = lasting(cluster, longest, self.policy.limits_of(cluster.owner), self.clock.now)
        self._store(replace(cluster, plan=plan), self.records[cluster_id][1])
        return self.get(cluster_id)

    def wish(self, cluster_id: str, workers: int, group: str = "") -> None:
        """Write how many workers are wanted, as a client of Kubernetes does, and look no further."""
        known = self.wishes.get(cluster_id, UserWishes())
        if self.get(cluster_id).plan.group(group) is self.get(cluster_id).plan.groups[0]:
            self.wishes[cluster_id] = replace(known, workers=workers)
        else:
            self.wishes[cluster_id] = replace(known, groups={**known.groups, group: workers})

    def note_exit(self, cluster_id: str, code: int) -> None:
        cluster = self.get(cluster_id)
        self._store(replace(cluster, report=cluster.report | {EXIT_CODE: code}), self.records[cluster_id][1])

    def endpoint(self, cluster_id: str) -> Endpoint:
        cluster = self.get(cluster_id)
        if cluster.state is not State.READY:
            raise InfrastructureError(f"{cluster.name} cannot be connected to: it is {cluster.state}")
        return Endpoint(f"fake://{cluster_id}", token="")

    def dashboard(self, cluster_id: str, *, lasting: bool = False) -> str:
        return self.endpoint(cluster_id).dashboard

    def status(self, cluster_id: str, timeout: float = 2.0) -> HeadStatus | None:
        """What its head tells; None where it cannot be reached."""
        head, cluster = self.heads.get(cluster_id), self.get(cluster_id)
        if head is None or not (head.alive and head.reachable) or cluster.state is not State.READY:
            return None
        left = cluster.plan.timeouts.max - (self.clock.elapsed - head.born)
        ends_in = NextEnd(Reason.DEADLINE_REACHED, Seconds(left))
        return HeadStatus(cluster_id, State.READY, ends_in, workers=head.workers)

    def history(self, cluster_id: str) -> list[Event]:
        return list(self.events.get(cluster_id, []))

    def unresponsive(self, cluster: Cluster) -> str:
        return ""

    def proofs(self) -> list[Check]:
        return []

    def logs(self, cluster_id: str, lines: int = 200, wrote: Wrote = Wrote.ANYBODY) -> str:
        return "\n".join(event.message for event in self.history(cluster_id)[-lines:])

    def output(self, cluster_id: str, *, follow: bool = False) -> Iterator[str]:
        """What its script wrote."""
        self.get(cluster_id)
        yield from self._script(cluster_id).output

    def _note(self, cluster: Cluster) -> None:
        event = Event(cluster.state, cluster.reason, cluster.message, self.clock.now)
        self.events.setdefault(cluster.id, []).append(event)
