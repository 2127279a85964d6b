"""The local home's desk: what a head reports is written into the ledger, and what it asks for is decided there.

Why it exists: a ledger may be away: its server restarts, its disk is full, another process holds its lock. On one
machine nobody needs a lease to see that a head lives, so it keeps running for as long as it takes, and its own limits
still hold; on several machines it ends before the others count it as gone. What could not be written is in the
head's own copy, in which whoever finds it gone reads why it ended.

What it must not do: decide when the cluster ends, or know an engine. Light until it is told to prepare: a hundred
heads may wait on one machine.
"""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from shoal.errors import DeadlineError, InfrastructureError, ShoalError
from shoal.governor.ends import End, Phase, Pulse, Sentence, serving
from shoal.homes.base import Wishes
from shoal.homes.local.periods import LOCAL
from shoal.machine import paths
from shoal.machine.processes import LEDGER, identity
from shoal.model.cluster import EXIT_CODE, Cluster, Reason, State
from shoal.model.stand import Stand
from shoal.units import Seconds

if TYPE_CHECKING:
    from shoal.homes.local.decisions import Governing
    from shoal.homes.local.ledger import Ledger
    from shoal.homes.local.transaction import Transaction
    from shoal.model.endpoint import Endpoint
    from shoal.model.report import Usage

_log = logging.getLogger("shoal.homes")
_NEEDED = ("ledger", "rebuild", "schema", "tidy", "endpoints", "steps")

_Told = TypeVar("_Told")


def insisted(what: Callable[[], _Told]) -> _Told:
    """Try again while the ledger is away, for a minute; then, or if it never will, InfrastructureError."""
    deadline = time.monotonic() + LOCAL.insist
    while True:
        try:
            return what()
        except InfrastructureError as error:
            if not error.values.get("away") or time.monotonic() > deadline:
                raise
            _log.warning("the ledger did not answer, trying again: %s", error.message)
            time.sleep(LOCAL.again)


class LocalDesk:
    """See :class:`shoal.homes.base.Desk`."""

    cluster: Cluster
    periods = LOCAL
    stand = Stand()

    def __init__(self, cluster_id: str) -> None:
        self.id = cluster_id
        self._renewed = self._audited = time.monotonic()
        self._away = False
        self._unread = ""

    @cached_property
    def token(self) -> str:
        return secrets.token_urlsafe(32)

    @cached_property
    def folder(self) -> Path:
        return paths.make_private(paths.run_folder(self.id))

    @cached_property
    def _ledger(self) -> Ledger:
        from shoal.homes.local.ledger import Ledger

        return insisted(lambda: Ledger(os.environ[LEDGER], LOCAL.head_lock))

    @property
    def _lease(self) -> float | None:
        return None if self._ledger.one_host else LOCAL.lease

    def wait(self) -> bool:
        from shoal.homes.local.waiting import wait_for_admission

        return wait_for_admission(self.id, os.environ[LEDGER])

    def prepare(self) -> None:
        for module in _NEEDED:
            importlib.import_module(f"shoal.homes.local.{module}")

    def born(self, status_url: str) -> Cluster:
        self._renewed = time.monotonic()
        where = identity() | {"status_url": status_url, "since": self._renewed}

        def write() -> Cluster:
            with self._ledger.write() as tx:
                tx.update(self.id, head=where | {"ledger": tx.ledger_path}, renewed_at=tx.now)
                return tx.get(self.id)

        self._keep(insisted(write))
        return self.cluster

    def let_in(self) -> None:
        from shoal.homes.local import endpoints

        endpoints.write_token(self.folder, self.token)

    def say(self, reason: Reason, message: str, state: State = State.STARTING) -> None:
        _log.info(message)
        try:
            with self._ledger.write() as tx:
                known = self._tell(tx, Pulse(phase=Phase(state, reason, message)))
                tx.update(self.id, renewed_at=tx.now)
        except InfrastructureError as error:
            _log.warning("the ledger could not be updated: %s", error.message)
            return
        if known.state.ended:
            raise DeadlineError("its record says that it ended while it was starting")
        self._renewed = time.monotonic()

    def serves(self, endpoint: Endpoint) -> None:
        from shoal.homes.local import endpoints

        endpoints.write(self.folder, endpoint)

    def ready(self, workers: int) -> Wishes:
        def write() -> tuple[Wishes, Cluster]:
            with self._ledger.write() as tx:
                wishes = tx.wishes(self.id)
                if wishes.stop is None:
                    self._tell(tx, Pulse(phase=serving(workers)))
                    tx.update(self.id, ready_at=tx.now, renewed_at=tx.now, workers=workers)
                return wishes, tx.get(self.id)

        wishes, cluster = insisted(write)
        self._keep(cluster)
        return wishes

    def look(self) -> Cluster:
        with self._ledger.read() as tx:
            self.cluster = tx.get(self.id)
        return self.cluster

    def report(self, workers: int, usage: Usage) -> Wishes:
        # Its end needs it, and takes long to import; the first work is served by now.
        importlib.import_module("shoal.homes.local.decisions")
        now = time.monotonic()
        try:
            if now - self._renewed >= LOCAL.renew or workers != self.cluster.workers:
                wishes = self._renew(workers, usage)
                self._renewed = now
                if now - self._audited >= LOCAL.audit:
                    self._audited = now
                    wishes = self._audit(wishes)
            else:
                with self._ledger.read() as tx:
                    wishes = tx.wishes(self.id)
        except InfrastructureError as error:
            return self._without_an_answer(error, now)
        if self._away:
            _log.info("the ledger answers again")
            self._away = False
        return wishes

    def wishes(self) -> Wishes:
        try:
            with self._ledger.read() as tx:
                return tx.wishes(self.id)
        except InfrastructureError:
            return Wishes()

    def resize(self, workers: int, group: str = "") -> None:
        governing = self._governing()
        if governing is None:
            return
        from shoal.homes.local import tidy
        from shoal.quota.admission import Verdict

        found = []
        with self._ledger.write() as tx:
            plan, wishes = tx.get(self.id).plan, tx.wishes(self.id)
            its = plan.group(group)
            have, asked = its.count, wishes.groups.get(its.name, 0)
            if its is plan.groups[0]:
                asked = wishes.workers or 0
            if workers < have:  # of what it holds, what a person asks for meanwhile is not given away
                workers = max(workers, min(have, asked))
            decision = governing.resize(tx, tx.get(self.id), workers, group)
            if decision.verdict is not Verdict.ADMIT and (decision.workers or 0) > have:
                governing.resize(tx, tx.get(self.id), decision.workers or have, group)
            self.cluster = tx.get(self.id)
            if workers < have:
                found = governing.settle(tx)
        tidy.follow(found)

    def retired(self, names: frozenset[str]) -> None:
        pass  # its head ends its workers itself

    def ending(self, reason: Reason, message: str) -> None:
        try:
            with self._ledger.write() as tx:
                self._tell(tx, Pulse(said=End(reason, message)))
        except ShoalError as error:
            _log.warning("could not note that it stops: %s", error)
            self._last_words(State.STOPPING, reason, message, {})

    def ended(self, reason: Reason, message: str, usage: Usage) -> bool:
        from shoal.homes.local import endpoints, steps, tidy

        end = End(reason, message)
        endpoints.forget(self.folder)
        paths.tidy(self.folder)
        governing = self._governing()  # before the transaction: others wait while it is open
        try:
            with self._ledger.write() as tx:
                tx.update(self.id, report=_reported(tx.get(self.id), usage))
                steps.ended(tx, tx.get(self.id), end)
                found = governing.settle(tx) if governing is not None else []
        except ShoalError as error:
            _log.error("could not note its end (%s: %s): %s", reason, message, error)
            self._last_words(end.state, reason, message, _reported(self.cluster, usage))
            return False
        tidy.follow(found)
        return True

    def _tell(self, tx: Transaction, pulse: Pulse) -> Cluster:
        """What its head sees of it: what follows from that is recorded. The record as it is then."""
        from shoal.homes.local import steps

        return steps.reported(tx, tx.get(self.id), pulse)

    def _governing(self) -> Governing | None:
        """The project's decisions; None when its folder is gone or broken by now."""
        # Not before it is Ready: a start does without, and what reads and decides takes long to import.
        from shoal.homes.local.decisions import Governing
        from shoal.project.loading import load

        try:
            target = os.environ.get("SHOAL_TARGET")
            project = load(Path(os.environ["SHOAL_PROJECT"]), target, tolerant=True)
            project.policy.check()
            return Governing(project)
        except (KeyError, ShoalError) as error:
            if str(error) != self._unread:  # it is read again and again: said once
                _log.warning("its project cannot be read, the queue is left to others: %s", error)
            self._unread = str(error)
            return None

    def _renew(self, workers: int, usage: Usage) -> Wishes:
        with self._ledger.write() as tx:
            known = tx.find(self.id)
            if known is None:
                return tx.wishes(self.id)
            if known.state.ended:
                return Wishes(stop=Reason.HEAD_LOST, message=Sentence.OVER)
            report = _reported(known, usage) | {"beat": time.monotonic()}
            tx.update(self.id, renewed_at=tx.now, workers=workers, report=report)
            wishes, cluster = tx.wishes(self.id), tx.get(self.id)
        self._keep(cluster)
        return wishes

    def _audit(self, wishes: Wishes) -> Wishes:
        """Nobody else may be looking: a cluster whose budget is used up ends all the same.

        ``wishes``: as they are; nothing is written where no budget ends anything.
        """
        governing = self._governing()
        if governing is None or not governing.project.policy.stops:
            return wishes
        with self._ledger.write() as tx:
            if not (cluster := tx.get(self.id)).state.ended:
                governing.hold_to_budget(tx, cluster)
            return tx.wishes(self.id)

    def _without_an_answer(self, error: InfrastructureError, now: float) -> Wishes:
        if not self._away:
            _log.warning("the ledger does not answer: %s", error.message)
            self._away = True
        if self._lease is not None and now - self._renewed > self._lease:
            message = Sentence.CUT_OFF.format(limit=Seconds(self._lease), error=error.message)
            return Wishes(stop=Reason.HEAD_LOST, message=message)
        return Wishes()

    def _keep(self, cluster: Cluster) -> None:
        """Also as its own copy, for the day that the ledger's file is damaged."""
        from shoal.homes.local import rebuild, schema

        self.cluster = cluster
        rebuild.write_record(self.folder, schema.to_copy(cluster))

    def _last_words(self, state: State, reason: Reason, message: str, report: dict[str, Any]) -> None:
        from shoal.homes.local import rebuild, schema

        said = {"state": state.value, "reason": schema.first_reason(reason), "message": message}
        ended = {"ended_at": time.time(), "workers": 0} if state.ended else {}
        row = schema.to_copy(self.cluster) | said | ended
        rebuild.write_record(self.folder, row | ({"report": report} if report else {}))


def _reported(known: Cluster, usage: Usage) -> dict[str, Any]:
    """What its record tells of it from now on; what somebody else than its head wrote stays."""
    from shoal.model.codec import plain

    report = {name: its for name, its in plain(usage).items() if name != EXIT_CODE}
    return report | {EXIT_CODE: known.report[EXIT_CODE]} if EXIT_CODE in known.report else report
