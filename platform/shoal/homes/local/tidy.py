"""Ends and removes what gone heads left behind: processes, secrets, scratch space.

Why it exists: whoever finds a head gone tidies up after it, whether that is a command, a waiter or another
head.

What it must not do: find out who is gone.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from shoal.homes.local import endpoints
from shoal.homes.local.periods import LOCAL
from shoal.machine import paths
from shoal.machine.processes import end_marked, is_alive, signal_process
from shoal.model.cluster import Cluster


class Deed(Enum):
    """What is left to do for a cluster, once the transaction that found it is over."""

    TELL = "its end is written: its head has to be told"
    KILL = "its head was told, and did not end"
    END = "its head is gone: what it left has to be ended"
    TIDY = "it has ended: what it left has to be removed"


@dataclass(frozen=True)
class Found:
    """A cluster that a look at the ledger found in need of something."""

    cluster: Cluster
    deed: Deed


def follow(found: Iterable[Found]) -> frozenset[str]:
    """Do what is left to do. Returns the ids of those that are gone now: another look writes that they have ended."""
    gone = set()
    for each in found:
        match each.deed:
            case Deed.TELL:
                tell_to_end(each.cluster.head)
            case Deed.KILL:
                if _kill(each.cluster):
                    tidy_up([each.cluster])
                    gone.add(each.cluster.id)
            case Deed.END:
                tidy_up([each.cluster])
                gone.add(each.cluster.id)
            case Deed.TIDY:
                tidy_up([each.cluster])
    return frozenset(gone)


def tell_to_end(head: Mapping[str, Any]) -> None:
    """Also one that is stopped: it goes on, and ends in good order."""
    signal_process(head, signal.SIGCONT)  # first: whoever stops it while it ends is not undone by us
    signal_process(head, signal.SIGTERM)


def _kill(cluster: Cluster) -> bool:
    if not signal_process(cluster.head, signal.SIGKILL):
        return False
    deadline = time.monotonic() + LOCAL.dying
    while is_alive(cluster.head) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(cluster.head)


def tidy_up(gone: Iterable[Cluster]) -> None:
    """For each: end every process that carries its mark, forget its secrets, free its space."""
    for cluster in gone:
        end_marked(cluster.id)
        endpoints.forget(paths.run_folder(cluster.id))
        paths.tidy(paths.run_folder(cluster.id))
