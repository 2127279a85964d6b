"""When a cluster ends by itself: idle, without a client, or at its deadline.

Why it exists: the head must end itself with nobody calling, so it decides alone, and purely: values in,
a verdict out, the same for every engine.

What it must not do: read clocks or look at anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoal.head.engine import Observation
from shoal.records import Reason
from shoal.units import Seconds
from shoal.workload import Timeouts


@dataclass(frozen=True)
class Watch:
    """Since when (monotonic seconds) nothing was computed and nobody was connected; None: not so now."""

    ready: float
    idle_since: float | None = None
    alone_since: float | None = None

    @classmethod
    def begin(cls, now: float) -> Watch:
        """At the moment the cluster is Ready: idle and alone from now on."""
        return cls(ready=now, idle_since=now, alone_since=now)

    def seen(self, look: Observation | None, now: float) -> Watch:
        """After one look. No answer counts as busy: unknown is not idle."""
        if look is None:
            return replace(self, idle_since=None, alone_since=None)
        idle = None if look.busy else (now if self.idle_since is None else self.idle_since)
        alone = None if look.clients else (now if self.alone_since is None else self.alone_since)
        return replace(self, idle_since=idle, alone_since=alone)

    def verdict(self, timeouts: Timeouts, started: float, now: float) -> tuple[Reason, str] | None:
        """Why to end now, with a sentence; None: go on. ``started`` is when it was admitted."""
        if now - started >= timeouts.max:
            return Reason.DEADLINE_REACHED, f"it reached its longest life, {timeouts.max}"
        if self.alone_since is not None and now - self.alone_since >= timeouts.no_client:
            return Reason.CLIENT_GONE, f"no client was connected for {timeouts.no_client}"
        if self.idle_since is not None and now - self.idle_since >= timeouts.idle:
            return Reason.IDLE, f"nothing was computed for {timeouts.idle}"
        return None

    def idle(self, now: float) -> float:
        """Seconds since something was last computed; 0 while something is."""
        return now - self.idle_since if self.idle_since is not None else 0.0

    def ends_in(self, timeouts: Timeouts, started: float, now: float) -> tuple[Reason, Seconds]:
        """Which limit comes first if nothing changes, and in how many seconds."""
        left = {Reason.DEADLINE_REACHED: timeouts.max - (now - started)}
        if self.alone_since is not None:
            left[Reason.CLIENT_GONE] = timeouts.no_client - (now - self.alone_since)
        if self.idle_since is not None:
            left[Reason.IDLE] = timeouts.idle - (now - self.idle_since)
        first = min(left, key=lambda reason: left[reason])
        return first, Seconds(max(0.0, left[first]))
