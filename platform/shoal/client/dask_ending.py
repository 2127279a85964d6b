"""A Dask client that says why its cluster ended, where Dask alone says that a future was cancelled.

Why it exists: a cluster ends for a reason (idle, its maximum lifetime, told to, killed), and whoever waits for a
result has to read that one, at once.

What it must not do: know homes. It follows private corners of ``distributed``: ``Client._reconnect``, ``_shutdown``
and ``_close``. Where a version has them no more, this is a plain client, and the handle's ``with`` block tells the
reason.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dask
import distributed
from distributed import Client

from shoal.errors import ClusterEndedError, ShoalError

KNOWN = 5.0  # s in which the reason of a lost connection is known, if the cluster has ended
_POLL = 0.1
_GOODBYE = {"close-client", "close-stream"}


class TellingClient(Client):  # type: ignore[misc]  # distributed has no types
    """``why``: gives the error to raise once the cluster has ended, None while it lives (or where nobody knows, as
    by default). May block."""

    def __init__(
        self, *arguments: Any, why: Callable[[], ClusterEndedError | None] | None = None, **options: Any
    ) -> None:
        self._why = why
        self._told: ShoalError | None = None
        super().__init__(*arguments, **options)

    def sync(self, func: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """As Dask's; what fails since the cluster has ended fails with the reason."""
        try:
            return super().sync(func, *arguments, **options)
        except ClusterEndedError:
            raise
        except Exception as error:
            if self._told is not None:
                raise self._told from error
            raise

    def _send_to_scheduler(self, message: dict[str, Any]) -> None:
        if self._told is None or message["op"] in _GOODBYE:
            super()._send_to_scheduler(message)
        elif message["op"] != "client-releases-keys":  # Dask sends those for futures that nobody has any more
            raise self._told

    def tell_scheduler(self, message: dict[str, Any]) -> None:
        """Send a message, and wait for nothing."""
        self._send_to_scheduler(message)

    def leave(self, told: ShoalError) -> None:
        """Close soon, from any thread and without waiting; whoever still uses it is told ``told``."""
        with suppress(Exception):  # its loop may be gone
            self.loop.add_callback(self._leave, told)

    async def _leave(self, told: ShoalError) -> None:
        if self.status == "closed":
            return
        self._fail(told)
        await self._close(fast=True)
        if not self._asynchronous:  # its loop has a thread of its own, which waits for this to return
            threading.Thread(target=self._loop_runner.stop, daemon=True).start()

    def _fail(self, told: ShoalError) -> None:
        """All that is waited for, and whatever is asked from now on, fails with ``told``."""
        self._told = told
        for state in list(self.futures.values()):
            state.set_error(told, None)
        self.futures.clear()

    async def _close(self, fast: bool = False) -> None:
        """As Dask's; then computing needs no client any more, unless there is another one."""
        try:
            await super()._close(fast=fast)
        finally:
            _forget_scheduler()

    async def _shutdown(self) -> None:
        """As Dask's; whatever is asked of it from then on fails with the reason."""
        await super()._shutdown()
        with suppress(ShoalError):  # it is shut down, also where nobody can say so now
            self._told = await self._reason()

    async def _reason(self) -> ClusterEndedError | None:
        """Why the cluster has ended; None where it seems to live, or where nobody knows."""
        if self._why is None:
            return None
        end = time.monotonic() + KNOWN
        while (told := await asyncio.to_thread(self._why)) is None and time.monotonic() < end:
            await asyncio.sleep(_POLL)
        return told

    async def _reconnect(self) -> None:
        """The connection is lost: does the cluster live, or why not?"""
        told = await self._reason()
        if told is None:
            await super()._reconnect()
            return
        self._fail(told)
        self.status = "connecting"  # as Dask's own has it: what follows closes it
        self.scheduler_comm = None
        await self._close(fast=True)


def _forget_scheduler() -> None:
    """Dask puts back the scheduler that it found when a client was opened. Where clients overlap that is the one of
    another client, also when that is closed by then, and nothing could be computed without a client."""
    try:
        distributed.default_client()
    except ValueError:
        if dask.config.get("scheduler", None) in ("dask.distributed", "distributed"):
            dask.config.config.pop("scheduler", None)
