"""What counts as idle, and what as a client: what a head tells of its cluster, purely, from looks at its engine.

Why it exists: a cluster ends with nobody calling, by what its own head sees, the same for every engine. What follows
from it is one table for all homes (``governor.ends``).

What it must not do: read clocks or look at anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shoal.engines.limits import ENGINE
from shoal.engines.port import Sample
from shoal.governor.ends import Pulse
from shoal.model.workload import Timeouts


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

    def seen(self, look: Sample | None, now: float) -> Watch:
        """After one look. No answer counts as busy: unknown is not idle."""
        if look is None:
            return replace(self, idle_since=None, alone_since=None)
        idle = None if look.busy else (now if self.idle_since is None else self.idle_since)
        alone = None if look.clients else (now if self.alone_since is None else self.alone_since)
        return replace(self, idle_since=idle, alone_since=alone)

    def pulse(self, started: float, now: float) -> Pulse:
        """What its head tells of it; ``started`` is when it was admitted."""
        alone = None if self.alone_since is None else now - self.alone_since
        idle = None if self.idle_since is None else now - self.idle_since
        return Pulse(now - started, alone, idle)

    def idle(self, now: float) -> float:
        """Seconds since something was last computed; 0 while something is."""
        return now - self.idle_since if self.idle_since is not None else 0.0


@dataclass(frozen=True)
class Work:
    """CPU time as the second sign of work, for what no scheduler knows of: threads, daemons, actors.

    A process of the cluster (not its head) that took a tenth of a core over a window computes, until a later
    window says otherwise. An idle worker takes 0.03 of a core, an idle JVM 0.003.
    """

    window: float
    since: float
    cpu: Mapping[int | str, float] = field(default_factory=dict)
    computing: bool = False

    @classmethod
    def begin(cls, timeouts: Timeouts, cpu: Mapping[int | str, float], now: float) -> Work:
        """``cpu``: core-seconds so far of each process, by pid, or by a name where it runs on another machine.

        Short idle times have short windows.
        """
        return cls(min(ENGINE.window, timeouts.idle / 4), now, cpu)

    def due(self, now: float) -> bool:
        """Whether a window is over, so that it is worth a look at all processes."""
        return now - self.since >= self.window

    def seen(self, cpu: Mapping[int | str, float], now: float) -> Work:
        """After a window. A process that is new used all that it has used in this window."""
        passed = max(now - self.since, 1e-3)
        most = max((used - self.cpu.get(pid, 0.0) for pid, used in cpu.items()), default=0.0)
        return replace(self, since=now, cpu=cpu, computing=most / passed >= ENGINE.computes)


@dataclass(frozen=True)
class Peer:
    """What is known of the process at the other end of a connection.

    ``inside``: it is of the cluster itself, such as a worker whose task uses a client. ``stopped``: it is
    suspended (Ctrl-Z, SIGSTOP). ``silent``: seconds since its last heartbeat; None: it need not say anything.
    ``worked``: core-seconds that it used in those; None: cannot be known from here.
    """

    inside: bool = False
    stopped: bool = False
    silent: float | None = None
    worked: float | None = None

    @property
    def counts(self) -> bool:
        """Whether it is a client of the cluster now. What is unknown is there: unknown is not gone."""
        if self.inside or self.stopped:
            return False
        if self.silent is None or self.silent < ENGINE.silent_client:
            return True
        # It computes, in code that lets no other thread of it run.
        return self.worked is not None and self.worked >= ENGINE.worked


@dataclass(frozen=True)
class Losses:
    """When workers that left are brought back: at once, but later and later while they keep leaving."""

    times: tuple[float, ...] = ()

    def lost(self, now: float) -> Losses:
        """One or several left just now."""
        return Losses((*(time for time in self.times if now - time < ENGINE.remembered), now))

    def wait(self, now: float) -> float:
        """Seconds until they may be brought back; 0: now."""
        times = [time for time in self.times if now - time < ENGINE.remembered]
        if len(times) <= ENGINE.at_once:
            return 0.0
        pause = min(ENGINE.longest_pause, 2.0 ** (len(times) - ENGINE.at_once))
        return max(0.0, times[-1] + pause - now)
