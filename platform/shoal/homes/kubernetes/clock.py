"""What time it is, by the API server's clock.

Why it exists: times are written into objects by whoever governs, wherever that runs, and compared by others. A
machine's clock may be an hour off; the server's is the one that all of them can ask.

What it must not do: ask it. Every answer tells the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

OFF = 2.0  # s by which a clock may differ without being corrected: answers tell whole seconds, and take their way


class ServerClock:
    """This machine's clock as long as it is right, else corrected. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._ahead = clock, 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock() + self._ahead

    def heard(self, date: str | None) -> None:
        """An answer came that was written at ``date``, as HTTP tells it."""
        try:
            ahead = parsedate_to_datetime(date or "").timestamp() + 0.5 - self._clock()
        except ValueError:  # of who has no clock
            return
        if abs(ahead - self._ahead) > OFF:
            self._ahead = ahead if abs(ahead) > OFF else 0.0
