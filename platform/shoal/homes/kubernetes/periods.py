"""The times of home ``kubernetes``.

Why it exists: see ``governor.periods``. A head there needs no lease: whether its pod lives is told by the API server.

What it must not do: import anything heavy: every head has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.governor.periods import Periods, in_order
from shoal.units import Seconds


@dataclass(frozen=True)
class KubernetesPeriods(Periods):
    """In seconds. ValueError where they contradict each other.

    ``report``: between two reports of a head that has nothing new to say. ``look``: between two rounds of the governor
    in which nothing woke it. ``decide``: that who asks waits for the governor's answer. ``pull``: that an image may
    fail to be pulled before its cluster is given up. ``ended``: that the object of an ended cluster stays. ``kept``:
    that its record does.
    """

    report: Seconds
    look: Seconds
    decide: Seconds
    pull: Seconds
    ended: Seconds
    kept: Seconds

    def __post_init__(self) -> None:
        super().__post_init__()
        in_order(self, "tick", "look", "report")
        in_order(self, "look", "decide", "start")
        in_order(self, "pull", "start")
        in_order(self, "look", "ended", "kept")


KUBERNETES = KubernetesPeriods(
    tick=Seconds(0.5),
    renew=Seconds(30),
    lease=Seconds(300),
    silent=Seconds(345),
    headless=Seconds(300),  # a node may have to be made first
    start=Seconds(600),  # images are pulled meanwhile
    overdue=Seconds(60),
    stop=Seconds(60),
    report=Seconds(30),
    look=Seconds(5),
    decide=Seconds(10),
    pull=Seconds(90),
    ended=Seconds(3600),
    kept=Seconds(90 * 86400),
)
TELLS = 10.0  # s between two renewals of the governor's Lease
BEAT = 2 * TELLS  # s without one after which somebody is told
