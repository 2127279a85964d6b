"""Which attempts at a write go on in this process, and which were given up.

Why it exists: when one task of a write fails, Dask forgets the others but lets those that run come to their end,
and a file that one of them writes after the client has swept up would be nobody's. So an attempt is given up on
every worker first: nothing of it is written from then on.

What it must not do: touch files.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from shoal.errors import UsageError

_WAIT = 30.0  # s that a file which is being written gets to come to the end of its row group
_LOOK = 0.02  # s between looks
_lock = threading.Lock()
_running: Counter[str] = Counter()
_given_up: deque[str] = deque(maxlen=1000)


class GivenUpError(RuntimeError):
    """The attempt failed elsewhere; nobody waits for this task's answer."""


@contextmanager
def part_of(attempt: str) -> Iterator[None]:
    """Files of this attempt are written inside the block. Raises GivenUpError if nobody wants them."""
    with _lock:
        go_on(attempt)
        _running[attempt] += 1
    try:
        yield
    finally:
        with _lock:
            _running[attempt] -= 1
            if not _running[attempt]:
                del _running[attempt]


def go_on(attempt: str) -> None:
    """Raises GivenUpError if the attempt was given up meanwhile."""
    if attempt in _given_up:
        raise GivenUpError(f"{attempt} was given up: another part of the same write failed")


def refuse_in_its_loop(table: str, function: str = "write_table") -> None:
    """UsageError in the event loop of an asynchronous Dask client: whoever waits there waits for themselves."""
    client = current_client()
    if client is not None and client.asynchronous:
        raise UsageError(
            f"{table}: {function} was called in the event loop of an asynchronous Dask client, which cannot go "
            "on until the write returns, and the write needs it",
            hint=f"Call it in a thread: `await asyncio.to_thread(shoal.{function}, ...)`.",
        )


def give_up(attempt: str) -> None:
    """Nothing of this attempt is written any more when this returns, on any worker that answers in time."""
    _mark(attempt)
    asking = threading.Thread(target=_everywhere, args=(attempt, current_client()), daemon=True)
    asking.start()
    asking.join(_WAIT + 5.0)  # a worker that is stopped never answers


def current_client() -> Any:
    """The Dask client in force here; None without one."""
    if "distributed" in sys.modules:
        from distributed import default_client

        with suppress(ValueError):
            return default_client()
    return None


def _everywhere(attempt: str, client: Any) -> None:
    deadline = time.monotonic() + _WAIT
    while attempt in _running and time.monotonic() < deadline:
        time.sleep(_LOOK)
    if client is not None:
        with suppress(Exception):  # whatever is wrong with the cluster, what failed the write is what counts
            client.run(_on_worker, attempt, on_error="ignore")


async def _on_worker(attempt: str) -> None:
    _mark(attempt)
    deadline = time.monotonic() + _WAIT
    while attempt in _running and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK)


def _mark(attempt: str) -> None:
    with _lock:
        if attempt not in _given_up:
            _given_up.append(attempt)
