"""What a governor may ask of a home: a snapshot to decide on, and single writes that may fail.

Why it exists: the loop that governs is the same wherever each write stands alone, as on Kubernetes. (The
local home does a whole round in one transaction and needs no loop.)

What it must not do: know any home, or decide.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from shoal.governor.actions import Scope, Seen
from shoal.governor.ends import End, Exit, Pulse
from shoal.model.cluster import Cluster
from shoal.quota.account import Account

if TYPE_CHECKING:
    from shoal.model.workload import Plan
    from shoal.project.targets import Machine
    from shoal.quota.budgets import Spending

# Whose account: (Scope.TEAM, "growth"). The place has one, under the empty name; a quota is called as there.
AccountKey = tuple[Scope, str]


@dataclass(frozen=True)
class UserWishes:
    """What people asked of a cluster since it was made.

    ``workers``: in its first group; ``groups``: in others, by name.
    """

    stop: End | None = None
    workers: int | None = None
    groups: Mapping[str, int] = field(default_factory=dict)

    def next(self, plan: Plan) -> tuple[int | None, str]:
        """What to change next: a number of workers, and in which group (empty: the first one).

        One group at a time: fewer before more, and what a person said of a group by name before what the first one
        would like, which follows its work.
        """
        known = {group.name: group.count for group in plan.groups[1:]}
        named = {name: its for name, its in self.groups.items() if name in known and its != known[name]}
        fewer = [name for name, its in named.items() if its < known[name]]
        if self.workers is not None and self.workers < plan.groups[0].count:
            return self.workers, ""
        if named:
            first = (fewer or list(named))[0]
            return named[first], first
        return self.workers, ""


@dataclass(frozen=True)
class Sight:
    """What is seen of a cluster's processes, in the words of ``actions.Observation``."""

    head: Seen = Seen.NEVER
    remains: bool | None = False
    silent: float = 0.0
    lived: float | None = None
    pulse: Pulse | None = None
    last: End | None = None
    owner: str = ""
    script: Seen | None = None
    exit: Exit | None = None
    refused: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What a round is decided on. Each account and record comes with the version it was read at.

    The accounts are read first, the records after them, the processes last: ``lifecycle`` relies on it.
    ``quotas``: by which quota the place itself bounds a cluster (missing: by none). ``quiet``: clusters of which
    nothing changed since a round looked at them and found nothing to do: this one does not. ``spending``: what was
    taken of budgets (None: nobody keeps that there).
    """

    now: float
    accounts: Mapping[AccountKey, tuple[Account, int]]
    clusters: Mapping[str, tuple[Cluster, int]]
    sights: Mapping[str, Sight]
    wishes: Mapping[str, UserWishes] = field(default_factory=dict)
    machine: Machine | None = None
    quotas: Mapping[str, str] = field(default_factory=dict)
    quiet: Collection[str] = frozenset()
    spending: Spending | None = None


class Governed(Protocol):
    """The writes. Each raises StaleRecordError, or OutcomeUnknownError when no reply came."""

    def snapshot(self) -> Snapshot:
        """Read everything, in the order that :class:`Snapshot` says."""
        ...

    def write_account(self, key: AccountKey, account: Account, version: int) -> int:
        """Replace the account if it still has ``version`` (0: there is none yet); returns the new version."""
        ...

    def write_cluster(self, cluster: Cluster, version: int) -> int:
        """Replace the record if it still has ``version``; returns the new version."""
        ...

    def start_head(self, cluster_id: str) -> None:
        """Start the cluster's head; nothing happens where one is or ever was."""
        ...

    def start_script(self, cluster_id: str) -> None:
        """Start the cluster's script; nothing happens where it runs or ever ran. Only homes that run any have this."""
        ...

    def stop_head(self, cluster_id: str) -> None:
        """Tell the head to end in good order, and the script; nothing happens where none is."""
        ...

    def kill_head(self, cluster_id: str) -> None:
        """End the head at once; nothing happens where none is."""
        ...

    def end_remains(self, cluster_id: str) -> None:
        """End whatever carries the cluster's mark."""
        ...
