"""kr8s' port-forward, that ends: with its pod, and when it is told to.

Why it exists: kr8s' own tries for ever, without a pause, to reach a pod that is gone, and leaves connections open when
it is stopped.

What it must not do: be imported where no tunnel is opened: kr8s takes long to load.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextvars import ContextVar
from typing import Any

from kr8s._api import Api
from kr8s.asyncio.objects import Pod
from kr8s.asyncio.portforward import PortForward

from shoal.homes.kubernetes.kubeconfig import configured, trust, without_keys

_log = logging.getLogger("shoal.homes")
_TRIES = 5  # of one connection
_PAUSE = 0.2  # s between them
_tries: ContextVar[int] = ContextVar("_tries")
_apis: dict[tuple[int, str], Any] = {}  # by event loop, and by who asks where


class Forward(PortForward):  # type: ignore[misc]
    """From a free port of this machine to a port of one pod. All of it happens in one event loop."""

    def __init__(self, pod: Any, port: int) -> None:
        super().__init__(pod, port, local_port="auto")
        self._connections: set[asyncio.Task[None]] = set()

    async def _sync_sockets(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        _tries.set(0)
        try:
            await super()._sync_sockets(reader, writer)
        except Exception as error:  # of its HTTP client, of its websockets: who is connected sees the end
            _log.debug("a connection through a tunnel ended: %s", error)
        finally:
            self._connections.discard(task)

    async def _select_pod(self) -> Any:
        """Asked for at the first connection, and again after each that failed."""
        tries = _tries.get() + 1
        _tries.set(tries)
        if tries > _TRIES:
            raise ConnectionError(f"{self._resource.name} was not reached in {_TRIES} tries")
        if tries > 1:
            await asyncio.sleep(_PAUSE)
        known = self._resource
        there = await Pod.get(known.name, namespace=known.namespace, api=known.api)
        if there.metadata.uid != known.metadata.uid:
            raise ConnectionError(f"{known.name} now belongs to another cluster")
        return there

    async def close(self) -> None:
        """End what goes through it, and give its port back."""
        going = list(self._connections)
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        await self.__aexit__(None, None, None)


async def opened(context: str | None, namespace: str, pod: str, port: int) -> Forward:
    """A tunnel that is open."""
    api = await _api(context, namespace)
    forward = Forward(await Pod.get(pod, namespace=namespace, api=api), port)
    await forward.__aenter__()
    return forward


async def _api(context: str | None, namespace: str) -> Any:
    """Kept: kr8s closes no connection of one that is forgotten.

    Of a kubeconfig kr8s writes each certificate and key into a file of its own, and leaves it there: so it is given
    none, and what they make.
    """
    config = configured(context)
    said = without_keys(config)
    key = id(asyncio.get_running_loop()), f"{said} {namespace}"
    if key not in _apis:
        api = Api(kubeconfig=said, namespace=namespace, bypass_factory=True)

        async def trusted() -> ssl.SSLContext:
            return trust(config)

        api.auth.ssl_context = trusted
        _apis[key] = await api
    return _apis[key]
