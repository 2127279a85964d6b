"""The governor as a program: it looks, does what follows, and waits until something changed.

Why it exists: on Kubernetes nobody else looks. It owes nothing to the round before, so it may be killed at any moment
and started again, and two of it do no harm.

What it must not do: decide (``governor.rounds``).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from shoal.errors import ShoalError, UsageError
from shoal.governor.cautious import Cautious
from shoal.governor.rounds import Governor, RoundPoint
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.drift import DriftWatch
from shoal.homes.kubernetes.in_force import NotAppliedError, Projects
from shoal.homes.kubernetes.isolation import IsolationWatch
from shoal.homes.kubernetes.leases import renew
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.names import GOVERNOR, ISOLATION
from shoal.homes.kubernetes.periods import KUBERNETES, TELLS
from shoal.homes.kubernetes.store import ObjectStore
from shoal.homes.kubernetes.watched import Watched
from shoal.machine.addresses import POD_IP
from shoal.machine.logs import set_up
from shoal.project.loading import Project

_log = logging.getLogger("shoal.homes")
# Clusters for which it acts beside each other: most of an act is waiting for the API server. With as many pods that are
# made meanwhile these are fewer requests at a time than its client keeps connections (20).
_AT_ONCE = 8
_ROUNDS = 20  # without a pause, while there is something to do
_SOON = 0.1  # s until it looks again where that is all it waits for
_SHARE = 0.05  # of a core that looks take, however often something changes
_REST = 1.0  # s, at most, that it waits for that
_ALIVE = 60.0  # s that a round may take before it counts as stuck


class GovernorProgram:
    """Governs a place by the projects that were applied to it, as they are at each round."""

    def __init__(
        self,
        api: Api,
        location: Location,
        reached: Callable[[RoundPoint], None] | None = None,
    ) -> None:
        self._api, self._location = api, location
        self._watched = Watched(location)
        self._drift = DriftWatch(api, location.system)
        self._projects = Projects(api, location.system, self._watched.projects, self._drift)
        self._store = ObjectStore(api, location, self._watched)
        self._isolation = IsolationWatch(api, in_pod=bool(os.environ.get(POD_IP)))
        self._reached = reached or (lambda point: None)
        self._over = threading.Event()
        self._last = time.monotonic()
        self._renewed, self._telling = -TELLS, threading.Lock()
        self._fault = "it has not run a round yet"
        self._look = 0.0  # s of CPU that the last look took
        self._governor: Governor | None = None
        self._pool = ThreadPoolExecutor(_AT_ONCE, "governs")

    def run(self) -> None:
        """Until :meth:`stop`. What fails is logged and tried again in the next round."""
        self._watched.start(self._api)
        while not self._over.is_set():
            self._watched.event.clear()
            try:
                self._tell_that_it_lives()
                self.round()
                self._say(str(NotAppliedError(self._location.system)) if self._store.unplanned else "")
            except ShoalError as error:
                self._fault = str(error)
                _log.warning("the round is tried again: %s", error)
                self._over.wait(1.0)
            except Exception as error:  # a defect; nobody would govern if it ended here
                self._fault = f"{type(error).__name__}: {error}"
                _log.exception("the round is tried again")
                self._over.wait(1.0)
            self._last = time.monotonic()  # a round that failed is no reason to start again
            if self._over.wait(min(_REST, self._look / _SHARE)):
                break
            self._watched.event.wait(_SOON if self._store.soon else KUBERNETES.look)

    def round(self) -> int:
        """One look and everything that follows from it, until nothing follows any more."""
        done, began = 0, time.thread_time()
        for _ in range(_ROUNDS):
            self._watched.event.clear()
            self._store.in_force = in_force = self._projects.look(tell=True)
            if self._governor is None:
                home, policy = Cautious(self._store), in_force.policy
                self._governor = Governor(home, policy, KUBERNETES, self._at, each=self._each)
            self._governor.policy = in_force.policy
            acted, news = self._governor.round(), self._store.tidy()
            done += acted + news
            # What was done and shows nowhere yet, such as that a head was told to end, would only be done again.
            if not news and not (acted and self._watched.event.is_set()):
                break
        self._isolation.look(lambda: self._watched.clusters.items().values())
        self._drift.look(lambda: self._watched.projects.items().values())
        self._look = time.thread_time() - began
        return done

    def _each(self, do: Callable[[Any], int], these: Iterable[Any]) -> list[int]:
        """Beside each other; none goes on when this is over, also where one has failed."""
        todo = [self._pool.submit(do, its) for its in these]
        wait(todo)
        faults = [error for each in todo if (error := each.exception()) is not None]
        for other in {str(error) for error in faults} - {str(error) for error in faults[:1]}:
            _log.warning("beside the fault that ends this round: %s", other)
        return [each.result() for each in todo]

    def _at(self, point: RoundPoint) -> None:
        """Between two acts of a round, of which there may be thousands: it lives."""
        self._last = time.monotonic()
        with suppress(ShoalError):
            self._tell_that_it_lives()
        self._reached(point)

    def _say(self, fault: str) -> None:
        if fault and fault != self._fault:
            _log.warning("%s", fault)
        self._fault = fault

    def _tell_that_it_lives(self) -> None:
        """Its Lease tells people and `shoal doctor` that somebody governs; it is not a lock."""
        if time.monotonic() - self._renewed < TELLS or not self._telling.acquire(blocking=False):
            return  # it is told, or is being told beside this act
        try:
            metadata: dict[str, Any] = {"name": GOVERNOR, "namespace": self._location.system}
            if self._isolation.said:
                metadata["annotations"] = {ISOLATION: self._isolation.said}
            renew(self._api, metadata, {"holderIdentity": f"{socket.gethostname()}-{os.getpid()}"})
            self._renewed = time.monotonic()
        finally:
            self._telling.release()

    def stop(self) -> None:
        """End after the round that goes on."""
        self._over.set()
        self._watched.stop()

    def healthy(self) -> bool:
        """Whether it went round lately, or has just begun."""
        return time.monotonic() - self._last < _ALIVE + KUBERNETES.look

    @property
    def fault(self) -> str:
        """Why its last round failed; empty: it did not."""
        return self._fault


def serve_health(governing: GovernorProgram, host: str, port: int) -> ThreadingHTTPServer:
    """``/healthz`` and ``/readyz``, for the kubelet; UsageError where the port is not to be had."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/healthz":
                self._answer(
                    200 if governing.healthy() else 503,
                    "" if governing.healthy() else "no round has finished lately",
                )
            elif self.path == "/readyz":
                self._answer(503 if governing.fault else 200, governing.fault)
            else:
                self._answer(404, "only /healthz and /readyz are served")

        def _answer(self, code: int, fault: str) -> None:
            data = json.dumps({"ok": code == 200, "fault": fault}).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        server = Server((host, port), Handler)
    except OSError as error:
        raise UsageError(
            f"{host} port {port} cannot be listened at: {error.strerror}",
            hint="Choose another one: --health PORT.",
        ) from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def governing_of(
    project: Project, health: int, system: str | None = None, namespaces: tuple[str, ...] = ()
) -> GovernorProgram:
    """For a project's target. Its files say where that is, and nothing else: see :mod:`in_force`.

    ``system``, ``namespaces``: where it is, whatever the files say.
    """
    location = Location.of(project.target)
    location = replace(
        location, system=system or location.system, namespaces=namespaces or location.namespaces
    )
    governing = GovernorProgram(Api.of(location.context), location)
    set_up(sys.stderr)
    if health:
        # In a pod the kubelet asks from outside; run by hand it is nobody else's.
        serve_health(governing, os.environ.get(POD_IP) or "127.0.0.1", health)
    return governing
