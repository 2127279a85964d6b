"""The processes of clusters: how the local home sees, starts, tells and ends them.

Why it exists: what is decided in the ledger is one thing, what is done to processes another. Tests play the second
with a clock of their own, and run the first as it is.

What it must not do: read or write the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shoal.errors import InfrastructureError
from shoal.homes.local import endpoints
from shoal.homes.local.launch import launch, reap
from shoal.homes.local.sight import LocalSight, look
from shoal.homes.local.tidy import Found, follow, tell_to_end, tidy_up
from shoal.machine import paths
from shoal.machine.loopback import get_json
from shoal.machine.processes import all_marked, end_marked, is_ahead, is_alive, is_stopped, marked
from shoal.model.cluster import Cluster
from shoal.model.codec import read
from shoal.model.endpoint import Endpoint
from shoal.model.status import HeadStatus


class Heads:
    """Those of this machine."""

    def look(self, cluster: Cluster, now: float, ledger_path: str) -> LocalSight:
        """What is seen of a cluster's processes; ``now`` and ``ledger_path`` are its ledger's."""
        return look(cluster, now, ledger_path)

    def launch(self, cluster: Cluster, environment: Mapping[str, str]) -> dict[str, Any]:
        """Start its head, or let one go on that was started ahead; returns its identity. InfrastructureError."""
        return launch(cluster.id, cluster.plan.engine, environment)

    def tell(self, head: Mapping[str, Any]) -> None:
        """That it is to end in good order."""
        tell_to_end(head)

    def follow(self, found: Iterable[Found]) -> frozenset[str]:
        """Do what a look at the ledger found to do. Returns the ids of those that are gone now."""
        return follow(found)

    def tidy(self, cluster: Cluster) -> None:
        """End and remove all that is left of it."""
        tidy_up([cluster])

    def remain(self, cluster: Cluster) -> bool:
        """Whether anything of it runs."""
        remains = bool(is_alive(cluster.head)) or bool(marked(cluster.id))
        reap()  # last: a head that ends between the two would stay a zombie
        return remains

    def reap(self) -> None:
        """Take note of those that this process started and that have ended."""
        reap()

    def marked(self, ledger: str) -> dict[int, str]:
        """Pid -> cluster id of every process of a cluster that this ledger (its URL) knows."""
        return all_marked(ledger)

    def is_ahead(self, pid: int) -> bool:
        """Whether this process is of a cluster whose request is being decided."""
        return is_ahead(pid)

    def end(self, cluster_id: str) -> None:
        """Every process that carries its mark."""
        end_marked(cluster_id)

    def endpoint(self, cluster_id: str) -> Endpoint | None:
        """Where to connect, as its head wrote it down; None before and after."""
        return endpoints.read(paths.run_folder(cluster_id))

    def status(self, cluster: Cluster, timeout: float) -> HeadStatus | None:
        """What its head tells; None when it does not within ``timeout`` seconds."""
        token, url = endpoints.read_token(paths.run_folder(cluster.id)), cluster.head.get("status_url")
        if not token or not url or is_stopped(cluster.head):
            return None
        try:
            return read(HeadStatus, get_json(url, token, timeout))
        except (OSError, ValueError, InfrastructureError):
            return None
