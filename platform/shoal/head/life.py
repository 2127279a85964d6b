"""The head's life: start the engine, look after it, keep its lease, end for a reason.

Why it exists: a running cluster is owned by exactly one program, which ends it with nobody calling.

What it must not do: admit (its home did), or know more of an engine than ``engine`` says.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shoal.engines.packages import install
from shoal.engines.port import EngineHost, Sample, Site
from shoal.engines.watch import Watch
from shoal.errors import InfrastructureError, ShoalError
from shoal.governor.ends import Sentence, ahead, due
from shoal.head.effort import Effort
from shoal.head.serving import News, Scaling, counts
from shoal.head.status import StatusServer
from shoal.homes.base import Wishes
from shoal.machine.crash import CrashPoint, reached
from shoal.machine.processes import end_marked
from shoal.model.cluster import FAILURES, Cluster, Reason, State
from shoal.model.codec import plain
from shoal.model.report import Usage
from shoal.model.status import HeadStatus, NextEnd
from shoal.model.workload import Engine
from shoal.units import Bytes, Seconds

if TYPE_CHECKING:
    from shoal.homes.base import Desk

_log = logging.getLogger("shoal.head")


class _ToldToEnd(Exception):
    """A signal came while the engine was starting."""


class Head:
    """Owns the cluster of one record, from Admitted to its end."""

    def __init__(self, desk: Desk, guard: int | None = None) -> None:
        self._desk = desk
        self._guard = guard
        self._id = desk.id
        self._engine: EngineHost | None = None
        self._look = Sample()
        self._samples: list[list[float]] = []
        self._worker_seconds = 0.0
        self._group_seconds: dict[str, float] = {}
        self._watch: Watch | None = None
        self._ends_in: NextEnd | None = None
        self._terminated = False
        self._wakes, self._wake = os.pipe()  # a signal ends a sleep
        self._since = self._seen = time.monotonic()
        self._phase = State.STARTING
        reached(CrashPoint.HEAD_BORN)
        self._status = StatusServer(
            lambda: plain(self.status()), desk.token, desk.stand.host, desk.stand.status_port
        )
        desk.born(self._status.url)

    @property
    def _cluster(self) -> Cluster:
        return self._desk.cluster

    def run(self) -> int:
        """The whole life. Exit code 0 after an end for a reason, 1 after a failure."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        if self._cluster.state.ended:
            return 0
        reached(CrashPoint.HEAD_RECORDED)
        self._desk.let_in()
        try:
            reason, message = self._start()
            if reason is None:
                reason, message = self._serve()
        except _ToldToEnd:
            wishes = self._wishes()
            reason, message = wishes.stop or Reason.STOPPED_BY_USER, wishes.message
        except ShoalError as error:
            reason = Reason.PACKAGES_FAILED if "packages" in error.values else Reason.START_FAILED
            message = str(error)
        except Exception as error:  # a fault of ours or of an engine: the record says so, not only a log
            _log.exception("the head failed")
            reason, message = Reason.HEAD_CRASHED, f"{type(error).__name__}: {error}"
        return self._end(reason, message)

    def status(self) -> HeadStatus:
        """What ``GET /v1/status`` tells."""
        look, ends_in = self._look, self._ends_in
        return HeadStatus(
            id=self._id,
            phase=self._phase,
            ends_in=ends_in and replace(ends_in, seconds=Seconds(round(ends_in.seconds, 1))),
            clients=look.clients,
            busy=look.busy,
            workers=look.workers,
            memory=Bytes(look.memory),
            peak_memory=Bytes(look.peak_memory),
            limit=Bytes(look.limit),
            spilled=Bytes(look.spilled),
            cpu_seconds=look.cpu_seconds,
            restarts=look.restarts,
            note=look.note,
            worker_pids=look.worker_pids,
            retired=look.retired,
            groups=look.groups,
            room=Bytes(look.room),
        )

    def _start(self) -> tuple[Reason | None, str]:
        """Bring the engine up. A reason to end instead of None when it was asked to stop meanwhile."""
        plan = self._cluster.plan
        deadline = time.monotonic() + float(os.environ.get("SHOAL_START_LIMIT") or self._desk.periods.start)
        self._desk.say(Reason.HEAD_STARTING, f"the head is running (pid {os.getpid()})")
        reached(CrashPoint.HEAD_STARTING)
        with self._listening():
            desk, locked = self._desk, tuple[str, ...]()
            if plan.packages:
                desk.say(Reason.HEAD_STARTING, f"installing {', '.join(plan.packages)}")
                locked = install(plan.packages, desk.folder / "packages", deadline)
            self._site = Site(self._id, plan, desk.folder, desk.token, self._guard, desk.stand, locked)
            self._engine = _engine(plan.engine, self._site)
            endpoint = self._engine.start(self._desk.say, deadline)
        reached(CrashPoint.HEAD_ENGINE_UP)
        self._desk.serves(endpoint)
        self._look = self._engine.observe() or self._look
        reached(CrashPoint.HEAD_BEFORE_READY)
        wishes = self._desk.ready(self._look.workers)
        if wishes.stop is not None:
            return wishes.stop, wishes.message
        self._phase = State.READY
        return None, ""

    def _serve(self) -> tuple[Reason, str]:
        """Until there is a reason to end."""
        engine = self._engine
        if engine is None:
            raise InfrastructureError("the engine was not started")
        timeouts = self._cluster.plan.timeouts
        self._watch = Watch.begin(time.monotonic())
        effort = Effort(self._site.tree(), timeouts, self._look, time.monotonic())
        news, scaling = News(self._desk, self._look), Scaling(engine, self._desk)
        while True:
            self._sleep()
            reached(CrashPoint.HEAD_SERVING)
            if (failure := engine.failure()) is not None:
                return Reason.HEAD_CRASHED, f"{failure}; `shoal logs {self._cluster.name}`"
            if (closed := engine.closed()) is not None:
                return Reason.STOPPED_BY_USER, closed
            look = engine.observe()
            now = time.monotonic()
            look = effort.added(look, now)
            self._watch = self._watch.seen(look, now)
            self._ends_in = ahead(self._watch.pulse(self._since, now), timeouts)
            if look is not None:
                self._note(look)
                news.tell(look)
                scaling.give_back(look)
            wishes = self._wishes()
            if wishes.stop is not None:
                return wishes.stop, wishes.message
            if wishes.longest is not None:
                timeouts = self._cluster.plan.timeouts.lasting(Seconds(wishes.longest))
            scaling.follow(wishes)
            if look is not None:
                scaling.adapt(now)
            scaling.grow()
            if (end := due(self._watch.pulse(self._since, now), timeouts)) is not None:
                return end

    def _wishes(self) -> Wishes:
        """What it is asked to do, by its home or by a signal."""
        if not self._terminated:
            return self._desk.report(self._look.workers, self.usage())
        wishes = self._desk.wishes()
        message = wishes.message or Sentence.SIGNALLED
        return replace(wishes, stop=wishes.stop or Reason.STOPPED_BY_USER, message=message)

    def _end(self, reason: Reason, message: str) -> int:
        self._phase = State.STOPPING
        self._desk.ending(reason, message)
        reached(CrashPoint.HEAD_STOPPING)
        self._stop_engine()
        reached(CrashPoint.HEAD_BEFORE_END)
        recorded = self._desk.ended(reason, message, self.usage())
        self._status.close()
        return int(reason in FAILURES or not recorded)

    def _stop_engine(self) -> None:
        if self._engine is None:
            return
        try:
            if (look := self._engine.observe()) is not None:
                self._note(look)
            self._engine.stop()
        except Exception:  # whatever an engine does at its end, the record has to say that it ended
            _log.exception("the engine could not be stopped")
        end_marked(self._id, guard=self._guard)  # what user code started on the workers

    def usage(self) -> Usage:
        """What the cluster used, up to the last look."""
        look = self._look
        return Usage(
            idle=round(self._watch.idle(time.monotonic()), 1) if self._watch is not None else 0.0,
            ends_in=None
            if self._ends_in is None
            else (self._ends_in.reason.value, round(self._ends_in.seconds, 1)),
            peak_worker_memory=Bytes(look.peak_memory),
            peak_memory=Bytes(max((sample[2] for sample in self._samples), default=look.memory)),
            worker_memory_limit=Bytes(look.limit),
            spilled=Bytes(look.spilled),
            cpu_seconds=round(look.cpu_seconds, 2),
            restarts=look.restarts,
            restart_note=look.note,
            samples=tuple((at, workers, held) for at, workers, held in self._samples),
            worker_seconds=round(self._worker_seconds, 1),
            seen=round(self._seen - self._since, 1),
            group_seconds={name: round(its, 1) for name, its in self._group_seconds.items()},
        )

    def _note(self, look: Sample) -> None:
        now = time.monotonic()
        before = self._look.workers if self._samples else self._cluster.plan.workers
        self._worker_seconds += before * (now - self._seen)
        if look.groups:
            there = self._look.groups if self._samples else counts(self._cluster.plan)
            for name, many in there.items():
                self._group_seconds[name] = self._group_seconds.get(name, 0.0) + many * (now - self._seen)
        self._seen = now
        note = look.note or self._look.note
        self._look = replace(
            look,
            note=note,
            peak_memory=max(look.peak_memory, self._look.peak_memory),
            spilled=max(look.spilled, self._look.spilled),
        )
        self._samples.append([round(now - self._since, 1), look.workers, look.memory])
        if len(self._samples) > 400:  # halve: a long life keeps its shape in some hundred points
            self._samples = self._samples[::2]

    def _sleep(self) -> None:
        """Until the next look; told to end, it wakes."""
        if not self._terminated:
            select.select([self._wakes], [], [], self._desk.periods.tick)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """While it starts: a home that cannot signal says in its record that it is to end."""
        over = threading.Event()

        def listen() -> None:
            while not over.wait(self._desk.periods.tick):
                if self._desk.wishes().stop is not None:
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

        listener = threading.Thread(target=listen, name="listens while starting", daemon=True)
        listener.start()
        try:
            yield
        finally:
            over.set()
            listener.join()

    def _on_signal(self, number: int, _frame: Any) -> None:
        if self._terminated:
            return  # whoever tells the guard and the head tells it twice
        self._terminated = True
        os.write(self._wake, b"!")
        if self._phase is State.STARTING:
            # A start may wait for minutes; leave it at once, and let _end tidy up after it.
            raise _ToldToEnd


def _engine(engine: Engine, site: Site) -> EngineHost:
    """Only the one that is asked for is imported."""
    if engine is Engine.DASK:
        from shoal.engines.dask.host import DaskHost

        return DaskHost(site)
    from shoal.engines.spark.host import SparkHost

    return SparkHost(site)
