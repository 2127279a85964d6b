"""The times of home ``local``.

Why it exists: see ``governor.periods``. On one machine everybody sees whether a head lives, and neither ``lease`` nor
``silent`` is used; on several that share a ledger both are long enough for a database to be restarted, or moved.

What it must not do: anything but name them.
"""

from __future__ import annotations

from shoal.governor.periods import Periods
from shoal.units import Seconds

LOCAL = Periods(
    tick=Seconds(0.5),
    renew=Seconds(5),
    lease=Seconds(300),
    silent=Seconds(345),
    headless=Seconds(30),  # its client starts the head's process within a second
    start=Seconds(300),  # the first fetch of jars included (SHOAL_START_LIMIT)
    overdue=Seconds(60),
    stop=Seconds(60),
)
