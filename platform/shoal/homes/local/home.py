"""The local home: clusters as processes of this machine, their records in the ledger.

Why it exists: the same code that runs on Kubernetes runs on a laptop, with nothing to install.

What it must not do: work out sizes or verdicts (the pure core does), or own a running cluster (its head
does).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from shoal.errors import InfrastructureError, NotFoundError, ShoalError
from shoal.governor.ends import End
from shoal.homes.base import Request, Wrote, at_least_one
from shoal.homes.local import ahead
from shoal.homes.local.decisions import Governing
from shoal.homes.local.heads import Heads
from shoal.homes.local.launch import LOG, SPARK_LOG
from shoal.homes.local.ledger import Ledger, path_of
from shoal.homes.local.periods import LOCAL
from shoal.homes.local.proofs import proofs
from shoal.homes.local.rebuild import read_record
from shoal.homes.local.settle import settle
from shoal.homes.local.steps import ended
from shoal.homes.local.transaction import Transaction
from shoal.homes.same import same_or_refused
from shoal.machine import paths
from shoal.machine.crash import CrashPoint, reached
from shoal.machine.java import find_java
from shoal.machine.people import login
from shoal.machine.processes import (
    MARK,
    identity,
    is_alive,
    is_stopped,
    of_another,
    since,
)
from shoal.model.checks import Check
from shoal.model.cluster import EXIT_CODE, Cluster, Reason, State
from shoal.model.endpoint import Endpoint
from shoal.model.homes import HomeKind
from shoal.model.status import Event, HeadStatus
from shoal.model.workload import Engine
from shoal.project.loading import Project, load
from shoal.quota.account import Account, amounts
from shoal.quota.admission import Decision, Verdict, lasting
from shoal.quota.budgets import BudgetStatus
from shoal.tables.catalogs.opening import settings
from shoal.units import Seconds


class LocalHome:
    """Clusters of one machine, or of several that share a PostgreSQL ledger."""

    name = HomeKind.LOCAL.value

    def __init__(self, project: Project, heads: Heads | None = None) -> None:
        self._project = project
        self._heads = heads or Heads()
        self._governing = Governing(project, self._heads.look)

    @cached_property
    def ledger(self) -> Ledger:
        """Opened, and made if need be, at the first use."""
        return Ledger(self._project.target.store)

    def __reduce__(self) -> tuple[Callable[..., LocalHome], tuple[Any, ...]]:
        # By where it is, not by what it holds open: a store's address may have a password.
        return _reopened, (self._project.folder, self._project.target.name)

    @staticmethod
    def user() -> str:
        """Who is asking: ``SHOAL_USER``, else the login name. Cooperation, not proof: the docs say so."""
        return login()

    def request(self, request: Request) -> Cluster:
        """One decision in one transaction; then the head is started (for a queued one, as its waiter).

        Whatever ends it before its return, Ctrl-C included, leaves no record that counts and no process.
        """
        if request.plan.engine is Engine.SPARK:
            find_java()  # before anything is admitted: without it nothing would come up
        made: Cluster | None = None
        try:
            self._look_if_needed()  # what a hung head holds is free once it is killed
            with self.ledger.write() as tx:
                left = self._governing.settle(tx)
                known = [
                    cluster for cluster in tx.named(request.name, request.owner) if not cluster.state.ended
                ]
                if known:
                    found = same_or_refused(known[0], request)
                else:
                    made, decision = self._governing.request(tx, request)
                if (its := made or found).state is State.QUEUED:
                    _attend(tx, its.id)
                reached(CrashPoint.CLIENT_IN_DECISION)
            if request.id is not None and (made is None or made.state is not State.ADMITTED):
                ahead.discard(request.id)  # one that waits in the queue has to be light
            self._heads.follow(left)
            if made is None:
                return found
            if made.state is State.REFUSED:
                raise decision.error()
            cluster = self._launch(made)
            paths.prune()
            return cluster
        except BaseException as error:
            if made is not None and not made.state.ended:
                self._abandon(made, error)
            raise

    def would(self, request: Request) -> Decision:
        """What :meth:`request` would decide now; changes nothing."""
        with self.ledger.read() as tx:
            return self._governing.would(tx, request)

    def settle(self) -> None:
        """Note what is gone, end what hangs, and let the queue move."""
        self._heads.reap()
        settle(self._governing, self.ledger, self._heads.follow)
        self.reap()

    def _look_if_needed(self) -> bool:
        with self.ledger.read() as tx:
            needed = self._governing.needs_a_look(tx, *tx.live())
        if needed:
            self.settle()
        return needed

    def reap(self) -> list[str]:
        """End every process that carries the mark of a cluster which has ended, or which nobody knows.

        Returns the ids of those clusters. Processes of other ledgers are left alone.
        """
        found = self._heads.marked(self.ledger.url)  # first: what is new by then is known to the ledger
        with self.ledger.read() as tx:
            suspects = set(found.values()) - {cluster.id for cluster in tx.live()} - {os.environ.get(MARK)}
            suspects -= {its for pid, its in found.items() if its in suspects and self._heads.is_ahead(pid)}
            strays = sorted(cluster_id for cluster_id in suspects if not _is_leaving(tx, cluster_id))
        for cluster_id in strays:
            self._heads.end(cluster_id)
        return strays

    def get(self, cluster_id: str) -> Cluster:
        with self.ledger.read() as tx:
            cluster = tx.get(cluster_id)
            suspect = self._governing.needs_a_look(tx, cluster)
        if suspect:
            self.settle()
            with self.ledger.read() as tx:
                cluster = tx.get(cluster_id)
        return cluster

    def find(self, name: str, owner: str) -> Cluster | None:
        with self.ledger.read() as tx:
            named = tx.named(name, owner)
        if not named:
            return None
        live = [cluster for cluster in named if not cluster.state.ended]
        return self.get((live or named)[-1].id)

    def clusters(self, *, owner: str | None = None, ended: bool = False) -> list[Cluster]:
        with contextlib.suppress(InfrastructureError):  # what is written can be looked at on a full disk too
            self._look_if_needed()
        with self.ledger.read() as tx:
            found = tx.all(owner) if ended else [c for c in tx.live() if owner in (None, c.owner)]
        return found[::-1]

    def stop(self, cluster_id: str, reason: Reason, message: str) -> Cluster:
        head = known = None
        try:
            known = self.get(cluster_id)  # a head that died before is noted as that, not as stopped
            with self.ledger.write() as tx:
                cluster = tx.get(cluster_id)
                self._governing.stop(tx, cluster, End(reason, message))
                head = None if cluster.state.ended else cluster.head
        except InfrastructureError:
            # A ledger that is away or on a full disk: its head ends all the same, and whoever can write again
            # notes it. Where nothing can be read either, the head's own copy says where it is.
            copy = known.head if known is not None else (read_record(cluster_id) or {}).get("head", {})
            if not of_another(copy, path_of(self._project.target.store)):
                self._heads.tell(copy)
            raise
        reached(CrashPoint.CLIENT_CLOSING)
        if head is not None:
            self._heads.tell(head)
        return self.get(cluster_id)

    def remains(self, cluster_id: str) -> bool:
        with self.ledger.read() as tx:
            cluster = tx.get(cluster_id)
        if of_another(cluster.head, self.ledger.path):
            return False  # what runs is the other ledger's
        return self._heads.remain(cluster)

    def scale(self, cluster_id: str, workers: int, group: str = "") -> Cluster:
        at_least_one(workers, self.get(cluster_id).plan, group)
        self._look_if_needed()  # what a killed head held is free once what it left is ended
        with self.ledger.write() as tx:
            left = self._governing.settle(tx)
            cluster = tx.get(cluster_id)
            if cluster.state.ended:
                raise InfrastructureError(
                    f"{cluster.name} has ended ({cluster.reason}: {cluster.message})", hint="Start a new one."
                )
            refusal, its = None, cluster.plan.group(group)
            if workers > its.count:  # fewer: the head gives back what is gone, once it is gone
                decision = self._governing.resize(tx, cluster, workers, group)
                refusal = decision.error() if decision.verdict is not Verdict.ADMIT else None
            if refusal is None:
                if its is cluster.plan.groups[0]:
                    tx.update(cluster_id, wanted=workers)
                else:
                    groups = dict(tx.wishes(cluster_id).groups) | {its.name: workers}
                    tx.update(cluster_id, wanted_groups=groups)
            cluster = tx.get(cluster_id)
        self._heads.follow(left)
        if refusal is not None:
            raise refusal
        return cluster

    def extend(self, cluster_id: str, longest: Seconds) -> Cluster:
        with self.ledger.write() as tx:
            cluster = tx.get(cluster_id)
            limits = self._project.policy.limits_of(cluster.owner)
            plan = lasting(cluster, longest, limits, tx.now, self._governing.purses(tx, cluster.owner))
            tx.update(cluster_id, longest=float(longest), plan=plan)
            return tx.get(cluster_id)

    def attend(self, cluster_id: str) -> None:
        with self.ledger.write() as tx:
            _attend(tx, cluster_id)

    def note_exit(self, cluster_id: str, code: int) -> None:
        with self.ledger.write() as tx:  # its head keeps what it finds there
            tx.update(cluster_id, report=tx.get(cluster_id).report | {EXIT_CODE: code})

    def endpoint(self, cluster_id: str) -> Endpoint:
        found = self._heads.endpoint(cluster_id)
        if found is None:
            cluster = self.get(cluster_id)
            raise InfrastructureError(
                f"{cluster.name} cannot be connected to: it is {cluster.state} ({cluster.message})",
                hint=f"`shoal logs {cluster.name}` shows what it wrote.",
            )
        return found

    def dashboard(self, cluster_id: str, *, lasting: bool = False) -> str:
        return self.endpoint(cluster_id).dashboard

    def logs(self, cluster_id: str, lines: int = 200, wrote: Wrote = Wrote.ANYBODY) -> str:
        folder = paths.run_folder(cluster_id)
        parts = []
        for name in self._logs(cluster_id, wrote):
            if (file := folder / name).is_file():
                parts += file.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(parts[-lines:])

    def _logs(self, cluster_id: str, wrote: Wrote) -> tuple[str, ...]:
        """Which files tell it: Spark's one process, the workers, has one of its own."""
        if wrote is Wrote.ANYBODY or self.get(cluster_id).plan.engine is not Engine.SPARK:
            return LOG, SPARK_LOG
        return (LOG,) if wrote is Wrote.HEAD else (SPARK_LOG,)

    def proofs(self) -> Iterable[Check]:
        return proofs(self)

    def history(self, cluster_id: str) -> list[Event]:
        """Every state of the cluster with reason, sentence and time, oldest first."""
        with self.ledger.read() as tx:
            return tx.history(cluster_id)

    def status(self, cluster_id: str, timeout: float = 2.0) -> HeadStatus | None:
        """What the head tells about itself; None when it does not answer (unknown is not failed)."""
        return self._heads.status(self.get(cluster_id), timeout)

    def unresponsive(self, cluster: Cluster) -> str:
        """What is wrong with its head, for people, as far as it can be seen from here; empty: nothing."""
        head = cluster.head
        if cluster.state.ended or not head or of_another(head, self.ledger.path):
            return ""
        if is_stopped(head):
            return f"its head (pid {head['pid']}) is stopped; `kill -CONT {head['pid']}` resumes it"
        silent = since(head, cluster.usage.beat or head.get("since"))
        if cluster.state is State.QUEUED or silent is None or silent < LOCAL.quiet:
            return ""
        answers = self.status(cluster.id) is not None
        said = "answers, but has not updated the ledger" if answers else "has sent no heartbeat"
        return f"its head (pid {head['pid']}) {said} for {Seconds(round(silent))}"

    def held(self, owner: str, *, team: bool = False) -> Account:
        """What the live clusters of the owner, or of a team, hold."""
        with self.ledger.read() as tx:
            theirs = [c for c in tx.live() if (c.team if team else c.owner) == owner and c.state.admitted]
            return Account({cluster.id: amounts(cluster.plan) for cluster in theirs})

    def budgets(self, owner: str) -> tuple[BudgetStatus, ...]:
        """How the budgets of the owner stand this month."""
        with self.ledger.read() as tx:
            return tuple(purse.standing() for purse in self._governing.purses(tx, owner))

    # -- heads -----------------------------------------------------------------------------------------

    def _launch(self, cluster: Cluster) -> Cluster:
        reached(CrashPoint.CLIENT_AFTER_DECISION)
        head = self._heads.launch(cluster, self._environment()) | {"ledger": self.ledger.path}
        reached(CrashPoint.CLIENT_AFTER_LAUNCH)
        with self.ledger.write() as tx:
            if not tx.get(cluster.id).head:
                tx.update(cluster.id, head=head)
            return tx.get(cluster.id)

    def _abandon(self, cluster: Cluster, error: BaseException) -> None:
        """Nothing stays of a request that was interrupted, or that failed on its way."""
        if isinstance(error, Exception):
            message = error.message if isinstance(error, ShoalError) else f"{type(error).__name__}: {error}"
            end = End(Reason.START_FAILED, message)
        else:
            end = End(Reason.STOPPED_BY_USER, "interrupted before its head was known")
        # No record: it was rolled back. No ledger: whoever can reach it again finds the head gone.
        with contextlib.suppress(ShoalError), self.ledger.write() as tx:
            ended(tx, tx.get(cluster.id), end)
        self._heads.tidy(cluster)

    def _environment(self) -> dict[str, str]:
        """What a head and its workers have to know: the ledger, and the catalog with its credentials."""
        catalog = settings()
        return {
            "SHOAL_PROJECT": str(self._project.folder),
            "SHOAL_TARGET": self._project.target.name,
            "SHOAL_LEDGER": self.ledger.url,
            "SHOAL_DATA": str(paths.data_folder().absolute()),
            "SHOAL_CATALOG_URI": catalog.uri,
            "SHOAL_CATALOG_WAREHOUSE": catalog.warehouse,
            "SHOAL_CATALOG_PROPERTIES": json.dumps(dict(catalog.properties)),
            "SHOAL_CATALOG_CREDENTIALS": catalog.credentials,
            "SHOAL_CATALOG_TIMEOUT": f"{catalog.timeout:g}",
        }


def _reopened(folder: Path, target: str) -> LocalHome:
    return LocalHome(load(folder, target))


def _attend(tx: Transaction, cluster_id: str) -> None:
    """This process waits for it, besides others that do."""
    others = [each for each in tx.clients(cluster_id) if is_alive(each) is not False]
    me = identity()
    tx.update(cluster_id, clients=[*(each for each in others if each != me), me])


def _is_leaving(tx: Transaction, cluster_id: str) -> bool:
    """It ended just now: its last processes end by themselves."""
    try:
        ended = tx.get(cluster_id).ended_at
    except NotFoundError:
        return False
    # Either way: after a clock that went back, none could appear to be gone.
    return ended is not None and abs(tx.now - ended) < LOCAL.leaving
