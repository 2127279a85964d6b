"""How a process outside of Kubernetes reaches a head: a port of this machine that leads to its pod.

Why it exists: pods have no address out here. A tunnel is the API server's own way in, with the rights of who uses it.
All of a process's tunnels live in one event loop: no socket is closed by another thread than the one that uses it.

What it must not do: be relied on for safety: its local end is open to every user of this machine, so whatever is
behind it asks for a certificate or a token.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple

from shoal.errors import InfrastructureError

_OPENS = 20.0  # s that a tunnel may take to be opened


class _Key(NamedTuple):
    process: int  # a forked child has its own
    uid: str
    port: int


_open: dict[_Key, Future[Any]] = {}
_loops: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()


def local_port(context: str | None, namespace: str, pod: str, uid: str, port: int) -> int:
    """The port here that leads to ``port`` of that pod of cluster ``uid``; opened at the first use, and kept by this
    process until :func:`close`.

    Raises:
        InfrastructureError: it cannot be opened.
    """
    key = _Key(os.getpid(), uid, port)
    with _lock:
        if (opening := _open.get(key)) is None:
            work = _opened(context, namespace, pod, port)
            opening = _open[key] = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return int(opening.result(_OPENS).local_port)
    except (Exception, asyncio.CancelledError) as error:  # of kr8s, of its HTTP client, of its event loop
        with _lock:
            if _open.get(key) is opening:
                del _open[key]
        opening.cancel()
        raise InfrastructureError(
            f"no tunnel to pod {pod} in namespace {namespace}: {error or type(error).__name__}",
            hint=f"`kubectl port-forward --namespace {namespace} pod/{pod} {port}` tries the same.",
        ) from error


def close(uid: str) -> None:
    """End the tunnels to a cluster, soon and without waiting; nothing happens where there are none."""
    with _lock:
        mine = [key for key in _open if key.uid == uid and key.process == os.getpid()]
        ended = [_open.pop(key) for key in mine]
        loop = _loop() if ended else None
    for opening in ended:
        asyncio.run_coroutine_threadsafe(_closed(opening), loop)  # type: ignore[arg-type]


def _loop() -> asyncio.AbstractEventLoop:
    """This process's, in a thread of its own."""
    if (loop := _loops.get(os.getpid())) is None:
        loop = _loops[os.getpid()] = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="shoal tunnels", daemon=True).start()
    return loop


async def _opened(context: str | None, namespace: str, pod: str, port: int) -> Any:
    from shoal.homes.kubernetes.forwarding import opened

    return await opened(context, namespace, pod, port)


async def _closed(opening: Future[Any]) -> None:
    with suppress(Exception, asyncio.CancelledError):  # it was never open
        forward = await asyncio.wait_for(asyncio.wrap_future(opening), _OPENS)
        await forward.close()
