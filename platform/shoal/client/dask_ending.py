"""A Dask client that says why its cluster ended, where Dask alone says that a future was cancelled.

Why it exists: a cluster ends for a reason (idle, its maximum lifetime, told to, killed), and whoever waits for a
result has to read that one, at once.

A client whose cluster has ended stays what it was, also Dask's default client, until its user closes it: work that
was meant for the cluster is refused, and never done by this process instead.

What it must not do: know homes. It follows private corners of ``distributed``: ``Client._reconnect``, ``_shutdown``,
``_close`` and ``_ensure_connected``. Where a version has them no more, this is a plain client, and the handle's
``with`` block tells the reason.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client
from distributed.comm import CommClosedError
from distributed.versions import VersionMismatchWarning

from shoal.client.dask_current import forget_scheduler, note_scheduler
from shoal.errors import ClusterEndedError, ShoalError, UsageError

KNOWN = 5.0  # s in which the reason of a lost connection is known, if the cluster has ended
_NOTICED = 1.0  # s in which a client notices that its own connection is lost, when another one is
_POLL = 0.1
_LOST = (
    "The connection to the cluster was lost, and with it the results that this process waited for. The cluster may "
    "still run: compute them again. A script that is run by `shoal submit SCRIPT.py` does not depend on a connection "
    "of yours where the cluster is on Kubernetes."
)
_GOODBYE = {"close-client", "close-stream"}
_ENDED = "ended"  # a status of ours: its cluster is gone, and its user has not closed it


def closed() -> UsageError:
    """For whoever still uses a client that its user has closed."""
    return UsageError(
        "this client is closed, and the results that it had not fetched are gone",
        hint="Fetch them with `.result()` or `.compute()` before the cluster's block ends.",
    )


class TellingClient(Client):  # type: ignore[misc]  # distributed has no types
    """``why``: gives the error to raise once the cluster has ended, None while it lives (or where nobody knows, as
    by default). May block."""

    def __init__(
        self, *arguments: Any, why: Callable[[], ClusterEndedError | None] | None = None, **options: Any
    ) -> None:
        self._why = why
        self._ended_error: ShoalError | None = None
        self.actors: set[Any] = set()  # keys of actors that this client made
        note_scheduler()
        super().__init__(*arguments, **options)

    def sync(self, func: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """As Dask's; what fails because the cluster has ended, or since then, fails with the reason."""
        try:
            answer = super().sync(func, *arguments, **options)
        except Exception as error:
            self._await_reason(error)
            if self._ended_error is None:
                raise
            raise self._again() from (error.__cause__ if isinstance(error, ShoalError) else error)
        return self._awaited(answer) if inspect.iscoroutine(answer) else answer

    async def _awaited(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The same for what is awaited in the client's own loop."""
        try:
            return await work
        except Exception as error:
            await asyncio.to_thread(self._await_reason, error)
            if self._ended_error is None:
                raise
            raise self._again() from (error.__cause__ if isinstance(error, ShoalError) else error)

    def _await_reason(self, error: Exception) -> None:
        """Where a call lost its connection, so may the client have, a moment later: until it knows why, or lives."""
        by_dask = isinstance(error, CommClosedError) or (type(error) is OSError and error.errno is None)
        if not by_dask or self._why is None:
            return
        begin = time.monotonic()
        while self._ended_error is None and (waited := time.monotonic() - begin) < 2 * KNOWN:
            if self.status == "closed" or (self.status == "running" and waited > _NOTICED):
                return  # it was a worker that was lost
            time.sleep(_POLL)

    def tell_actors(self) -> None:
        """Once connected: calls of actors fail with the reason, too. They do not go through :meth:`sync`."""
        ask = self.scheduler.proxy

        async def proxy(**message: Any) -> Any:
            try:
                return await ask(**message)
            except Exception as error:
                await asyncio.to_thread(self._await_reason, error)
                if self._ended_error is None:
                    raise
                return {"status": "error", "exception": self._again()}

        self.scheduler.proxy = proxy

    def refuse_if_ended(self) -> None:
        """Raise why nothing can be computed any more, and forget what was asked for since: nobody answers it."""
        if self._ended_error is not None:
            self.futures.clear()
            raise self._again()

    def scheduler_info(self, *arguments: Any, **options: Any) -> Any:
        self.refuse_if_ended()
        return super().scheduler_info(*arguments, **options)

    def _send_to_scheduler(self, message: dict[str, Any]) -> None:
        if self._ended_error is None or message["op"] in _GOODBYE:
            super()._send_to_scheduler(message)
        elif message["op"] != "client-releases-keys":  # Dask sends those for futures that nobody has any more
            raise self._again()

    def _again(self) -> ShoalError:
        """A new one each time: an error that is raised holds the frames it went through, and all that is in them."""
        assert self._ended_error is not None
        return copy.copy(self._ended_error)

    def tell_scheduler(self, message: dict[str, Any]) -> None:
        """Send a message, and wait for nothing."""
        self._send_to_scheduler(message)

    def leave(self, error: ShoalError) -> None:
        """Close soon, from any thread and without waiting; whoever still uses it gets ``error``."""
        with suppress(Exception):  # its loop may be gone
            self.loop.add_callback(self._leave, error)

    async def _leave(self, error: ShoalError) -> None:
        if self.status == "closed":
            return
        self._fail(error)
        await self._close(fast=True)
        if not self._asynchronous:  # its loop has a thread of its own, which waits for this to return
            threading.Thread(target=self._loop_runner.stop, daemon=True).start()

    def _fail(self, error: ShoalError) -> None:
        """All that is waited for, and whatever is asked from now on, fails with ``error``."""
        self._ended_error = error
        for key, state in list(self.futures.items()):
            if key in self.actors:
                state.finish()  # else Dask refuses their calls for a reason of its own
            else:
                state.set_error(error, None)
        self.futures.clear()

    async def _close(self, fast: bool = False) -> None:
        """As Dask's; then computing needs no client any more, unless there is another one."""
        try:
            await super()._close(fast=fast)
        finally:
            forget_scheduler()
            if self._ended_error is None:
                self._ended_error = closed()

    async def _shutdown(self) -> None:
        """As Dask's; whatever is asked of it from then on fails with the reason."""
        await super()._shutdown()
        with suppress(ShoalError):  # it is shut down, also where nobody can say so now
            self._ended_error = await self._reason()

    async def _reason(self) -> ClusterEndedError | None:
        """Why the cluster has ended; None where it seems to live, or where nobody knows."""
        if self._why is None:
            return None
        end = time.monotonic() + KNOWN
        while time.monotonic() < end:
            with suppress(ShoalError):  # whoever knows may be away as well, as when an API server restarts
                if (reason := await asyncio.to_thread(self._why)) is not None:
                    return reason
            await asyncio.sleep(_POLL)
        return None

    async def _ensure_connected(self, timeout: float | None = None) -> None:
        """As Dask's, at the first time and again: where warnings are errors, its own would end the connection."""
        with _without_version_warnings():
            await super()._ensure_connected(timeout=timeout)

    async def _reconnect(self) -> None:
        """The connection is lost: does the cluster live, or why not?"""
        reason = await self._reason()
        if reason is None:
            for state in self.futures.values():  # before Dask does, in words that say nothing of a cluster
                state.cancel(reason="scheduler-connection-lost", msg=_LOST)
            self.futures.clear()
            await super()._reconnect()
            return
        self._fail(reason)
        self.scheduler_comm = None
        self.status = _ENDED
        await self.rpc.close()  # calls that still wait for an answer fail


@contextmanager
def _without_version_warnings() -> Iterator[None]:
    """What the handle compares says the same as Dask's warning, of more packages, and once.

    Python's own ``catch_warnings`` puts the filters of the whole process back as they were, also what other threads
    changed while this one waited; here one entry comes and goes.
    """
    entry = ("ignore", None, VersionMismatchWarning, None, 0)
    warnings.filters.insert(0, entry)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with suppress(ValueError):  # somebody has put others in their place meanwhile
            warnings.filters.remove(entry)  # type: ignore[attr-defined]
