"""What a record tells besides its state: where it stands in the queue while it waits, what it used once it ran.

Why it exists: both are kept in one place (``Cluster.report``), one after the other, and are two things.

What it must not do: decide what is worth telling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.units import Bytes


@dataclass(frozen=True)
class QueueStatus:
    """Where a cluster that waits stands: its ``place`` in the queue, from 1, and when it starts at the ``latest``
    (seconds since the epoch). None: not known, or open."""

    place: int | None = None
    latest: float | None = None


@dataclass(frozen=True)
class Usage:
    """What a cluster used until its head's last look.

    ``idle``: seconds since it last computed. ``ends_in``: which limit comes first if nothing changes, and in how many
    seconds. ``peak_worker_memory``: the most that one worker held, of its ``worker_memory_limit``; ``peak_memory``:
    the most that all held together; ``spilled``: to disk. ``cpu_seconds``: of all cores. ``restarts`` of workers,
    with a note on the last. ``samples``: seconds since it was admitted, workers, bytes held.
    ``worker_seconds``: workers times how long each was there, of the ``seen`` seconds up to the last look.
    ``group_seconds``: the same by group, where there are several. ``exit_code``: of the script that ran on it; None:
    none did, or it runs. ``beat``: when its head last told, by the clock of its machine since the boot.
    """

    idle: float = 0.0
    ends_in: tuple[str, float] | None = None
    peak_worker_memory: Bytes = Bytes(0)
    peak_memory: Bytes = Bytes(0)
    worker_memory_limit: Bytes = Bytes(0)
    spilled: Bytes = Bytes(0)
    cpu_seconds: float = 0.0
    restarts: int = 0
    restart_note: str = ""
    samples: tuple[tuple[float, float, float], ...] = ()
    worker_seconds: float = 0.0
    seen: float = 0.0
    exit_code: int | None = None
    beat: float | None = None
    group_seconds: Mapping[str, float] = field(default_factory=dict)
