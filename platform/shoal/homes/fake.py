"""A home in memory: an injected clock, lost and doubled replies, crashes. Public, for tests.

Why it exists: what governs is our own logic, and a million interleavings of it run here in seconds. What it keeps, and
what may happen to that, is in ``fake_store``; here it is as handles and commands see it.

What it must not do: be kinder than Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from shoal.errors import InfrastructureError, NotFoundError
from shoal.governor.actions import Scope
from shoal.governor.answers import why_not, would
from shoal.governor.ends import End
from shoal.governor.ports import UserWishes
from shoal.governor.rounds import Governor
from shoal.homes.base import Request, Wrote, at_least_one, requested
from shoal.homes.fake_store import FakeStore
from shoal.homes.faked import PERIODS as PERIODS
from shoal.homes.faked import FakeCaches as FakeCaches
from shoal.homes.faked import FakeClock as FakeClock
from shoal.homes.faked import FakeHead as FakeHead
from shoal.homes.faked import FakeScript as FakeScript
from shoal.homes.faked import InjectedFault as InjectedFault
from shoal.homes.same import same_or_refused
from shoal.model.checks import Check
from shoal.model.cluster import EXIT_CODE, Cluster, Reason, State
from shoal.model.endpoint import Endpoint
from shoal.model.status import Event, HeadStatus, NextEnd
from shoal.quota.account import Account
from shoal.quota.admission import Decision, lasting, with_workers
from shoal.quota.budgets import BudgetStatus
from shoal.units import Seconds


@dataclass
class FakeHome(FakeStore):
    """A home in memory, and its governing port."""

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

    def budgets(self, owner: str) -> tuple[BudgetStatus, ...]:
        """How the budgets of the owner stand this month."""
        purses = self._spending(self.records).purses(self.policy.limits_of(owner))
        return tuple(purse.standing() for purse in purses)

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
        limits = self.policy.limits_of(cluster.owner)
        purses = self._spending(self.records).purses(limits)
        plan = lasting(cluster, longest, limits, self.clock.now, purses)
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
