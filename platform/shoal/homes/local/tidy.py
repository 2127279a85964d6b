"""Ends and removes what gone heads left behind: processes, secrets, scratch space.

Why it exists: whoever finds a head gone tidies up after it, whether that is a command, a waiter or another
head.

What it must not do: find out who is gone.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal.homes.local import endpoints, paths
from shoal.homes.local.processes import end_marked
from shoal.records import Cluster


def tidy_up(gone: Iterable[Cluster]) -> None:
    """For each: end every process that carries its mark, forget its secrets, free its space."""
    for cluster in gone:
        end_marked(cluster.id)
        endpoints.forget(paths.run_folder(cluster.id))
        paths.tidy(paths.run_folder(cluster.id))
