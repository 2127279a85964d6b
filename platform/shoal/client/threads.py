"""Work of an event loop that would block it, done in a thread.

Why it exists: starting and closing clusters is the same code with and without a loop; this carries it across.

What it must not do: know what it carries.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(work: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
    """``work`` in a thread, to its end: a task that is cancelled meanwhile waits for it first."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **options))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():  # it may be cancelled again
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise
