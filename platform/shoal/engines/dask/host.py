"""Dask inside the head: the scheduler, and its own workers' nannies, on one loop in a thread.

Why it exists: one process for scheduler and nannies starts as fast as a bare LocalCluster, and its death
takes the workers with it. Workers that the home starts (``Stand.own_workers``) come from other machines.

What it must not do: decide when to end (its head does, by ``governor.ends``), or know the home.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from typing import Any, TypeVar

from shoal.engines.dask import worker_calls
from shoal.engines.dask.kinds import Kinds
from shoal.engines.dask.workers import Workers
from shoal.engines.peers import Connection, Peers
from shoal.engines.port import Sample, Say, Site
from shoal.errors import DeadlineError, InfrastructureError
from shoal.machine.addresses import in_url, reachable
from shoal.model.cluster import Reason
from shoal.model.endpoint import Endpoint
from shoal.model.workload import Plan
from shoal.words import count, listed

_log = logging.getLogger("shoal.engines")
_Result = TypeVar("_Result")
_LOOK = 2.0  # s that a look may take before it counts as unknown


class DaskHost:
    """One scheduler with the plan's workers, on this machine or from others."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dask", daemon=True)
        self._scheduler: Any = None
        self._security: dict[str, str] = {}
        self._tls: Any = None
        self._dashboard = ""
        self._workers: Any = None
        self._calls: Any = None
        self._done: tuple[int, ...] = ()
        self._wanted = {group.name: group.count for group in site.plan.groups}
        self._peers = Peers(site.cluster_id, site.tree())

    def start(self, say: Say, deadline: float) -> Endpoint:
        self._thread.start()
        say(Reason.HEAD_STARTING, "starting the Dask scheduler")
        address = self._call(self._start_scheduler(), deadline, "the Dask scheduler to listen")
        does = "starting" if self._site.stand.own_workers else "waiting for"
        say(Reason.WORKERS_STARTING, f"{does} {_described(self._site.plan)}")
        many = self._site.plan.workers
        self._call(self._workers.reach(dict(self._wanted)), deadline, f"{count(many, 'worker')} to register")
        return Endpoint(address, self._site.token, self._dashboard, self._security)

    def observe(self) -> Sample | None:
        try:
            look, connections, hosts = self._call(
                self._look(), time.monotonic() + _LOOK, "the scheduler's state"
            )
        except DeadlineError:
            return None
        return replace(look, clients=self._peers.clients(connections, hosts))

    def failure(self) -> str | None:
        return None if self._thread.is_alive() else "the scheduler's loop ended"

    def closed(self) -> str | None:
        from distributed.core import Status

        if self._scheduler is None or self._scheduler.status not in (Status.closing, Status.closed):
            return None
        return "shut down by its client (client.shutdown())"

    def scale(self, workers: int, group: str = "") -> None:
        _log.debug("workers wanted: %s %s", workers, group)
        self._wanted = self._wanted | {self._site.plan.group(group).name: workers}
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
        with contextlib.suppress(InfrastructureError):  # what is missing then is brought back later
            self._call(
                self._workers.reach(dict(self._wanted)), time.monotonic() + 120, "workers to come or go"
            )

    async def _start_scheduler(self) -> str:
        import dask
        import distributed

        from shoal.engines.dask.arriving import Arriving
        from shoal.engines.dask.code import ClientsCode
        from shoal.engines.dask.dashboard import Guard
        from shoal.engines.dask.locked import tell_locked
        from shoal.engines.dask.resting import tick_slowly
        from shoal.engines.dask.script import Handover
        from shoal.engines.dask.security import WORKER_SETUP, security
        from shoal.engines.dask.tasks import tell
        from shoal.machine.certificate import make_certificate, name_of
        from shoal.machine.pages import link, secret_of

        stand = self._site.stand
        # Dask looks 20 times a second whether a worker is there; a forked one is there sooner.
        distributed.nanny.WorkerProcess._init_msg_interval = 0.01
        dask.config.set({"distributed.worker.preload": [WORKER_SETUP]})
        tick_slowly()
        if self._site.packages:
            # A fork has what was imported before they were installed.
            dask.config.set({"distributed.worker.multiprocessing-method": "spawn"})
        certificate, key = stand.certificate or make_certificate(name_of(self._site.cluster_id))
        self._security = {"tls_ca_file": certificate, "tls_client_cert": certificate, "tls_client_key": key}
        self._tls = security(certificate, key)
        scheduler = distributed.Scheduler(
            host=stand.host,
            port=stand.port,
            protocol="tls",
            security=self._tls,
            dashboard_address=f"{in_url(stand.host)}:{stand.dashboard_port}",
            dashboard=False,
        )
        # It listens by now, and hears nothing before the first await.
        Guard(scheduler, secret_of(key), "distributed.dashboard.scheduler")
        host = in_url(reachable(stand.host))
        self._dashboard = link(scheduler.http_server.port, secret_of(key), host)
        self._scheduler = await scheduler
        ClientsCode(self._scheduler, elsewhere=not stand.own_workers)
        Handover(self._scheduler)
        tell(self._scheduler)
        tell_locked(self._scheduler, self._site.packages)
        self._calls = worker_calls.count(self._scheduler, "broadcast", "run_function")
        if stand.own_workers:
            self._workers = Workers(self._site, self._scheduler, self._tls)
        else:
            self._workers = Arriving(self._site, self._scheduler)
        return f"tls://{host}:{self._scheduler.port}"

    async def _target(self) -> int:
        return int(self._scheduler.adaptive_target())

    async def _close(self) -> None:
        if self._workers is not None:
            await self._workers.close()
        if self._scheduler is not None:
            await self._scheduler.close(reason="cluster ends")

    async def _look(self) -> tuple[Sample, list[Connection], list[str]]:
        scheduler, workers = self._scheduler, self._workers
        workers.look()
        calls = [
            self._calls.tell(),
            *(w.metrics.get(worker_calls.METRIC) for w in scheduler.workers.values()),
        ]
        # Work that came and went between two looks is work, too.
        done = (scheduler.transition_counter, *(each["ever"] for each in calls if each))
        busy = (
            bool(scheduler.queued or scheduler.unrunnable)
            or any(worker.processing for worker in scheduler.workers.values())
            or any(each["now"] for each in calls if each)
            or done != self._done
        )
        self._done = done
        spilled = sum(
            worker.metrics.get("spilled_bytes", {}).get("disk", 0) for worker in scheduler.workers.values()
        )
        restarts, note = workers.restarts
        look = Sample(
            busy=busy,
            workers=len(scheduler.workers),
            memory=workers.memory,
            peak_memory=workers.peak,
            limit=max(int(group.there.memory) for group in self._site.plan.groups),
            spilled=spilled,
            cpu_seconds=workers.cpu_seconds,
            restarts=restarts,
            note=note,
            worker_pids=tuple(workers.pids),
            retired=workers.retired,
            elsewhere=dict(workers.elsewhere),
            **_by_group(workers.kinds),
        )
        return look, self._connections(), list(workers.hosts)

    def _connections(self) -> list[Connection]:
        """Of all clients, those of our own workers among them."""
        from distributed.comm import get_address_host_port

        scheduler, found = self._scheduler, []
        for name, client in scheduler.clients.items():
            comm = scheduler.client_comms.get(name)
            if name == "fire-and-forget" or comm is None or comm.comm is None:
                continue
            with contextlib.suppress(ValueError):  # a comm that is just being closed has no address
                host, theirs = get_address_host_port(comm.comm.peer_address)
                silent = max(0.0, time.time() - client.last_seen)
                found.append(Connection(scheduler.port, theirs, silent, host))
        return found

    def _call(self, work: Coroutine[Any, Any, _Result], deadline: float, what: str) -> _Result:
        """Run on the loop from another thread, until ``deadline``."""
        left = max(0.1, deadline - time.monotonic())
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(left)
        except FutureTimeoutError:
            future.cancel()
            raise DeadlineError(f"waited {left:.0f} s for {what}", hint="See the log.") from None
        except OSError as error:
            raise InfrastructureError(f"while waiting for {what}: {error}") from error


def _described(plan: Plan) -> str:
    """``"2 workers of 4 GB each"``; with several groups ``"2 cpu of 4 GB and 1 gpu of 14 GB"``."""
    if len(plan.groups) > 1:
        return listed(
            f"{each.count} {each.name} of {each.there.memory}" for each in plan.groups if each.count
        )
    (group,) = plan.groups
    return f"{count(group.count, 'worker')} of {group.there.memory}{' each' if group.count > 1 else ''}"


def _by_group(kinds: Kinds) -> dict[str, Any]:
    """What a sample tells of groups, where there are several."""
    if not kinds.several:
        return {}
    there = {name: len(its) for name, its in kinds.there().items()}
    return {"groups": there, "room": sum(many * kinds.memory(name) for name, many in there.items())}
