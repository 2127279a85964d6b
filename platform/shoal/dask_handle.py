"""The handle of a Dask cluster: ``client``, and what connecting to Dask takes.

Why it exists: see ``handles``; this is the part that knows Dask.

What it must not do: import Dask before a client is asked for.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING

from shoal.computing import DaskBar
from shoal.environment import VERSIONS, differences, versions, warn
from shoal.handles import ClusterHandle
from shoal.homes.base import Home
from shoal.records import Cluster

if TYPE_CHECKING:
    from distributed import Client

# Clients of the parent process, in a forked child: nothing may finalize them there.
_abandoned: list[Client] = []
_COMPARE = 5.0  # s that workers get to tell their versions


class DaskCluster(ClusterHandle):
    """A Dask cluster. ``client`` is the default client of this process while it is open."""

    def __init__(self, home: Home, cluster: Cluster, *, owns: bool, quiet: bool = False) -> None:
        super().__init__(home, cluster, owns=owns, quiet=quiet)
        self._client: Client | None = None
        self._bar: DaskBar | None = None

    @property
    def client(self) -> Client:
        """A ``distributed.Client``, connected at the first use."""
        if self._client is None:
            from distributed import Security
            from distributed.versions import VersionMismatchWarning

            from shoal.dask_client import Client

            endpoint = self._home.endpoint(self.id)
            security = Security(require_encryption=True, **endpoint.security)
            with warnings.catch_warnings():
                # _compare says the same, of more packages, and once.
                warnings.simplefilter("ignore", VersionMismatchWarning)
                # Dask's own link knows nothing of the secret in ours.
                linked = type("Client", (Client,), {"dashboard_link": endpoint.dashboard})
                self._client = linked(
                    endpoint.address, security=security, timeout="30s", name=f"shoal-{self.name}"
                )
            self._compare(self._client)
            if self.progress:
                self._bar = DaskBar(self._client, self.name)
        return self._client

    @staticmethod
    def _compare(client: Client) -> None:
        """Warn where workers have other packages. Workers that do not answer are not held against it."""
        known = client.scheduler_info(n_workers=-1)["workers"]
        theirs = {address: worker.get(VERSIONS) for address, worker in known.items()}
        if not all(theirs.values()):  # workers that nobody told to say it are asked
            theirs = {}
            with contextlib.suppress(OSError, TimeoutError):
                theirs = client.sync(client._run, versions, on_error="ignore", callback_timeout=_COMPARE)
        warn(differences(versions(), theirs))

    @property
    def dashboard(self) -> str:
        """The link to Dask's own dashboard. It lets in whoever has it."""
        return self._home.endpoint(self.id).dashboard

    def open(self) -> None:
        _ = self.client

    def _abandon(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.status = "closed"  # nobody waits for its loop: not at exit, not as the default client
            _abandoned.append(client)

    def _disconnect(self) -> None:
        if self._bar is not None:
            self._bar.end()
            self._bar = None
        if self._client is not None:
            self._client.close()
            self._client = None
