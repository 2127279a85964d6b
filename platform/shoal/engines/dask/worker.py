"""A worker where its home starts it: ``python -P -m shoal.engines.dask.worker``, in a pod.

Why it exists: a nanny beside the worker restarts it in place when it ends or takes more memory than it may, which
a home could do only by another pod. All it needs is said by its environment (:class:`WorkerSettings`); it writes
nowhere but in its scratch folder. It ends with 0 when its scheduler or a SIGTERM ends it, else with 1 and a line
that says why.

What it must not do: know a home, or go on without its scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.engines.limits import ENGINE
from shoal.errors import DeadlineError, InfrastructureError, ShoalError, UsageError
from shoal.machine.addresses import POD_IP
from shoal.machine.logs import set_up
from shoal.machine.processes import FORKS_WORKERS, MARK

_log = logging.getLogger("shoal.engines")
_FROM_THE_START = FORKS_WORKERS | {"PYTHONUNBUFFERED": "1"}
_BESIDE = 64_000_000  # bytes that its nanny takes, and what else is there besides the worker
_AGAIN = 1.0  # s between tries to reach the scheduler
_TRY = 5.0  # s of one
_MOVE = 4.0  # s that results get to move away before it ends
_CLOSE = 2.0  # s that its process gets to end
_LOOK = 0.5  # s between looks at its process
_BY_SCHEDULER = "scheduler-"  # how Dask's reasons begin when a scheduler closes a worker
_LOST = "connection-broken"  # how they end when it is gone
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told. Memory in bytes, times in seconds."""

    scheduler: str
    name: str
    cores: float
    memory: int
    scratch: Path
    certificate: str
    key: str = field(repr=False)
    gpus: int = 0
    start_limit: float = 300.0
    host: str = "127.0.0.1"
    group: str = ""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> WorkerSettings:
        """From ``SHOAL_CLUSTER``, ``SHOAL_SCHEDULER`` (``tls://host:port``), ``SHOAL_WORKER_NAME``,
        ``SHOAL_WORKER_CORES``, ``SHOAL_WORKER_MEMORY``, ``SHOAL_CERTIFICATE`` (a folder with ``tls.crt`` and
        ``tls.key``) and ``SHOAL_SCRATCH`` (a folder); ``SHOAL_WORKER_GPUS`` (default 0), ``SHOAL_START_LIMIT`` (300:
        how long the scheduler may take to appear), ``SHOAL_WORKER_GROUP`` (of several groups of workers: its own) and
        ``SHOAL_POD_IP`` (127.0.0.1: where it listens).

        Raises:
            UsageError: one of them is missing or cannot be used.
        """

        def said(name: str) -> str:
            if not environment.get(name):
                raise UsageError(
                    f"{name} is not set", hint="A worker is told all it needs by its environment."
                )
            return environment[name]

        def number(name: str, default: str = "") -> float:
            text = environment.get(name) or default or said(name)
            with contextlib.suppress(ValueError):
                if math.isfinite(found := float(text)) and found >= 0:
                    return found
            raise UsageError(
                f"{name} is {text!r}, which is not a number", hint="Give a number, without a unit."
            )

        said(MARK)
        scheduler, folder = said("SHOAL_SCHEDULER"), Path(said("SHOAL_CERTIFICATE"))
        if not re.fullmatch(r"tls://[^/\s]+:\d+", scheduler):
            raise UsageError(f"SHOAL_SCHEDULER is {scheduler!r}", hint="Only tls://HOST:PORT is spoken to.")
        try:
            certificate, key = (folder / "tls.crt").read_text(), (folder / "tls.key").read_text()
        except OSError as error:
            raise UsageError(
                f"the cluster's certificate cannot be read: {error}",
                hint="SHOAL_CERTIFICATE is a folder with tls.crt and tls.key.",
            ) from error
        return cls(
            scheduler,
            said("SHOAL_WORKER_NAME"),
            number("SHOAL_WORKER_CORES"),
            int(number("SHOAL_WORKER_MEMORY")),
            Path(said("SHOAL_SCRATCH")).absolute(),
            certificate,
            key,
            int(number("SHOAL_WORKER_GPUS", "0")),
            number("SHOAL_START_LIMIT", "300"),
            environment.get(POD_IP) or "127.0.0.1",
            environment.get("SHOAL_WORKER_GROUP", ""),
        )


def main() -> None:
    """Its whole life; does not return."""
    if any(os.environ.get(name) != value for name, value in _FROM_THE_START.items()):
        os.environ.update(_FROM_THE_START)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "shoal.engines.dask.worker"])  # noqa: S606
    for number in _SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))  # until there is something that has to be closed
    set_up(sys.stdout)
    code = 1
    try:
        code = _live(WorkerSettings.read(os.environ))
    except ShoalError as error:
        _log.error("%s. %s", error.message.rstrip("."), error.hint)
    except Exception:  # a fault of ours or of Dask: the line above the traceback says whose worker this was
        _log.exception("worker %s failed", os.environ.get("SHOAL_WORKER_NAME"))
    finally:
        sys.stdout.flush()
        os._exit(code)  # a thread of user code that does not end must not keep it alive


def _live(settings: WorkerSettings) -> int:
    from shoal.engines.dask import worker_usage
    from shoal.engines.dask.forking import preload, serve_forks
    from shoal.machine.guard import stand_guard
    from shoal.machine.loopback import spare

    _settle(settings.scratch)
    spare()
    # Also for what tasks leave behind: it ends with the worker, and where this is process 1 somebody reaps it.
    root = stand_guard() or os.getpid()
    os.environ[worker_usage.ROOT] = str(root)
    preload("dask")
    serve_forks()
    return asyncio.run(_Worker(settings).run())


def _settle(scratch: Path) -> None:
    """Everything that is written here from now on is in the scratch folder, for its user alone."""
    os.umask(0o077)
    temporary = scratch / "tmp"
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        os.chdir(scratch)
    except OSError as error:
        raise InfrastructureError(
            f"cannot write in {scratch}: {error}", hint="SHOAL_SCRATCH is a folder of its own."
        ) from error
    os.environ["TMPDIR"] = str(temporary)
    os.environ.setdefault("HOME", str(scratch))


def limit(asked: int, there: int) -> int:
    """What the worker's process may take of the memory that is there for all of its pod (bytes).

    Where that is all there is, the kernel would end the pod before the nanny ends the worker.
    """
    return max(min(asked, there - _BESIDE), asked // 2)


class _Worker:
    """A nanny and what ends it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._signalled = asyncio.Event()  # by a signal
        self._nanny: Any = None
        self._reason = ""

    async def run(self) -> int:
        """Until it is to end; its exit code."""
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._signalled.set)
        signalled = asyncio.ensure_future(self._signalled.wait())
        life = asyncio.ensure_future(self._serve())
        await asyncio.wait((signalled, life), return_when=asyncio.FIRST_COMPLETED)
        if not life.done():
            _log.info("told to end")
            await self._leave(life)
            return 0
        await life
        _log.info("its scheduler ended it (%s)", self._reason)
        return 0

    async def _serve(self) -> None:
        import dask
        from distributed import Nanny
        from distributed.system import memory_limit

        from shoal.engines.dask.kinds import offered
        from shoal.engines.dask.locked import get_locked
        from shoal.engines.dask.resting import tick_slowly
        from shoal.engines.dask.security import WORKER_SETUP, security

        settings, worker = self._settings, self

        class NotingNanny(Nanny):  # type: ignore[misc]
            def close_gracefully(self, reason: str = "") -> None:
                worker._reason = reason
                super().close_gracefully(reason=reason)

        tls = security(settings.certificate, settings.key)
        await _reach(settings, tls)
        if await get_locked(settings.scheduler, tls, settings.scratch, settings.start_limit) is not None:
            # A fork has what was imported before they were installed.
            dask.config.set({"distributed.worker.multiprocessing-method": "spawn"})
        tick_slowly()
        threads = max(1, int(settings.cores))
        self._nanny = NotingNanny(
            settings.scheduler,
            host=settings.host,
            protocol="tls",
            security=tls,
            name=settings.name,
            nthreads=threads,
            memory_limit=limit(settings.memory, memory_limit()),
            local_directory=str(settings.scratch),
            resources=offered(settings.group, threads, settings.gpus) or None,
            preload=[WORKER_SETUP],
        )
        try:
            await self._nanny
        except Exception as error:
            raise InfrastructureError(
                f"worker {settings.name} does not start: {error.__cause__ or error}",
                hint="Its log says more.",
            ) from error
        end = asyncio.ensure_future(self._nanny.finished())
        watch = asyncio.ensure_future(self._watch())
        await asyncio.wait((end, watch), return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            why = watch.result()
        elif self._reason.startswith(_BY_SCHEDULER):
            return
        elif self._reason.endswith(_LOST):
            why = f"it lost its scheduler at {settings.scheduler}"
        else:
            why = f"it was closed ({self._reason or 'no reason was given'})"
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._nanny.close(timeout=_CLOSE), 2 * _CLOSE)
        raise InfrastructureError(f"worker {settings.name} ends: {why}", hint="Its home starts another one.")

    async def _watch(self) -> str:
        """Until its process cannot be brought back; why."""
        pid, seen = self._nanny.pid, time.monotonic()
        deaths: list[float] = []
        while True:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            if (there := self._nanny.pid) is None:
                if now - seen > ENGINE.absent:
                    return f"its process did not come back within {ENGINE.absent:.0f} s"
                continue
            seen = now
            if there != pid:
                pid = there
                deaths = [*(each for each in deaths if now - each < ENGINE.deaths_within), now]
            if len(deaths) >= ENGINE.deaths:
                return f"its process ended {ENGINE.deaths} times within {ENGINE.deaths_within:.0f} s"

    async def _leave(self, life: asyncio.Future[None]) -> None:
        """Results that only it has go to others first; within ten seconds all in all."""
        nanny = self._nanny
        if self._reason:  # it was ending already
            await asyncio.wait((life,), timeout=_MOVE)
            return
        life.cancel()
        if nanny is None:
            return
        with contextlib.suppress(Exception):
            await asyncio.wait_for(
                nanny.scheduler.retire_workers(
                    workers=[nanny.worker_address], close_workers=False, remove=True
                ),
                _MOVE,
            )
        with contextlib.suppress(Exception):
            await asyncio.wait_for(nanny.close(timeout=_CLOSE), 2 * _CLOSE)


async def _reach(settings: WorkerSettings, tls: Any) -> None:
    """Until the scheduler answers; DeadlineError where it does not in time, InfrastructureError where it is another."""
    from distributed.comm import connect
    from distributed.comm.core import FatalCommClosedError

    deadline = time.monotonic() + settings.start_limit
    _log.info("looks for the scheduler at %s", settings.scheduler)
    while True:
        left = deadline - time.monotonic()
        try:
            comm = await connect(
                settings.scheduler, timeout=max(0.1, min(_TRY, left)), **tls.get_connection_args("worker")
            )
        except FatalCommClosedError as error:
            raise InfrastructureError(
                f"{settings.scheduler} and this worker do not have the same certificate: {error}",
                hint="The folder that SHOAL_CERTIFICATE names is another cluster's.",
            ) from error
        except OSError as error:
            if left <= 0:
                raise DeadlineError(
                    f"no scheduler at {settings.scheduler} within {settings.start_limit:.0f} s: {error}",
                    hint="See the log of the cluster's head.",
                ) from error
            await asyncio.sleep(min(_AGAIN, max(left, 0.0)))
            continue
        await comm.close()
        return


if __name__ == "__main__":
    main()
