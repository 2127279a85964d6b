"""The times and counts by which a head judges its engine, as one value for both engines.

Why it exists: they depend on each other, so they stand side by side and are checked when they are made, as the times
of a home are (``governor.periods``).

What it must not do: import anything heavy: a waiting head has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.governor.periods import in_order
from shoal.units import Seconds


@dataclass(frozen=True)
class EngineLimits:
    """ValueError where they contradict each other.

    ``computes``: of a core, over ``window``, from which on a process that no scheduler knows of computes.
    ``window``: in seconds; a collection of garbage takes less than a tenth of it.
    ``heartbeat``: between two signs of life of a client. ``silent_client``: without one, after which a client that
    rests is gone; ``worked``: core-seconds in that time which tell work from rest.
    ``absent``: that a worker's process may be missing, or there and not connected.
    ``deaths``: of one worker's processes within ``deaths_within``, after which it is given up.
    ``at_once``: losses of workers that are made good at once; from then on each waits longer, by ``longest_pause`` at
    most, until ``remembered`` has passed without one.
    ``ask_every``: between two requests to grow: a refusal is not asked again at once.
    ``shrink_after``: for which fewer workers must have been enough.
    """

    computes: float
    window: Seconds
    heartbeat: Seconds
    silent_client: Seconds
    worked: Seconds
    absent: Seconds
    deaths: int
    deaths_within: Seconds
    at_once: int
    remembered: Seconds
    longest_pause: Seconds
    ask_every: Seconds
    shrink_after: Seconds

    def __post_init__(self) -> None:
        in_order(self, "heartbeat", "window", "silent_client")
        in_order(self, "worked", "silent_client")
        in_order(self, "absent", "deaths_within")
        in_order(self, "longest_pause", "remembered")
        in_order(self, "ask_every", "shrink_after")


ENGINE = EngineLimits(
    computes=0.1,
    window=Seconds(10),
    heartbeat=Seconds(5),  # distributed's, as it is without a setting
    silent_client=Seconds(600),
    worked=Seconds(1),
    absent=Seconds(30),
    deaths=5,
    deaths_within=Seconds(60),
    at_once=3,
    remembered=Seconds(300),
    longest_pause=Seconds(60),
    ask_every=Seconds(5),
    shrink_after=Seconds(30),
)
