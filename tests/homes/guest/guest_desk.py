"""The guest home's desk: a head writes one file, its report, and reads another, its orders. It records nothing."""

from __future__ import annotations

import json
import logging
import os
import pickle
import secrets
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from shoal.errors import DeadlineError
from shoal.governor.periods import Periods
from shoal.homes.base import Wishes
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.codec import plain
from shoal.model.endpoint import Endpoint
from shoal.model.report import Usage
from shoal.model.stand import Stand
from shoal.units import Seconds
from shoal.words import count

_log = logging.getLogger("shoal.homes")


class GuestDesk:
    """For the head of one cluster, in its own folder."""

    # tick, renew, lease, silent, headless, start, overdue, stop
    periods = Periods(*map(Seconds, (0.5, 5, 30, 45, 60, 300, 60, 60)))
    # Where a test says so, it starts the workers itself.
    stand = Stand(**json.loads(os.environ.get("GUEST_STAND", "{}")))

    def __init__(self, cluster_id: str) -> None:
        self.id = cluster_id
        self.folder = Path(os.environ["GUEST_HEAD"])
        self._said: dict[str, Any] = {}
        self.cluster: Cluster

    @cached_property
    def token(self) -> str:
        return secrets.token_urlsafe(16)

    def wait(self) -> bool:
        return True  # its home starts it when it is admitted

    def prepare(self) -> None:
        pass

    def born(self, status_url: str) -> Cluster:
        self._say(status_url=status_url, state="Starting", reason="HeadStarting", message="its head lives")
        return self.look()

    def let_in(self) -> None:
        self._write("token", self.token)

    def say(self, reason: Reason, message: str, state: State = State.STARTING) -> None:
        _log.info(message)
        self._say(state=state, reason=reason, message=message)
        if self.look().state.ended:
            raise DeadlineError("its record says that it ended")

    def serves(self, endpoint: Endpoint) -> None:
        self._write("endpoint", json.dumps(asdict(endpoint)))

    def ready(self, workers: int) -> Wishes:
        wishes = self.wishes()
        if wishes.stop is None:
            said = f"{count(workers, 'worker')} ready"
            self._say(state=State.READY, reason=Reason.SERVING, message=said, workers=workers)
        return wishes

    def report(self, workers: int, usage: Usage) -> Wishes:
        self._say(workers=workers, usage=plain(usage))
        return self.wishes()

    def wishes(self) -> Wishes:
        self.cluster, wishes = self._orders()
        return wishes

    def look(self) -> Cluster:
        self.cluster, _ = self._orders()
        return self.cluster

    def resize(self, workers: int, group: str = "") -> None:
        if self.cluster.plan.group(group) is self.cluster.plan.groups[0]:
            self._say(wants=workers)

    def retired(self, names: frozenset[str]) -> None:
        self._say(retired=sorted(names))

    def ending(self, reason: Reason, message: str) -> None:
        self._say(stop=[reason, message])

    def ended(self, reason: Reason, message: str, usage: Usage) -> bool:
        for secret in ("token", "endpoint"):
            (self.folder / secret).unlink(missing_ok=True)
        self._say(usage=plain(usage), workers=0)
        return True

    def _orders(self) -> tuple[Cluster, Wishes]:
        cluster, wishes = pickle.loads((self.folder / "orders").read_bytes())
        return cluster, wishes

    def _say(self, **said: Any) -> None:
        self._said |= said
        self._write("report", json.dumps(self._said))

    def _write(self, name: str, text: str) -> None:
        fresh = self.folder / f".{name}"
        with open(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(text)
        fresh.replace(self.folder / name)
