"""A Dask cluster's workers: as many as are wanted, and again as many when some left.

Why it exists: the number of workers is what ``scale`` said, or the plan. A nanny starts its worker again when the
process died. A worker that was retired or whose nanny gave up is gone for good: another one takes its place,
so that what is held for it in the account is there.

What it must not do: say how many are wanted.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import time
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from shoal.engines.dask.asked import restart_note
from shoal.engines.dask.counted import MEMORY_TOPIC, TRY_EVERY, Counted
from shoal.engines.dask.kinds import offered
from shoal.engines.limits import ENGINE
from shoal.engines.port import Site
from shoal.engines.watch import Losses
from shoal.errors import InfrastructureError
from shoal.machine import measure
from shoal.words import count


class Workers(Counted):
    """The nannies of one scheduler. All methods run on its loop."""

    def __init__(self, site: Site, scheduler: Any, security: Any) -> None:
        super().__init__(site, scheduler)
        self._site = site
        self._security = security
        self._nannies: dict[str, Any] = {}
        self._group: dict[str, str] = {}
        self._slots = itertools.count()
        self._losses = Losses()
        self._pids: dict[str, int] = {}
        self._deaths: dict[str, list[float]] = {}
        self._absent: dict[str, float] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> list[int]:
        """Of the workers' processes that are there."""
        return [n.process.pid for n in self._nannies.values() if n.process is not None and n.process.pid]

    hosts: Collection[str] = ()
    retired: tuple[str, ...] = ()
    elsewhere: Mapping[str, float] = MappingProxyType({})
    """Nothing of them is on another machine, and nobody else ends them."""

    @property
    def memory(self) -> int:
        """Of all of them now, in bytes."""
        return sum(measure.resident(pid) for pid in self.pids)

    async def reach(self, wanted: Mapping[str, int]) -> None:
        """From now on this many by group. Returns when they are there; fails where a new one does not start."""
        self._wanted = dict(wanted)
        # Who waits may give up; what was begun is finished, or a nanny would be nobody's.
        await asyncio.shield(asyncio.ensure_future(self._change()))

    def look(self) -> None:
        """Take note of who left; bring them back when it is time to. Returns at once."""
        now = time.monotonic()
        for pid in self.pids:
            self._peak = max(self._peak, measure.peak_resident(pid))
            self._cpu[pid] = measure.cpu_seconds(pid) or self._cpu.get(pid, 0.0)
        if self._changing.locked() or str(self._scheduler.status.name) != "running":
            return
        self._note_deaths(now)
        if gone := self._gone(now):
            self._losses = self._losses.lost(now)
            for name, why in gone.items():
                nanny = self._nannies.pop(name)
                self._forget(name)
                self._closing = {task for task in self._closing if not task.done()}
                self._closing.add(asyncio.ensure_future(_closed(nanny)))
                self._tell(f"worker {name} {why}; another one takes its place")
            if (pause := self._losses.wait(now)) > 0:
                self._tell(f"workers keep leaving: the next one is started in {pause:.0f} s", more=True)
        if not any(self._missing().values()) or self._losses.wait(now):
            return
        if now >= self._next_try and (self._work is None or self._work.done()):
            self._next_try = now + TRY_EVERY
            self._work = asyncio.ensure_future(self._bring_back())

    async def close(self) -> None:
        """End all of them."""
        nannies = list(self._nannies.values())
        await asyncio.gather(
            *(nanny.close(timeout=5, reason="cluster ends") for nanny in nannies), return_exceptions=True
        )

    async def _bring_back(self) -> None:
        try:
            await self._change()
        except Exception as error:  # whatever kept it from starting: told, and tried again later
            self._losses = self._losses.lost(time.monotonic())
            pause = self._losses.wait(time.monotonic())
            again = f"in {pause:.0f} s" if pause else "now"
            self._tell(f"workers do not start, trying again {again}: {error}")

    async def _change(self) -> None:
        async with self._changing:
            missing = self._missing()
            if more := {group: many for group, many in missing.items() if many > 0}:
                await self._add(more)
            for group, many in missing.items():
                if many < 0:
                    await self._remove(-many, group)

    def _missing(self) -> dict[str, int]:
        """By group, how many fewer are there than wanted; below 0: how many more."""
        there = collections.Counter(self._group[name] for name in self._nannies)
        return {group: wanted - there[group] for group, wanted in self._wanted.items()}

    async def _add(self, counts: Mapping[str, int]) -> None:
        import distributed

        fresh = {}
        for group in (self._site.plan.group(name) for name, many in counts.items() for _ in range(many)):
            name = f"s-{next(self._slots)}"
            self._group[name] = group.name
            threads = max(1, int(group.there.cores))
            fresh[name] = distributed.Nanny(
                self._scheduler.address,
                host="127.0.0.1",
                protocol="tls",
                security=self._security,
                name=name,
                nthreads=threads,
                memory_limit=int(group.there.memory),
                local_directory=str(self._site.folder / "scratch"),
                resources=offered(group.name if self.kinds.several else "", threads, group.gpus) or None,
            )
        started = await asyncio.gather(*fresh.values(), return_exceptions=True)
        failed = [error for error in started if isinstance(error, BaseException)]
        self._nannies |= {
            name: nanny
            for (name, nanny), done in zip(fresh.items(), started, strict=True)
            if not isinstance(done, BaseException)
        }
        for name in fresh:  # a process that dies before the next look is missed then
            if name in self._nannies and self._nannies[name].pid:
                self._pids[name] = self._nannies[name].pid
        for error in failed:
            if isinstance(error, OSError):
                raise error
            told = f"{len(failed)} of {count(sum(counts.values()), 'worker')} did not start: {error}"
            raise InfrastructureError(told) from error

    async def _remove(self, count: int, group: str) -> None:
        """First who is not there, then through the scheduler, which moves results that only they hold."""
        there = {worker.name for worker in self._scheduler.workers.values()}
        its = [name for name in self._nannies if self._group[name] == group]
        absent = [name for name in its if name not in there][:count]
        left = count - len(absent)
        retired = await self.kinds.retire(group, left, close=False) if left else []
        gone = {*retired, *absent}
        nannies = [self._nannies.pop(name) for name in gone if name in self._nannies]
        for name in gone:
            self._forget(name)
        await asyncio.gather(*(nanny.close(reason="scaled down") for nanny in nannies))

    def _note_deaths(self, now: float) -> None:
        """Processes that nannies replaced, or are about to replace."""
        killed = {event.get("pid"): event for _, event in self._scheduler.get_events(MEMORY_TOPIC)}
        for name, nanny in self._nannies.items():
            pid = nanny.process.pid if nanny.process is not None else None
            before = self._pids.get(name)
            if not pid or pid == before:
                continue
            self._pids[name] = pid
            if before is None:
                continue
            if self._asked.take(name):
                self._note = restart_note(name)
                continue
            recent = [each for each in self._deaths.get(name, []) if now - each < ENGINE.deaths_within]
            self._deaths[name] = [*recent, now]
            if (event := killed.get(before)) is not None:
                limit = self.kinds.memory(self._group[name])
                self._tell(
                    f"worker {event.get('worker')} (pid {before}) was restarted: it used "
                    f"{event.get('rss', 0) / 1e6:.0f} MB of its {limit / 1e6:.0f} MB"
                )
            else:
                self._tell(f"worker {name} was restarted: its process (pid {before}) had ended")

    def _gone(self, now: float) -> Mapping[str, str]:
        """Who will not come back by itself, and why."""
        there = {worker.name for worker in self._scheduler.workers.values()}
        gone = {}
        for name, nanny in self._nannies.items():
            if name in there:
                self._absent.pop(name, None)
            else:
                self._absent.setdefault(name, now)
            if nanny.status.name in ("closed", "failed", "closing"):
                gone[name] = "left (it was retired, or gave up)"
            elif len(self._deaths.get(name, [])) >= ENGINE.deaths:
                gone[name] = f"ended {ENGINE.deaths} times within {ENGINE.deaths_within:.0f} s"
            elif now - self._absent.get(name, now) > ENGINE.absent:
                gone[name] = f"was not registered for {ENGINE.absent:.0f} s"
        return gone

    def _forget(self, name: str) -> None:
        self._pids.pop(name, None)
        self._deaths.pop(name, None)
        self._absent.pop(name, None)


async def _closed(nanny: Any) -> None:
    with contextlib.suppress(Exception):  # it had given up
        await nanny.close(timeout=5, reason="gone")
