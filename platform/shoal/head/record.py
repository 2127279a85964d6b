"""The head's side of its record in the ledger, and its own copy of it.

Why it exists: a ledger may be away: its server restarts, its disk is full, another process holds its lock. On one
machine nobody needs a lease to see that a head lives, so it lives on for as long as it takes, and its own limits
still hold; on several machines it ends before the others count it as gone. What it could not write is in its own
copy, in which whoever finds it gone reads why it ended.

What it must not do: decide when the cluster ends, or know an engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from shoal.errors import DeadlineError, InfrastructureError, ShoalError
from shoal.governor.ends import End
from shoal.homes.local import rebuild, schema
from shoal.homes.local.ledger import Ledger
from shoal.homes.local.periods import LOCAL
from shoal.homes.local.tidy import follow
from shoal.homes.local.transaction import Wishes
from shoal.model.cluster import Cluster, Reason, State
from shoal.words import count

if TYPE_CHECKING:
    from shoal.homes.local.decisions import Governing

RENEW, LEASE = LOCAL.renew, LOCAL.lease
WAIT = 5.0  # s that a head waits for the ledger at a time: its own limits come while it waits
_AGAIN = 0.5  # s between tries of what has to be written
_INSIST = 60.0  # s of such tries

_Told = TypeVar("_Told")


def insisted(what: Callable[[], _Told]) -> _Told:
    """Try again while the ledger is away, for a minute; then, or if it never will, InfrastructureError."""
    deadline = time.monotonic() + _INSIST
    while True:
        try:
            return what()
        except InfrastructureError as error:
            if not error.values.get("away") or time.monotonic() > deadline:
                raise
            print(f"shoal head: the ledger is asked again: {error.message}", flush=True)
            time.sleep(_AGAIN)


class OwnRecord:
    """One cluster's record, as its head reads and writes it. ``cluster`` is how it last knew it."""

    def __init__(self, ledger: Ledger, cluster_id: str, folder: Path) -> None:
        self._ledger, self._id, self._folder = ledger, cluster_id, folder
        self._lease = None if ledger.one_host else LEASE
        self._renewed = time.monotonic()
        self._away = False
        self.cluster: Cluster

    def born(self, head: Mapping[str, Any]) -> None:
        """Say where the head is and since when; without that it must not go on."""
        where = dict(head) | {"since": self._renewed}

        def write() -> Cluster:
            with self._ledger.write() as tx:
                tx.update(self._id, head=where | {"ledger": tx.place}, renewed_at=tx.now)
                return tx.get(self._id)

        self._keep(insisted(write))

    def say(self, reason: Reason, message: str, state: State = State.STARTING) -> None:
        """Tell a phase. DeadlineError where the record has ended; a ledger that is away is not told."""
        print(f"shoal head: {message}", flush=True)
        try:
            with self._ledger.write() as tx:
                told = tx.move(self._id, state, reason, message, renewed_at=tx.now)
        except InfrastructureError as error:
            print(f"shoal head: the ledger was not told: {error.message}", flush=True)
            return
        if not told:
            raise DeadlineError("its record says that it ended while it was starting")
        self._renewed = time.monotonic()

    def ready(self, workers: int) -> Wishes:
        """Say that it serves, which clients wait for. With a wish to stop nothing was said."""

        def write() -> tuple[Wishes, Cluster]:
            with self._ledger.write() as tx:
                wishes = tx.wishes(self._id)
                if wishes.stop is None:
                    said = f"{count(workers, 'worker')} ready"
                    more = {"ready_at": tx.now, "renewed_at": tx.now, "workers": workers}
                    tx.move(self._id, State.READY, Reason.SERVING, said, **more)
                return wishes, tx.get(self._id)

        wishes, cluster = insisted(write)
        self._keep(cluster)
        return wishes

    def look(self) -> Cluster:
        """Read it anew."""
        with self._ledger.read() as tx:
            self.cluster = tx.get(self._id)
        return self.cluster

    def wishes(self, workers: int, report: Callable[[Cluster], dict[str, Any]], terminated: bool) -> Wishes:
        """What it is asked to do, by the ledger or by a signal; renews the lease when it is time to."""
        now = time.monotonic()
        try:
            if not terminated and (now - self._renewed >= RENEW or workers != self.cluster.workers):
                wishes = self._renew(workers, report)
                self._renewed = now
            else:
                with self._ledger.read() as tx:
                    wishes = tx.wishes(self._id)
        except InfrastructureError as error:
            return self._without_an_answer(error, now, terminated)
        if self._away:
            print("shoal head: the ledger answers again", flush=True)
            self._away = False
        if terminated:
            told = "its head was told to end by a signal"
            stop = wishes.stop or Reason.STOPPED_BY_USER
            return replace(wishes, stop=stop, message=wishes.message or told)
        return wishes

    def _renew(self, workers: int, report: Callable[[Cluster], dict[str, Any]]) -> Wishes:
        with self._ledger.write() as tx:
            known = tx.find(self._id)
            if known is None:
                return tx.wishes(self._id)
            if known.state.ended:
                return Wishes(stop=Reason.HEAD_LOST, message="its record says that it ended")
            tx.update(
                self._id,
                renewed_at=tx.now,
                workers=workers,
                report=report(known) | {"beat": time.monotonic()},
            )
            wishes, cluster = tx.wishes(self._id), tx.get(self._id)
        self._keep(cluster)
        return wishes

    def _without_an_answer(self, error: InfrastructureError, now: float, terminated: bool) -> Wishes:
        if terminated:
            return Wishes(stop=Reason.STOPPED_BY_USER, message="its head was told to end by a signal")
        if not self._away:
            print(f"shoal head: the ledger does not answer: {error.message}", flush=True)
            self._away = True
        if self._lease is not None and now - self._renewed > self._lease:
            message = f"it could not reach the ledger for {self._lease:.0f} s: {error.message}"
            return Wishes(stop=Reason.HEAD_LOST, message=message)
        return Wishes()

    def stopping(self, reason: Reason, message: str) -> None:
        """Say that it stops; what the ledger is not told is in its own copy."""
        try:
            with self._ledger.write() as tx:
                tx.move(self._id, State.STOPPING, reason, message)
        except ShoalError as error:
            print(f"shoal head: could not note that it stops: {error}", flush=True)
            self._last_words(State.STOPPING, reason, message, {})

    def ended(
        self,
        governing: Governing | None,
        state: State,
        reason: Reason,
        message: str,
        report: Callable[[Cluster], dict[str, Any]],
    ) -> bool:
        """Say that it ended, and let whoever waits for what it held go on. False: only its copy says so."""
        from shoal.homes.local.steps import ended  # not before it is Ready: it takes long to import

        try:
            with self._ledger.write() as tx:
                known = tx.get(self._id)
                tx.update(self._id, report=report(known))
                ended(tx, tx.get(self._id), End(reason, message))
                found = governing.settle(tx) if governing is not None else []
        except ShoalError as error:
            print(f"shoal head: could not note its end ({reason}: {message}): {error}", flush=True)
            self._last_words(state, reason, message, report(self.cluster))
            return False
        follow(found)
        return True

    def _keep(self, cluster: Cluster) -> None:
        """Also as its own copy, for the day that the ledger's file is damaged."""
        self.cluster = cluster
        rebuild.write_record(self._folder, schema.to_copy(cluster))

    def _last_words(self, state: State, reason: Reason, message: str, report: dict[str, Any]) -> None:
        said = {"state": state.value, "reason": reason.value, "message": message}
        ended = {"ended_at": time.time(), "workers": 0} if state.ended else {}
        row = schema.to_copy(self.cluster) | said | ended
        rebuild.write_record(self._folder, row | ({"report": report} if report else {}))
