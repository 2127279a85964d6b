"""Home ``local`` as it is, over a real ledger, with played processes: its decisions on a clock of the test's own.

Heads start, renew, grow, shrink and end as real ones do, through the same functions; they are killed, cut off, and
die in the middle of a transaction. What asks and looks dies there too, and at every step between two transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from shoal.governor.actions import Seen
from shoal.governor.ends import End, Phase, Pulse, due
from shoal.homes.base import Request
from shoal.homes.faked import FOLLOW, RETIRE, START_TIME, FakeClock, FakeHead
from shoal.homes.local import periods
from shoal.homes.local.heads import Heads
from shoal.homes.local.home import LocalHome
from shoal.homes.local.ledger import Ledger
from shoal.homes.local.sight import LocalSight
from shoal.homes.local.steps import ended, reported
from shoal.homes.local.tidy import Deed, Found
from shoal.homes.local.transaction import Transaction
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.endpoint import Endpoint
from shoal.model.status import HeadStatus, NextEnd
from shoal.project.loading import Project
from shoal.units import Seconds
from shoal.words import count

from .world import Died


class Mortal:
    """When somebody dies: after so many statements, or at a named moment between two transactions."""

    MOMENTS = (
        "before the launch",
        "after the launch",
        "before what follows",
        "in what follows",
        "before the end",
    )

    def __init__(self) -> None:
        self.statements: int | None = None
        self.moment = ""
        self.dead = False

    @contextmanager
    def spared(self) -> Iterator[None]:
        """Whoever reads here is only the test."""
        kept = self.statements, self.dead
        self.statements, self.dead = None, False
        try:
            yield
        finally:
            self.statements, self.dead = kept

    def statement(self) -> None:
        if self.dead:
            raise Died  # it was killed, and does nothing more
        if self.statements is not None:
            self.statements -= 1
            if self.statements < 0:
                self.die()

    def reached(self, moment: str) -> None:
        if self.dead:
            raise Died
        if moment == self.moment:
            self.die()

    def die(self) -> None:
        self.statements, self.moment, self.dead = None, "", True
        raise Died


class Statements:
    """A connection whose user may die between any two statements."""

    def __init__(self, connection: Any, mortal: Mortal) -> None:
        self._connection, self._mortal = connection, mortal

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> Any:
        self._mortal.statement()
        return self._connection.execute(statement, values or {})


class Store(Protocol):
    """What of a ledger is used here."""

    url: str
    path: str

    def write(self) -> AbstractContextManager[Transaction]: ...

    def read(self) -> AbstractContextManager[Transaction]: ...


class InMemory:
    """The ledger's tables in memory, with one writer at a time."""

    url, path = "sqlite://", ""

    def __init__(
        self, clock: FakeClock, mortal: Mortal, committed: Callable[[], None] = lambda: None
    ) -> None:
        self._clock, self._mortal, self._committed = clock, mortal, committed
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        Transaction(self._database, 0.0).make_tables("INTEGER NOT NULL PRIMARY KEY")

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        self._mortal.statement()
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield Transaction(Statements(self._database, self._mortal), self._clock.now)
            self._mortal.statement()
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")
        self._committed()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        yield Transaction(Statements(self._database, self._mortal), self._clock.now)


class InFile(Ledger):
    """A real ledger, in an SQLite file."""

    def __init__(
        self, file: Path, clock: FakeClock, mortal: Mortal, committed: Callable[[], None] = lambda: None
    ) -> None:
        self._clock, self._mortal, self._committed = clock, mortal, committed
        super().__init__(f"sqlite:///{file}")

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with super().write() as tx:
            yield tx
        self._committed()

    def _transaction(self, connection: Any) -> Transaction:
        return Transaction(Statements(connection, self._mortal), self._clock.now, self.path)


class PlayedHeads(Heads):
    """Heads without processes, by their cluster's id. ``changed`` is called after everything that changes anything."""

    def __init__(self, clock: FakeClock, mortal: Mortal, changed: Callable[[], None] = lambda: None) -> None:
        self.clock, self.mortal, self.changed = clock, mortal, changed
        self.heads: dict[str, FakeHead] = {}
        self.begun: dict[str, float] = {}
        self.hung: set[str] = set()  # alive, and does nothing any more

    def look(self, cluster: Cluster, now: float, ledger_path: str) -> LocalSight:
        head = self.heads.get(cluster.id)
        if not cluster.head or head is None:
            return LocalSight(Seen.NEVER)
        if not head.reachable:
            silent = now - (cluster.renewed_at or cluster.created)
            return LocalSight(Seen.UNKNOWN, None, silent=silent)
        if head.alive:
            begun = self.begun.get(cluster.id)
            lived = None if cluster.admitted_at is None else now - cluster.admitted_at
            if begun is not None:
                lived = self.clock.elapsed - begun
            return LocalSight(Seen.ALIVE, None, lived=lived)
        return LocalSight(Seen.GONE, False if cluster.state is State.QUEUED else None)

    def launch(self, cluster: Cluster, environment: Mapping[str, str]) -> dict[str, Any]:
        self.mortal.reached("before the launch")
        elapsed = self.clock.elapsed
        self.heads[cluster.id] = FakeHead(cluster.id, elapsed, renewed=elapsed)
        self.mortal.reached("after the launch")
        return {"played": True}

    def tell(self, head: Mapping[str, Any]) -> None:
        """It reads what it is to do."""

    def follow(self, found: Iterable[Found]) -> frozenset[str]:
        gone = set()
        self.mortal.reached("before what follows")
        for each in found:
            head = self.heads.get(each.cluster.id)
            if each.deed is Deed.KILL and head is not None and head.reachable:
                self.kill(each.cluster.id)
            if each.deed is not Deed.TELL:
                self.tidy(each.cluster)
            if each.deed in (Deed.KILL, Deed.END):
                gone.add(each.cluster.id)
            self.changed()
            self.mortal.reached("in what follows")
        return frozenset(gone)

    def kill(self, cluster_id: str) -> None:
        """kill -9: its workers follow a moment later."""
        head = self.heads[cluster_id]
        if head.alive:
            head.alive, head.died = False, self.clock.elapsed
            self.changed()

    def tidy(self, cluster: Cluster) -> None:
        head = self.heads.get(cluster.id)
        if head is not None and head.reachable:
            head.workers, head.alive = 0, False

    def remain(self, cluster: Cluster) -> bool:
        head = self.heads.get(cluster.id)
        return head is not None and (head.alive or head.workers > 0)

    def reap(self) -> None: ...

    def marked(self, ledger: str) -> dict[int, str]:
        running = [key for key, head in self.heads.items() if head.reachable and (head.alive or head.workers)]
        return dict(enumerate(running))

    def is_ahead(self, pid: int) -> bool:
        return False

    def end(self, cluster_id: str) -> None:
        head = self.heads[cluster_id]
        head.workers, head.alive = 0, False
        self.changed()

    def endpoint(self, cluster_id: str) -> Endpoint | None:
        head = self.heads.get(cluster_id)
        return Endpoint("played", "", "") if head is not None and head.workers else None

    def status(self, cluster: Cluster, timeout: float) -> HeadStatus | None:
        head = self.heads.get(cluster.id)
        if head is None or not (head.alive and head.reachable and head.workers):
            return None
        left = cluster.plan.timeouts.max - (self.clock.elapsed - self.begun[cluster.id])
        return HeadStatus(cluster.id, State.READY, NextEnd(Reason.DEADLINE_REACHED, Seconds(left)))


class PlayedHome(LocalHome):
    """The local home over ``ledger``, with played heads."""

    def __init__(self, project: Project, ledger: Store, heads: PlayedHeads, who: str = "") -> None:
        super().__init__(project, heads)
        self.ledger = ledger  # type: ignore[assignment]
        self.played, self._who = heads, who

    def user(self) -> str:  # type: ignore[override]
        return self._who or super().user()

    def request(self, ask: Request) -> Cluster:
        self.played.clock.now += 1e-3  # no two requests come at the same moment
        return super().request(ask)

    def _environment(self) -> dict[str, str]:
        return {}

    def advance(self, seconds: float) -> None:
        """Let time go by: heads start, renew, and end themselves."""
        clock, mortal = self.played.clock, self.played.mortal
        clock.elapsed += seconds
        clock.now += seconds
        for head in list(self.played.heads.values()):
            if head.alive and head.cluster in self.played.hung:
                continue
            mortal.dead = False
            try:
                self._tick(head)
            except Died:
                self.played.kill(head.cluster)
        mortal.dead = False
        self.played.changed()

    def _tick(self, head: FakeHead) -> None:
        elapsed = self.played.clock.elapsed
        if not head.alive:
            if elapsed - head.died >= FOLLOW:
                head.workers = 0
            return
        if not head.reachable:
            if elapsed - head.renewed > periods.LOCAL.lease:
                self._gone(head)
            return
        stop = None
        with self.ledger.write() as tx:
            cluster = tx.find(head.cluster)
            if cluster is not None and not cluster.state.ended:
                cluster = self._lives(tx, head, cluster)
                tx.update(cluster.id, renewed_at=tx.now, workers=head.workers)
                stop = tx.wishes(cluster.id).stop
        head.renewed = elapsed
        if cluster is None or cluster.state.ended:
            self._gone(head)
        elif stop is not None:
            head.workers = 0
            self.played.changed()
            self.played.mortal.reached("before the end")
            with self.ledger.write() as tx:
                ended(tx, tx.get(head.cluster), End(cluster.reason, cluster.message))
                found = self._governing.settle(tx)
            self._gone(head)
            self.played.follow(found)

    def _lives(self, tx: Transaction, head: FakeHead, cluster: Cluster) -> Cluster:
        elapsed = self.played.clock.elapsed
        if cluster.state is State.QUEUED:
            return cluster
        if cluster.id not in self.played.begun:
            self.played.begun[cluster.id] = elapsed
            tx.update(cluster.id, head={"played": True})
            starting = Phase(State.STARTING, Reason.HEAD_STARTING, "the head is running")
            return reported(tx, cluster, Pulse(phase=starting))
        pulse = Pulse(elapsed - self.played.begun[cluster.id])
        if due(pulse, cluster.plan.timeouts) is not None:
            return reported(tx, cluster, pulse)
        if cluster.state is not State.READY:
            if cluster.state is State.STOPPING or pulse.lived < START_TIME:
                return cluster
            head.workers = cluster.plan.workers
            said = Phase(State.READY, Reason.SERVING, f"{count(head.workers, 'worker')} ready")
            return reported(tx, cluster, Pulse(phase=said))
        wishes, first = tx.wishes(cluster.id), cluster.plan.groups[0]
        by_group = {group.name: group.count for group in cluster.plan.groups} | dict(wishes.groups)
        if wishes.workers is not None:
            by_group[first.name] = wishes.workers
        elif len(by_group) == 1:
            by_group[first.name] = head.workers
        wanted = sum(by_group.values())
        if wanted >= head.workers:
            head.workers, head.retiring = wanted, None
        else:
            head.retiring = elapsed if head.retiring is None else head.retiring
            if elapsed - head.retiring >= RETIRE:
                head.workers, head.retiring = wanted, None
        if head.workers <= wanted < cluster.plan.workers:
            for name, many in by_group.items():
                if many < cluster.plan.group(name).count:
                    self._governing.resize(tx, tx.get(cluster.id), many, name)
        return tx.get(cluster.id)

    def _gone(self, head: FakeHead) -> None:
        """In good order: the workers first."""
        head.workers, head.alive, head.died = 0, False, self.played.clock.elapsed
        self.played.changed()
