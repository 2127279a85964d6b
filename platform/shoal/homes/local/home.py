"""The local home: clusters as processes of this machine, their records in the ledger.

Why it exists: the same code that runs on Kubernetes runs on a laptop, with nothing to install.

What it must not do: work out sizes or verdicts (the pure core does), or own a running cluster (its head
does).
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import signal
import urllib.request
from collections.abc import Iterable
from typing import Any

from shoal import admission
from shoal.account import Account, amounts, real
from shoal.admission import Decision, Place, Verdict, with_workers
from shoal.errors import InfrastructureError, UsageError
from shoal.homes.base import Ask, Endpoint
from shoal.homes.local import endpoints, paths
from shoal.homes.local.launch import LOG, launch, reap
from shoal.homes.local.ledger import Ledger, Transaction
from shoal.homes.local.processes import end_marked, is_alive, marked, signal_process
from shoal.project import Project, look_up
from shoal.records import Cluster, Reason, State
from shoal.tables.catalog import settings

HEADLESS = 30.0  # s that an admitted cluster may be without a head before its quota is free again
SILENT = 45.0  # s without a renewal after which a head on another machine counts as gone


class LocalHome:
    """Clusters of one machine, or of several that share a PostgreSQL ledger."""

    name = "local"

    def __init__(self, project: Project) -> None:
        self._project = project
        self.ledger = Ledger(project.target.store)

    @staticmethod
    def user() -> str:
        """Who is asking: ``SHOAL_USER``, else the login name. Cooperation, not proof: the docs say so."""
        chosen = os.environ.get("SHOAL_USER")
        if chosen:
            return chosen
        try:
            return getpass.getuser()
        except (KeyError, OSError):  # no entry in the user database, as in some containers
            return f"uid-{os.getuid()}"

    def request(self, ask: Ask) -> Cluster:
        """One decision in one transaction; then the head is started."""
        with self.ledger.write() as tx:
            ended = self._reconcile(tx)
            known = [cluster for cluster in tx.named(ask.name, ask.owner) if not cluster.state.ended]
            if known:
                found = _same(known[0], ask)
            else:
                found = None
                cluster, decision = self._decide(tx, ask)
                tx.insert(cluster)
        self._tidy(ended)
        paths.prune()
        if found is not None:
            return found
        if cluster.state is State.REFUSED:
            raise decision.error()
        return self._launch(cluster)

    def would(self, ask: Ask) -> Decision:
        """What :meth:`request` would decide now; changes nothing."""
        with self.ledger.read() as tx:
            live = [cluster for cluster in tx.live() if self._gone(cluster, tx.now) is None]
        same = [c.id for c in live if (c.name, c.owner) == (ask.name, ask.owner)]
        return self._verdict(live, admission.Ask(same[0] if same else "", ask.name, ask.plan), ask.owner)

    def get(self, cluster_id: str) -> Cluster:
        with self.ledger.read() as tx:
            cluster = tx.get(cluster_id)
            suspect = self._gone(cluster, tx.now) is not None
        return self._settled(cluster_id) if suspect else cluster

    def find(self, name: str, owner: str) -> Cluster | None:
        with self.ledger.read() as tx:
            named = tx.named(name, owner)
        if not named:
            return None
        live = [cluster for cluster in named if not cluster.state.ended]
        return self.get((live or named)[-1].id)

    def clusters(self, *, owner: str | None = None, ended: bool = False) -> list[Cluster]:
        with self.ledger.read() as tx:
            suspect = any(self._gone(cluster, tx.now) for cluster in tx.live())
        if suspect:
            with self.ledger.write() as tx:
                gone = self._reconcile(tx)
            self._tidy(gone)
        with self.ledger.read() as tx:
            found = tx.all(owner) if ended else [c for c in tx.live() if owner in (None, c.owner)]
        return found[::-1]

    def stop(self, cluster_id: str, reason: Reason, message: str) -> Cluster:
        with self.ledger.write() as tx:
            cluster = tx.get(cluster_id)
            if not cluster.state.ended and cluster.state is not State.STOPPING:
                tx.update(cluster_id, stop_reason=reason.value, stop_message=message)
                tx.move(cluster_id, State.STOPPING, reason, message)
                cluster = tx.get(cluster_id)
        if not cluster.state.ended:
            signal_process(cluster.head, signal.SIGTERM)
        return self.get(cluster_id)

    def remains(self, cluster_id: str) -> bool:
        with self.ledger.read() as tx:
            head = tx.get(cluster_id).head
        reap()
        return bool(is_alive(head)) or bool(marked(cluster_id))

    def scale(self, cluster_id: str, workers: int) -> Cluster:
        if workers < 1:
            raise UsageError(
                f"{workers} workers", hint="A cluster has 1 worker or more; `shoal down` ends it."
            )
        with self.ledger.write() as tx:
            self._reconcile(tx)
            cluster = tx.get(cluster_id)
            if cluster.state.ended:
                raise InfrastructureError(
                    f"{cluster.name} has ended ({cluster.reason}: {cluster.message})", hint="Start a new one."
                )
            plan = with_workers(cluster.plan, workers)
            ask = admission.Ask(cluster_id, cluster.name, plan)
            decision = self._verdict(tx.live(), ask, cluster.owner)
            if decision.verdict is not Verdict.ADMIT:
                raise decision.error()
            tx.update(cluster_id, wanted=workers, plan=plan.to_json())
            return tx.get(cluster_id)

    def endpoint(self, cluster_id: str) -> Endpoint:
        found = endpoints.read(paths.run_folder(cluster_id))
        if found is None:
            cluster = self.get(cluster_id)
            raise InfrastructureError(
                f"{cluster.name} cannot be connected to: it is {cluster.state} ({cluster.message})",
                hint=f"`shoal logs {cluster.name}` shows what it wrote.",
            )
        return found

    def logs(self, cluster_id: str, lines: int = 200) -> str:
        folder = paths.run_folder(cluster_id)
        parts = []
        for name in (LOG, "spark.log"):
            if (file := folder / name).is_file():
                parts += file.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(parts[-lines:])

    def history(self, cluster_id: str) -> list[dict[str, Any]]:
        """Every state of the cluster with reason, sentence and time, oldest first."""
        with self.ledger.read() as tx:
            return tx.history(cluster_id)

    def status(self, cluster_id: str, timeout: float = 2.0) -> dict[str, Any] | None:
        """What the head tells about itself; None when it does not answer (unknown is not failed)."""
        token = endpoints.read_token(paths.run_folder(cluster_id))
        url = self.get(cluster_id).head.get("status_url")
        if not token or not url:
            return None
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - ours, http on loopback
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
                return dict(json.load(answer))
        except (OSError, ValueError):
            return None

    def held(self, owner: str) -> Account:
        """What the owner's live clusters hold."""
        with self.ledger.read() as tx:
            return _account(cluster for cluster in tx.live() if cluster.owner == owner)

    # -- decisions -------------------------------------------------------------------------------------

    def _decide(self, tx: Transaction, ask: Ask) -> tuple[Cluster, Decision]:
        cluster_id = secrets.token_hex(6)
        asked = admission.Ask(cluster_id, ask.name, ask.plan)
        decision = self._verdict(tx.live(), asked, ask.owner)
        admitted = decision.verdict is Verdict.ADMIT
        cluster = Cluster(
            id=cluster_id,
            name=ask.name,
            owner=ask.owner,
            team=self._project.policy.limits_of(ask.owner).team,
            workload=ask.workload,
            plan=ask.plan,
            state=State.ADMITTED if admitted else State.REFUSED,
            reason=decision.reason,
            message=decision.message,
            since=tx.now,
            created=tx.now,
            admitted_at=tx.now if admitted else None,
            ended_at=None if admitted else tx.now,
            tags=dict(ask.tags),
        )
        return cluster, decision

    def _verdict(self, live: list[Cluster], ask: admission.Ask, owner: str) -> Decision:
        limits = self._project.policy.limits_of(owner)
        machine = self._project.target.machine
        return admission.decide(
            ask,
            limits,
            _account(cluster for cluster in live if cluster.owner == owner),
            _account(c for c in live if c.team == limits.team) if limits.team is not None else None,
            Place(look_up(machine), Account({c.id: real(c.plan) for c in live})) if machine else None,
            {cluster.id: cluster.name for cluster in live},
        )

    # -- heads -----------------------------------------------------------------------------------------

    def _launch(self, cluster: Cluster) -> Cluster:
        try:
            head = launch(cluster.id, self._environment())
        except InfrastructureError as error:
            with self.ledger.write() as tx:
                tx.move(cluster.id, State.FAILED, Reason.START_FAILED, error.message)
            raise
        with self.ledger.write() as tx:
            if not tx.get(cluster.id).head:
                tx.update(cluster.id, head=head)
            return tx.get(cluster.id)

    def _environment(self) -> dict[str, str]:
        """What a head and its workers have to know: the ledger, and the catalog with its credentials."""
        catalog = settings()
        return {
            "SHOAL_LEDGER": self.ledger.url.render_as_string(hide_password=False),
            "SHOAL_DATA": str(paths.data_folder().absolute()),
            "SHOAL_CATALOG_URI": catalog.uri,
            "SHOAL_CATALOG_WAREHOUSE": catalog.warehouse,
            "SHOAL_CATALOG_PROPERTIES": json.dumps(dict(catalog.properties)),
        }

    # -- what is gone ----------------------------------------------------------------------------------

    def _gone(self, cluster: Cluster, now: float) -> tuple[State, Reason, str] | None:
        """Why a live cluster is not there any more; None while it is, or while that is unknown."""
        if cluster.state.ended or cluster.state is State.QUEUED:
            return None
        if not cluster.head:
            if now - (cluster.admitted_at or cluster.created) < HEADLESS:
                return None
            return State.FAILED, Reason.START_FAILED, f"no head appeared within {HEADLESS:.0f} s"
        alive = is_alive(cluster.head)
        if alive or (alive is None and now - (cluster.renewed_at or cluster.created) < SILENT):
            return None
        if cluster.state is State.STOPPING:
            return State.STOPPED, cluster.reason, cluster.message
        if alive is None:
            return State.FAILED, Reason.HEAD_LOST, f"its head was not heard of for {SILENT:.0f} s"
        return (
            State.FAILED,
            Reason.HEAD_CRASHED,
            f"its head (pid {cluster.head['pid']}) ended without a word; `shoal logs {cluster.name}`",
        )

    def _reconcile(self, tx: Transaction) -> list[Cluster]:
        """Note as ended what is gone, so that it holds nothing; returns those clusters."""
        reap()
        ended = []
        for cluster in tx.live():
            if (end := self._gone(cluster, tx.now)) is not None:
                tx.move(cluster.id, *end, workers=0)
                ended.append(cluster)
        return ended

    def _settled(self, cluster_id: str) -> Cluster:
        with self.ledger.write() as tx:
            ended = self._reconcile(tx)
            cluster = tx.get(cluster_id)
        self._tidy(ended)
        return cluster

    def _tidy(self, ended: list[Cluster]) -> None:
        """End what heads left behind, and their secrets."""
        for cluster in ended:
            end_marked(cluster.id)
            endpoints.forget(paths.run_folder(cluster.id))
            paths.tidy(paths.run_folder(cluster.id))


def _account(clusters: Iterable[Cluster]) -> Account:
    return Account({cluster.id: amounts(cluster.plan) for cluster in clusters})


def _same(known: Cluster, ask: Ask) -> Cluster:
    """The live cluster of that name, if it is of the kind that was asked for."""
    if (known.plan.template, known.plan.engine) == (ask.plan.template, ask.plan.engine):
        return known
    raise UsageError(
        f"you have a live cluster named {ask.name!r}, and it is {known.plan.template} on {known.plan.engine}",
        hint=f"Choose another name, or end it: shoal down {ask.name}",
        name=ask.name,
    )
