"""The times of home ``local``.

Why it exists: see ``governor.periods``. Here they are also about a store that is a database, and heads that are
processes. On one machine everybody sees whether a head lives, and neither ``lease`` nor ``silent`` is used; on several
that share a ledger both are long enough for a database to be restarted, or moved.

What it must not do: import anything heavy: a waiting head has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.governor.periods import Periods, in_order
from shoal.units import Seconds


@dataclass(frozen=True)
class LocalPeriods(Periods):
    """In seconds. ValueError where they contradict each other.

    ``lock``: that a transaction waits for others before it gives up; ``head_lock``: the same for a head, whose own
    limits come while it waits. ``insist``: for which a head tries again what has to be written, every ``again``.
    ``let_go``: that a stopped process which holds the ledger gets to give it back; ``stopped``: of one that stays
    stopped, after which it is killed. ``abandoned``: of a transaction whose client does nothing, after which a server
    ends it; ``statement``: that one statement may take there.
    ``audit``: between two looks of a head at its budgets.
    ``dying``: that a killed process may take to be gone; ``leaving``: after a cluster's end, in which its last
    processes may still be on their way out. ``quiet``: without news from a head, after which people are told.
    """

    lock: Seconds
    head_lock: Seconds
    insist: Seconds
    again: Seconds
    let_go: Seconds
    stopped: Seconds
    abandoned: Seconds
    statement: Seconds
    audit: Seconds
    dying: Seconds
    leaving: Seconds
    quiet: Seconds
    look: Seconds
    duty: Seconds
    settled: Seconds
    settling: Seconds
    deleted: Seconds

    def __post_init__(self) -> None:
        super().__post_init__()
        in_order(self, "again", "head_lock", "lock", "insist", "lease")
        in_order(self, "let_go", "stopped", "lock")  # else whoever waits gives up before it is let go
        in_order(self, "abandoned", "lock")
        in_order(self, "tick", "dying", "leaving")
        in_order(self, "renew", "quiet")
        in_order(self, "renew", "audit")
        in_order(self, "look", "duty", "settled", "settling")
        in_order(self, "look", "deleted")


LOCAL = LocalPeriods(
    tick=Seconds(0.5),
    renew=Seconds(5),
    lease=Seconds(300),
    silent=Seconds(345),
    headless=Seconds(30),  # its client starts the head's process within a second
    start=Seconds(300),  # the first fetch of jars included (SHOAL_START_LIMIT)
    overdue=Seconds(60),
    stop=Seconds(60),
    lock=Seconds(30),
    head_lock=Seconds(5),
    insist=Seconds(60),
    again=Seconds(0.5),
    let_go=Seconds(2),
    stopped=Seconds(20),
    abandoned=Seconds(10),
    statement=Seconds(60),
    audit=Seconds(60),
    dying=Seconds(5),
    leaving=Seconds(15),
    quiet=Seconds(60),
    look=Seconds(0.2),
    duty=Seconds(1),
    settled=Seconds(15),
    settling=Seconds(60),
    deleted=Seconds(60),
)
