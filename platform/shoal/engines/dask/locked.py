"""What a cluster's ``packages=`` came to, from its scheduler to whoever installs the same on another machine.

Why it exists: workers and a script in pods of their own have their own disks. They install what the head settled, file
by file, so that a new release on the way changes no cluster.

What it must not do: choose versions.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shoal.engines.dask.script import ask
from shoal.engines.packages import add

PACKAGES = "SHOAL_PACKAGES"  # in the environment: there is something to install
_OPERATION = "shoal_packages"
_ANSWER = 60.0  # s


def tell_locked(scheduler: Any, locked: Sequence[str]) -> None:
    """Have the scheduler answer :func:`get_locked`."""

    async def said() -> list[str]:
        return list(locked)

    scheduler.handlers[_OPERATION] = said


async def get_locked(address: str, tls: Any, scratch: Path, seconds: float) -> Path | None:
    """Install what the scheduler there says; the folder, None where that is nothing.

    Nothing is asked for where the environment does not say that there is something (``SHOAL_PACKAGES``).

    Raises:
        InfrastructureError: the scheduler did not answer, or pip failed.
    """
    if not os.environ.get(PACKAGES):
        return None
    locked = await ask(address, tls, _ANSWER, op=_OPERATION)
    folder = scratch / "packages"
    await asyncio.to_thread(add, locked, folder, time.monotonic() + seconds)
    return folder if locked else None
