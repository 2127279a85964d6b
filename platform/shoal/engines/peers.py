"""Who is at the other end of the connections of an engine: which process of this machine, in what state; or which
other machine.

Why it exists: a worker whose task uses a client connects as a person's process does, and a suspended process
keeps its connection for ever. Neither may keep a cluster alive. A pid tells them apart, and connections of one
machine have one; those of other machines are told apart by their address.

What it must not do: judge (``watch.Peer`` does), or know an engine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, replace
from operator import attrgetter

import psutil

from shoal.engines.watch import Peer
from shoal.machine import addresses, measure

_LOOK_AGAIN = 10.0  # s between looks for an owner that was not found: it may be another user's


@dataclass(frozen=True)
class Connection:
    """Both ports of a connection, and for how long (s) nothing was heard on it; None: nothing has to be.

    ``host`` is the address at its other end.
    """

    ours: int
    theirs: int
    silent: float | None = None
    host: str = "127.0.0.1"


def by_address(host: str, workers: Set[addresses.Address], own: Set[addresses.Address]) -> bool | None:
    """Whether who connects from this address is of the cluster itself, as who connects from its workers' machines.

    None: the address does not tell, as it is one of this machine: there are the cluster's own processes, and
    clients whose tunnel ends here. Pure.
    """
    address = addresses.parsed(host)
    if address is None:
        return False
    if address.is_loopback or address in own:
        return None
    return address in workers


@dataclass(frozen=True)
class _Owner:
    """Who holds the other end, since when that is known, and core-seconds at its last heartbeat."""

    pid: int | None
    looked: float
    inside: bool = False
    cpu: float = 0.0


class Peers:
    """Tells the clients of one cluster from its own processes."""

    def __init__(self, cluster_id: str, tree: measure.Tree) -> None:
        self._cluster_id = cluster_id
        self._tree = tree
        self._owners: dict[Connection, _Owner] = {}
        self._own = addresses.every(addresses.own())

    def clients(self, connections: list[Connection], workers: Collection[str] = ()) -> int:
        """How many of the connections are clients now; ``workers`` are addresses of workers on other machines."""
        now = time.monotonic()
        theirs = addresses.every(workers)
        located = [(each, by_address(each.host, theirs, self._own)) for each in connections]
        afar = [Peer(inside=its, silent=each.silent) for each, its in located if its is not None]
        return sum(peer.counts for peer in afar) + self._near(
            [each for each, its in located if its is None], now
        )

    def _near(self, connections: list[Connection], now: float) -> int:
        keys = {replace(each, silent=None): each for each in connections}
        self._owners = {key: owner for key, owner in self._owners.items() if key in keys}
        if unknown := [key for key in keys if self._is_unknown(key, now)]:
            self._find(unknown, now)
        return sum(self._peer(key, each).counts for key, each in keys.items())

    def _is_unknown(self, key: Connection, now: float) -> bool:
        owner = self._owners.get(key)
        if owner is None:
            return True
        if owner.pid is None:
            return now - owner.looked > _LOOK_AGAIN
        # Its holder is gone, but not the connection: a process that it forked has it.
        return measure.state(owner.pid) in ("", "Z")

    def _find(self, keys: list[Connection], now: float) -> None:
        pids = _owners()
        below = self._tree.look()
        for key in keys:
            pid = pids.get((key.theirs, key.ours))
            inside = pid is not None and (
                pid == os.getpid() or pid in below or measure.mark_of(pid) == self._cluster_id
            )
            cpu = measure.cpu_seconds(pid) if pid is not None else 0.0
            self._owners[key] = _Owner(pid, now, inside, cpu)

    def _peer(self, key: Connection, seen: Connection) -> Peer:
        owner = self._owners[key]
        if owner.pid is None or owner.inside:
            return Peer(inside=owner.inside, silent=seen.silent)
        cpu = measure.cpu_seconds(owner.pid)
        if seen.silent is None or seen.silent < _LOOK_AGAIN:
            self._owners[key] = replace(owner, cpu=cpu)
        return Peer(
            stopped=measure.state(owner.pid) == "T", silent=seen.silent, worked=max(0.0, cpu - owner.cpu)
        )


def _owners() -> Mapping[tuple[int, int], int]:
    """Their port and the other's -> the pid that holds it, of the connections whose owner can be known."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):  # macOS tells only root of all
        return {}
    port = attrgetter("port")
    return {(port(each.laddr), port(each.raddr)): each.pid for each in connections if each.raddr and each.pid}
