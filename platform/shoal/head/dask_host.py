"""Dask inside the head: the scheduler and the workers' nannies on one loop in a thread.

Why it exists: one process for scheduler and nannies starts as fast as a bare LocalCluster, and its death
takes the workers with it.

What it must not do: decide when to end (``watch`` does), or know the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from shoal.errors import DeadlineError, InfrastructureError
from shoal.head import measure
from shoal.head.engine import Observation, Say, Site
from shoal.homes.base import Endpoint
from shoal.records import Reason
from shoal.words import count

_Result = TypeVar("_Result")
_LOOK = 2.0  # s that a look may take before it counts as unknown
_MEMORY_TOPIC = "worker-restart-memory"  # what nannies log when they end a worker over its limit


class DaskHost:
    """One scheduler with the plan's workers on this machine."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dask", daemon=True)
        self._scheduler: Any = None
        self._security: dict[str, str] = {}
        self._tls: Any = None
        self._dashboard = ""
        self._nannies: dict[str, Any] = {}
        self._slots = itertools.count()
        self._wanted = site.plan.workers
        self._scaling = threading.Lock()
        self._peak = 0
        self._cpu_of_gone: dict[int, float] = {}

    def start(self, say: Say, deadline: float) -> Endpoint:
        self._thread.start()
        say(Reason.HEAD_STARTING, "starting the Dask scheduler")
        address = self._call(self._start_scheduler(), deadline, "the Dask scheduler to listen")
        group = self._site.plan.groups[0]
        say(Reason.WORKERS_STARTING, f"starting {count(self._wanted, 'worker')} of {group.there.memory} each")
        self._call(self._add(self._wanted), deadline, f"{self._wanted} workers to register")
        return Endpoint(address, self._site.token, self._dashboard, self._security)

    def observe(self) -> Observation | None:
        try:
            return self._call(self._look(), time.monotonic() + _LOOK, "the scheduler's state")
        except DeadlineError:
            return None

    def failure(self) -> str | None:
        return None if self._thread.is_alive() else "the scheduler's loop ended"

    def scale(self, workers: int) -> None:
        self._wanted = workers
        threading.Thread(target=self._rescale, name="scale", daemon=True).start()

    def desired(self) -> int | None:
        try:
            return self._call(self._target(), time.monotonic() + _LOOK, "the scheduler's wish")
        except DeadlineError:
            return None

    def stop(self) -> None:
        with contextlib.suppress(DeadlineError, InfrastructureError):
            self._call(self._close(), time.monotonic() + 10, "workers to end")
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _rescale(self) -> None:
        with self._scaling, contextlib.suppress(InfrastructureError):
            more = self._wanted - len(self._nannies)
            deadline = time.monotonic() + 120
            if more > 0:
                self._call(self._add(more), deadline, f"{more} more workers to register")
            elif more < 0:
                self._call(self._remove(-more), deadline, f"{-more} workers to retire")

    async def _start_scheduler(self) -> str:
        import dask
        import distributed

        from shoal.head.certificate import make_certificate, name_of
        from shoal.head.dashboard import Guard, link, secret_of
        from shoal.head.dask_code import ClientsCode

        # Dask looks 20 times a second whether a worker is there; a forked one is there sooner.
        distributed.nanny.WorkerProcess._init_msg_interval = 0.01
        dask.config.set({"distributed.worker.preload": ["shoal.head.worker_setup"]})
        if self._site.plan.packages:
            # A fork has what was imported before they were installed.
            dask.config.set({"distributed.worker.multiprocessing-method": "spawn"})
        certificate, key = make_certificate(name_of(self._site.cluster_id))
        self._security = {"tls_ca_file": certificate, "tls_client_cert": certificate, "tls_client_key": key}
        roles = {
            f"tls_{role}_{what}": self._security[f"tls_client_{what}"]
            for role in ("scheduler", "worker")
            for what in ("cert", "key")
        }
        self._tls = distributed.Security(require_encryption=True, **self._security, **roles)
        scheduler = distributed.Scheduler(
            host="127.0.0.1",
            port=0,
            protocol="tls",
            security=self._tls,
            dashboard_address="127.0.0.1:0",
            dashboard=False,
        )
        # It listens by now, and hears nothing before the first await.
        Guard(scheduler, secret_of(key), "distributed.dashboard.scheduler")
        self._dashboard = link(scheduler.http_server.port, secret_of(key))
        self._scheduler = await scheduler
        ClientsCode(self._scheduler)
        return str(self._scheduler.address)

    async def _add(self, count: int) -> None:
        import distributed

        group = self._site.plan.groups[0]
        fresh = {}
        for _ in range(count):
            name = f"s-{next(self._slots)}"
            fresh[name] = distributed.Nanny(
                self._scheduler.address,
                host="127.0.0.1",
                protocol="tls",
                security=self._tls,
                name=name,
                nthreads=max(1, int(group.there.cores)),
                memory_limit=int(group.there.memory),
                local_directory=str(self._site.folder / "scratch"),
                resources={"GPU": group.gpus} if group.gpus else None,
            )
        await asyncio.gather(*fresh.values())
        self._nannies |= fresh

    async def _remove(self, count: int) -> None:
        """Retire through the scheduler, which first moves results that only they hold."""
        names = await self._scheduler.retire_workers(n=count, remove=True, close_workers=False)
        gone = {worker["name"] for worker in names.values()}
        await asyncio.gather(*(self._nannies.pop(name).close(reason="scaled down") for name in gone))

    async def _target(self) -> int:
        return int(self._scheduler.adaptive_target())

    async def _close(self) -> None:
        nannies = list(self._nannies.values())
        await asyncio.gather(
            *(nanny.close(timeout=5, reason="cluster ends") for nanny in nannies), return_exceptions=True
        )
        if self._scheduler is not None:
            await self._scheduler.close(reason="cluster ends")

    async def _look(self) -> Observation:
        scheduler = self._scheduler
        clients = [state for key, state in scheduler.clients.items() if key != "fire-and-forget"]
        busy = bool(scheduler.queued or scheduler.unrunnable) or any(
            worker.processing for worker in scheduler.workers.values()
        )
        pids = [n.process.pid for n in self._nannies.values() if n.process is not None and n.process.pid]
        spilled = sum(
            worker.metrics.get("spilled_bytes", {}).get("disk", 0) for worker in scheduler.workers.values()
        )
        for pid in pids:
            self._peak = max(self._peak, measure.peak_resident(pid))
            self._cpu_of_gone[pid] = measure.cpu_seconds(pid) or self._cpu_of_gone.get(pid, 0.0)
        restarts = [event for _, event in scheduler.get_events(_MEMORY_TOPIC)]
        note = ""
        limit = int(self._site.plan.groups[0].there.memory)
        if restarts:
            last = restarts[-1]
            note = (
                f"worker {last.get('worker')} (pid {last.get('pid')}) was restarted: it used "
                f"{last.get('rss', 0) / 1e6:.0f} MB of its {limit / 1e6:.0f} MB"
            )
        return Observation(
            clients=len(clients),
            busy=busy,
            workers=len(scheduler.workers),
            memory=sum(measure.resident(pid) for pid in pids),
            peak_memory=self._peak,
            limit=limit,
            spilled=spilled,
            cpu_seconds=sum(self._cpu_of_gone.values()),
            restarts=len(restarts),
            note=note,
            worker_pids=tuple(pids),
        )

    def _call(self, work: Coroutine[Any, Any, _Result], deadline: float, what: str) -> _Result:
        """Run on the loop from another thread, until ``deadline``."""
        left = max(0.1, deadline - time.monotonic())
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(left)
        except FutureTimeoutError:
            future.cancel()
            raise DeadlineError(f"waited {left:.0f} s for {what}", hint="Look at the log.") from None
        except OSError as error:
            raise InfrastructureError(f"while waiting for {what}: {error}") from error
