"""The way of a submitted script through the scheduler: whoever submits it brings its archive, its pod takes it once.

Why it exists: both reach the scheduler, with the cluster's certificate, and neither reaches the other. That the archive
is given to one pod alone is what keeps a script from running twice, whatever happens to who starts pods.

What it must not do: open the archive.
"""

from __future__ import annotations

import asyncio
from typing import Any

from shoal.errors import InfrastructureError
from shoal.machine.parcel import LARGEST, digest

PUT, TAKE = "shoal_script_put", "shoal_script_take"


class Handover:
    """Serves ``PUT`` and ``TAKE`` on a scheduler."""

    def __init__(self, scheduler: Any) -> None:
        self._content, self._taken = b"", ""
        scheduler.handlers[PUT] = self.put
        scheduler.handlers[TAKE] = self.take

    async def put(self, content: bytes) -> str:
        """Keep it until it is taken; why it is not kept, "" where it is."""
        if not isinstance(content, bytes) or len(content) > LARGEST:
            return f"it is not an archive of at most {LARGEST / 1e6:.0f} MB"
        if self._content and digest(self._content) != digest(content):
            return "another one is here already"
        self._content = content
        return ""

    async def take(self, pod: str) -> dict[str, Any]:
        """For this pod, if it is the first that asks; empty where there is nothing yet."""
        if not self._content:
            return {}
        self._taken = self._taken or pod
        return {"content": self._content} if self._taken == pod else {"taken": self._taken}


async def ask(address: str, tls: Any, seconds: float, **message: Any) -> Any:
    """One call of the scheduler there. ``tls``: as ``security`` gives it.

    Raises:
        InfrastructureError: it was not reached, or did not answer in time.
    """
    from distributed.core import connect, send_recv

    try:
        async with asyncio.timeout(seconds):
            comm = await connect(address, timeout=seconds, **tls.get_connection_args("client"))
            try:
                return await send_recv(comm, reply=True, **message)
            finally:
                comm.abort()
    except (OSError, TimeoutError) as error:
        raise InfrastructureError(
            f"the scheduler at {address} was not reached: {str(error) or 'no answer'}"
        ) from error
