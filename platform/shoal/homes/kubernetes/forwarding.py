"""kr8s' port-forward, that ends: with its pod, and when it is told to.

Why it exists: kr8s' own tries for ever, without a pause, to reach a pod that is gone, and leaves connections open when
it is stopped.

What it must not do: be imported where no tunnel is opened: kr8s takes long to load.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Generator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec
from kr8s._api import Api
from kr8s.asyncio.objects import Pod
from kr8s.asyncio.portforward import PortForward
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import User

from shoal.homes.kubernetes.credentials import Credential, program_of, trust
from shoal.homes.kubernetes.kubeconfig import configured, proxy_of

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
    """Kept: kr8s closes no connection of one that is forgotten."""
    config = configured(context)
    user = config.user or User()
    if user.token_file:  # read again when it has expired
        config = config._replace(user=msgspec.structs.replace(user, token=None))
    key = id(asyncio.get_running_loop()), f"{config.cluster} {config.user} {namespace}"
    if key not in _apis:
        api = Api(url=config.cluster.server, kubeconfig=False, namespace=namespace, bypass_factory=True)
        api.auth = _Identity(config, namespace)
        _apis[key] = await api
    return _apis[key]


class _Identity:
    """Who one is, and how the API server is reached, as kr8s asks for it: the same as for all other requests.

    kr8s' own writes each certificate and key of a kubeconfig into a file, and leaves it there.
    """

    tls_server_name = None  # the context sees to it

    def __init__(self, config: SingleConfig, namespace: str) -> None:
        user = config.user or User()
        self.server, self.proxy, self.namespace = config.cluster.server, proxy_of(config), namespace
        self.token: str | None = None
        self._context, self._file, self._given = trust(config), user.token_file, user.token
        self._program = program_of(config, self._context)
        self._used: Credential | None = None

    def __await__(self) -> Generator[Any, None, None]:
        return self.reauthenticate().__await__()

    async def reauthenticate(self) -> None:
        """At first, and when what was shown is no longer taken."""
        self.token = await asyncio.to_thread(self._ask)

    def _ask(self) -> str | None:
        if self._program is not None:
            self._used = self._program.credential(other_than=self._used)
            return self._used.token or None
        return Path(self._file).read_text().strip() if self._file else self._given

    async def ssl_context(self) -> ssl.SSLContext:
        """For new connections."""
        return self._context
