"""What a head tells of its cluster now, and which states the cluster was in.

Why it exists: CLI, notebook and flows read the same values from every home, from heads that may be of an older or a
newer Shoal (``codec`` has the rule).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.model.cluster import Reason, State
from shoal.units import Bytes, Seconds


@dataclass(frozen=True)
class NextEnd:
    """Which limit ends a cluster first if nothing changes: its reason, and in how many seconds."""

    reason: Reason
    seconds: Seconds


@dataclass(frozen=True)
class HeadStatus:
    """What ``GET /v1/status`` tells: a head's last look at its engine.

    ``phase``: how far the head itself has come. ``clients``: connections from outside of the cluster. ``busy``:
    something is computed, or waits for a worker. ``memory`` is the sum over workers now, ``limit`` what one of them
    may use, ``peak_memory`` the most that one of them held, ``spilled`` what went to disk. ``cpu_seconds``: of all
    cores. ``restarts`` counts workers that were restarted, ``note`` says why the last one was. ``worker_pids``: of
    workers on the head's machine. ``retired``: workers that hold nothing any more, by name. ``groups``: workers by
    group, and ``room``: what all of them may use, where there are several groups.
    """

    id: str = ""
    phase: State = State.STARTING
    ends_in: NextEnd | None = None
    clients: int = 0
    busy: bool = False
    workers: int = 0
    memory: Bytes = Bytes(0)
    peak_memory: Bytes = Bytes(0)
    limit: Bytes = Bytes(0)
    spilled: Bytes = Bytes(0)
    cpu_seconds: float = 0.0
    restarts: int = 0
    note: str = ""
    worker_pids: tuple[int, ...] = ()
    retired: tuple[str, ...] = ()
    groups: Mapping[str, int] = field(default_factory=dict)
    room: Bytes = Bytes(0)

    @property
    def whole(self) -> Bytes:
        """What all workers together may use; as if of one where there is none."""
        return self.room or Bytes(self.limit * max(1, self.workers))


@dataclass(frozen=True)
class Event:
    """One state that a cluster was in, from ``at`` on (seconds since the epoch), until the next one."""

    state: State
    reason: Reason
    message: str
    at: float
