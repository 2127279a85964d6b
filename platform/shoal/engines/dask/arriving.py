"""A Dask cluster's workers where its home starts them: they come by themselves, and leave through the scheduler.

Why it exists: in pods a head may neither start nor end a worker. It waits for those that its home starts, retires
the surplus (which moves results that only they hold) and tells which ones may be ended; what they use is known by
what they tell, since their pids are on other machines.

What it must not do: say how many are wanted, or take a worker away that was not retired.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from distributed import SchedulerPlugin

from shoal.engines.dask import worker_usage
from shoal.engines.dask.asked import restart_note
from shoal.engines.dask.counted import MEMORY_TOPIC, TRY_EVERY, Counted
from shoal.engines.port import Site

_BACK = 10.0  # s in which a worker that left may come back: its nanny starts it again
_SETTLE = (
    60.0  # s that more than wanted may be there: a home may start workers before its head hears of the wish
)
_HOSTS = (
    60.0  # s that a worker's address is known as one after it left: what its tasks started may outlive it
)
_NAMES = 2000  # of retired workers that are told, the last ones


class Arriving(Counted):
    """The workers of one scheduler that somebody else starts. All methods run on its loop."""

    def __init__(self, site: Site, scheduler: Any) -> None:
        super().__init__(site, scheduler)
        self._arrivals = _Arrivals()
        self._known: dict[str, str] = {}  # name -> address
        self._away: dict[str, float] = {}
        self._hosts: dict[str, float] = {}
        self._retired: dict[str, None] = {}  # in the order in which they were
        self._surplus_since: float | None = None
        scheduler.add_plugin(self._arrivals)

    pids: Collection[int] = ()
    """None that could be looked at from here."""

    @property
    def memory(self) -> int:
        """Of all of them now, in bytes."""
        return sum(int(worker.metrics.get("memory", 0)) for worker in self._there())

    @property
    def elsewhere(self) -> Mapping[str, float]:
        """Core-seconds so far of each process there."""
        return {
            f"{worker.name}/{pid}": float(used)
            for worker in self._there()
            for pid, used in worker.metrics.get(worker_usage.METRIC, {}).get("processes", {}).items()
        }

    @property
    def retired(self) -> tuple[str, ...]:
        """Names of those that were retired: exactly they may be ended. One of that name that came again is not."""
        return tuple(self._retired)[-_NAMES:]

    @property
    def hosts(self) -> Collection[str]:
        """From which addresses workers, and what their tasks started, connect."""
        return self._hosts.keys()

    async def reach(self, wanted: Mapping[str, int]) -> None:
        """From now on this many by group. Of fewer than before the surplus is retired; for what is missing it waits."""
        fewer = any(many < self._wanted[name] for name, many in wanted.items())
        self._wanted = dict(wanted)
        if fewer:  # who waits may give up; what was begun is finished
            await asyncio.shield(asyncio.ensure_future(self._retire()))
        while self._wanted == wanted and any(more < 0 for more in self._surplus().values()):
            await self._arrivals.next()

    def look(self) -> None:
        """Take note of who came, left and was restarted; retire a surplus that stays. Returns at once."""
        now = time.monotonic()
        self._measure(now)
        if self._changing.locked() or str(self._scheduler.status.name) != "running":
            return
        self._compare(now)
        if all(more <= 0 for more in self._surplus().values()):
            self._surplus_since = None
            return
        if self._surplus_since is None:
            self._surplus_since = now
        if now - self._surplus_since < _SETTLE or now < self._next_try:
            return
        if self._work is None or self._work.done():
            self._next_try = now + TRY_EVERY
            self._work = asyncio.ensure_future(self._retire())

    async def close(self) -> None:
        """They end as their scheduler does, which tells them so."""

    def _there(self) -> Iterator[Any]:
        return iter(self._scheduler.workers.values())

    async def _retire(self) -> None:
        async with self._changing:
            for group, surplus in self._surplus().items():
                if surplus <= 0:
                    continue
                self._compare(time.monotonic())
                self._surplus_since = time.monotonic() - _SETTLE  # who cannot leave now is tried again soon
                for name in await self.kinds.retire(group, surplus, close=True):
                    self._retired.pop(name, None)
                    self._retired[name] = None
                    self._forget(name)

    def _surplus(self) -> dict[str, int]:
        """By group, how many more are there than wanted."""
        return {name: len(its) - self._wanted[name] for name, its in self.kinds.there().items()}

    def _measure(self, now: float) -> None:
        for worker in self._there():
            used = worker.metrics.get(worker_usage.METRIC, {})
            held = int(worker.metrics.get("memory", 0))
            self._peak = max(self._peak, held, int(used.get("peak", 0)))
            self._cpu[worker.address] = max(float(used.get("cpu", 0.0)), self._cpu.get(worker.address, 0.0))
            self._hosts[worker.host] = now
        self._hosts = {host: seen for host, seen in self._hosts.items() if now - seen < _HOSTS}

    def _compare(self, now: float) -> None:
        """Who is there with who was there."""
        there = {str(worker.name): worker for worker in self._there()}
        for name, worker in there.items():
            before = self._known.get(name)
            self._known[name] = worker.address
            self._away.pop(name, None)
            if before is None:
                self._retired.pop(name, None)
            elif before != worker.address and self._asked.take(name):
                self._note = restart_note(name)
            elif before != worker.address:
                self._tell(self._why_again(name, before, worker))
        for name in [name for name in self._known if name not in there]:
            if now - self._away.setdefault(name, now) > _BACK:
                self._forget(name)
                self._tell(f"worker {name} left; its home starts another one")

    def _why_again(self, name: str, before: str, worker: Any) -> str:
        from distributed.comm import get_address_host

        if get_address_host(before) != worker.host:
            return f"worker {name} left; another one took its place"
        killed = {event.get("worker"): event for _, event in self._scheduler.get_events(MEMORY_TOPIC)}
        if (event := killed.get(before)) is None:
            return f"worker {name} was restarted: its process had ended"
        used = int(event.get("rss", 0))
        self._peak = max(self._peak, used)
        return f"worker {name} was restarted: it used {used / 1e6:.0f} MB of its {worker.memory_limit / 1e6:.0f} MB"

    def _forget(self, name: str) -> None:
        self._known.pop(name, None)
        self._away.pop(name, None)


class _Arrivals(SchedulerPlugin):  # type: ignore[misc]
    """Wakes who waits for workers."""

    name = "shoal-arrivals"

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def add_worker(self, scheduler: Any, worker: str) -> None:
        self._news.set()

    async def next(self) -> None:
        """Until one came, or for a moment: also who was to wait for may have changed."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), 1.0)
