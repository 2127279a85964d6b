"""The handle of a Dask cluster: ``client``, and what connecting to Dask takes.

Why it exists: see ``handles``; this is the part that knows Dask.

What it must not do: import Dask before a client is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import weakref
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from shoal.client.ending import why_ended
from shoal.client.handles import ClusterHandle
from shoal.client.threads import in_thread
from shoal.display.computing import DaskBar, shows
from shoal.errors import ForkedError, ShoalError, UsageError
from shoal.homes.base import Home, pages_of
from shoal.machine.environment import VERSIONS, differences, versions, warn
from shoal.model.cluster import Cluster, State

if TYPE_CHECKING:
    from distributed import Client

# Clients of the parent process, in a forked child: nothing may finalize them there.
_abandoned: list[Client] = []
_COMPARE = 5.0  # s that workers get to tell their versions


class DaskCluster(ClusterHandle):
    """A Dask cluster. ``client`` is the default client of this process while it is open.

    In a ``with`` or ``async with`` block it is that of the block's thread or task, whichever other clusters are open.
    """

    _engine_errors = frozenset({"dask", "distributed", "tornado", "asyncio", "concurrent"})
    _habits = MappingProxyType(
        {
            **ClusterHandle._habits,
            "get_client": ".client",
            "dashboard_link": ".dashboard",
            "adapt": ".scale(n); one that was started with a range, workers=(1, 4), follows its work",
            "get_logs": ".logs()",
        }
    )

    def __init__(self, home: Home, cluster: Cluster, *, owns: bool, quiet: bool = False) -> None:
        super().__init__(home, cluster, owns=owns, quiet=quiet)
        self._client: Client | None = None
        self._bar: DaskBar | None = None
        self._entered = False  # a block of its own is open

    @property
    def client(self) -> Client:
        """A ``distributed.Client``, connected at the first use. Inside ``async with`` it is asynchronous."""
        if self._client is None:
            self._client = client = self._connection()
            self._leave_when_dropped(client)
            warn(differences(versions(), client.sync(_theirs, client)))
            if self.progress and (bar := shows(self.name, self._shown)) is not None:
                self._bar = DaskBar(client, bar)
                client.after_call = self._bar.pause
            if self._entered:
                self._compute_here(client)
        return self._client

    def _enter_block(self) -> None:
        # One that is queued has nothing to connect to yet.
        if self._client is not None or self.record.state is not State.QUEUED:
            self._compute_here(self.client)
        self._entered = True

    def _compute_here(self, client: Client) -> None:
        """What this context computes goes to this client, whatever others of the process have open."""
        from shoal.client.dask_current import enter

        enter(client)

    def _leave_block(self) -> None:
        self._entered = False
        if self._client is not None:
            from shoal.client.dask_current import leave

            leave(self._client)

    def _connection(self, **more: Any) -> Client:
        from distributed import Security

        from shoal.client.dask_client import Client

        endpoint = self._home.endpoint(self.id)
        # Dask's own link knows nothing of the secret in ours, nor of a tunnel, which is opened for who asks.
        link = partial(_link, self._home, self.id)
        linked = type("Client", (Client,), {"dashboard_link": property(lambda _client: link())})
        return linked(
            endpoint.address,
            security=Security(require_encryption=True, **endpoint.security),
            timeout="30s",
            name=f"shoal-{self.name}",
            why=partial(why_ended, self._home, self.id),  # not of the handle: it has to be free to go
            **more,
        )

    async def _open_in_loop(self) -> None:
        await in_thread(self._disconnect)  # a client that was opened outside of the loop
        await in_thread(importlib.import_module, "shoal.client.dask_client")
        self._client = client = self._connection(asynchronous=True)
        self._leave_when_dropped(client)
        await client
        theirs = await _theirs(client)
        warn(await in_thread(lambda: differences(versions(), theirs)))

    def _leave_when_dropped(self, client: Client) -> None:
        """Dask itself keeps every connected client, so one of a dropped handle would stay for ever."""
        self._leaving = weakref.finalize(self, _left, client, self._finalizer, self.name, self._process)
        self._leaving.atexit = False  # Dask closes its clients there

    async def _leave_loop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            self._stay()
            with contextlib.suppress(Exception):  # a client whose cluster is gone may fail in many ways
                await client.close()

    @classmethod
    def _of_client(cls, name: str) -> str:
        import distributed

        return f".client.{name}" if hasattr(distributed.Client, name) else ""

    @property
    def scheduler_address(self) -> NoReturn:
        """UsageError: ``distributed.Client(cluster)`` asks for it, and would be a client that knows less."""
        raise UsageError(
            "a Shoal cluster already has a client; Client(cluster) does not make another",
            hint="Use cluster.client. It is Dask's default client while the cluster is open.",
        )

    @property
    def dashboard(self) -> str:
        """The link to Dask's own dashboard. It lets in whoever has it.

        It holds while this process has the cluster open. ``distributed.dashboard.link`` of Dask's configuration says
        how it has to look where browsers come by a proxy.
        """
        return pages_of(self._home, self.id)

    def open(self) -> None:
        _ = self.client

    def _abandon(self) -> None:
        self._bar = None
        client, self._client = self._client, None
        self._stay()
        if client is not None:
            from shoal.client.dask_current import forked

            forked(client, partial(_anew, weakref.ref(self), self.name))
            _abandoned.append(client)

    def _disconnect(self) -> None:
        if self._bar is not None:
            self._bar.end()
            self._bar = None
        self._stay()
        client, self._client = self._client, None
        if client is None:
            return
        if client.asynchronous:  # in its own loop, where nobody can wait for it
            from shoal.client.dask_ending import closed

            client.leave(closed())
        else:
            client.close()


def _link(home: Home, cluster_id: str) -> str:
    """As ``dashboard``; "" where there is none any more, for a client's ``repr`` may ask."""
    with contextlib.suppress(ShoalError, OSError):
        return pages_of(home, cluster_id)
    return ""


def _left(client: Any, owned: weakref.finalize[Any, Any] | None, name: str, process: int) -> None:
    """A handle went without close(). Where it owned its cluster, that ends now, and its client reads why."""
    if os.getpid() != process or (owned is not None and owned.alive):
        return
    client.leave(
        UsageError(
            f"the connection to {name!r} was closed: its handle was dropped",
            hint=f"Keep the handle for as long as its client is used: cluster = shoal.connect({name!r}).",
        )
    )


def _anew(handle: weakref.ref[DaskCluster], name: str) -> Client:
    """The client of a forked child, which has its parent's handle."""
    cluster = handle()
    if cluster is None or cluster._closed:
        raise ForkedError(
            f"this process is a forked child, and its handle on {name!r} is gone",
            hint=f"Connect here: cluster = shoal.connect({name!r}).",
        )
    return cluster.client


async def _theirs(client: Client) -> dict[str, dict[str, str]]:
    """What versions the workers have, by address. Workers that do not answer are not held against it."""
    known = (await client.scheduler.identity(n_workers=-1))["workers"]
    theirs = {address: worker.get(VERSIONS) for address, worker in known.items()}
    if all(theirs.values()):
        return theirs
    # Workers that nobody told to say it are asked.
    with contextlib.suppress(OSError, TimeoutError):
        return await asyncio.wait_for(client.ask_workers(versions), _COMPARE)
    return {}
