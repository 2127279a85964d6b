"""Why a cluster ends, and in which words: one table for every home, and for the head that asks for its own end.

Why it exists: a head notices by itself that nothing is computed, that nobody is connected, that its time is over or
that its engine is dead. It tells what it sees (:class:`Pulse`); what follows from it is decided here, the same
whether the head's own process asks or a governor that reads its report.

What it must not do: read a clock, or import what decides on quota (every head has this from its start).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from shoal.model.cluster import FAILURES, Reason, State
from shoal.model.status import NextEnd
from shoal.model.workload import Timeouts
from shoal.units import Seconds
from shoal.words import count


class Sentence(StrEnum):
    """Every sentence in which a cluster's end is told, besides what a person or an engine says itself."""

    DEADLINE = "it reached its maximum lifetime ({limit})"
    OVERDUE = "it reached its maximum lifetime of {limit}, and its head did not end it"
    ALONE = "no client was connected for {limit}"
    UNATTENDED = "no client was waiting for it for {limit}"
    LEFT = "no client was waiting for it for {limit}; the last one was {client}"
    IDLE = "nothing was computed for {limit}"
    CRASHED = "the head process{pid} exited unexpectedly; `shoal logs {name}`"
    SILENT = "no heartbeat from the head for {limit}"
    HEADLESS = "no head appeared within {limit}"
    COPY = "this ledger is a copy: the head{pid} belongs to {owner}, and is left alone"
    HUNG = "its head did not end within {limit} and was killed"
    SIGNALLED = "its head was terminated by a signal"
    CUT_OFF = "it could not reach the ledger for {limit}: {error}"
    FORGOTTEN = "its record is gone from the ledger"
    OVER = "its record says that it ended"


class End(NamedTuple):
    """Why a cluster ends: for programs, and for people."""

    reason: Reason
    message: str

    @property
    def state(self) -> State:
        """Failed where infrastructure broke, else Stopped."""
        return State.FAILED if self.reason in FAILURES else State.STOPPED


class Exit(NamedTuple):
    """How a script ended: with what exit code, and what ended it, where it did not end by itself."""

    code: int
    said: str = ""


class Phase(NamedTuple):
    """How far a head has come: while nothing takes it, while it starts, and once it serves."""

    state: State
    reason: Reason
    message: str


def serving(workers: int) -> Phase:
    """It serves, with so many workers."""
    return Phase(State.READY, Reason.SERVING, f"{count(workers, 'worker')} ready")


# What a head may say of itself, by the state that it says it is in; and what its home says while it takes none.
PHASES = {
    State.ADMITTED: frozenset({Reason.WAITING_FOR_QUOTA, Reason.PLACE_REFUSED}),
    State.STARTING: frozenset({Reason.HEAD_STARTING, Reason.WORKERS_STARTING}),
    State.READY: frozenset({Reason.SERVING, Reason.WORKER_RESTARTED}),
}


@dataclass(frozen=True)
class Pulse:
    """What a head sees of its own cluster, in seconds by a clock that does not jump.

    ``lived``: since its head began. ``alone``: for so long nobody has been connected, or has waited for one that is in
    the queue; ``idle``: for so long nothing was computed; None: not so now, or not known (unknown is not idle).
    ``said``: why it has to end in any case, in words of the engine, of its client or of its own start. ``phase``: how
    far it has come, where that is new. ``last``: who waited last for one in the queue, where that is known.
    """

    lived: float = 0.0
    alone: float | None = None
    idle: float | None = None
    said: End | None = None
    phase: Phase | None = None
    last: str = ""


def due(pulse: Pulse, timeouts: Timeouts) -> End | None:
    """Why a cluster with this pulse ends now; None: it goes on."""
    if pulse.said is not None:
        return pulse.said
    if pulse.lived >= timeouts.max:
        return End(Reason.DEADLINE_REACHED, Sentence.DEADLINE.format(limit=timeouts.max))
    if pulse.alone is not None and pulse.alone >= timeouts.no_client:
        return End(Reason.CLIENT_GONE, Sentence.ALONE.format(limit=timeouts.no_client))
    if pulse.idle is not None and pulse.idle >= timeouts.idle:
        return End(Reason.IDLE, Sentence.IDLE.format(limit=timeouts.idle))
    return None


def unattended(pulse: Pulse, timeouts: Timeouts) -> End | None:
    """Why a request that waits in the queue ends now: whoever asked for it is gone. A detached one waits with nobody
    looking."""
    if pulse.alone is None or timeouts.no_client >= timeouts.max or pulse.alone < timeouts.no_client:
        return None
    sentence = Sentence.LEFT if pulse.last else Sentence.UNATTENDED
    return End(Reason.CLIENT_GONE, sentence.format(limit=timeouts.no_client, client=pulse.last))


def ahead(pulse: Pulse, timeouts: Timeouts) -> NextEnd:
    """Which limit comes first if nothing changes, and in how many seconds."""
    left = {Reason.DEADLINE_REACHED: timeouts.max - pulse.lived}
    if pulse.alone is not None:
        left[Reason.CLIENT_GONE] = timeouts.no_client - pulse.alone
    if pulse.idle is not None:
        left[Reason.IDLE] = timeouts.idle - pulse.idle
    first = min(left, key=lambda reason: left[reason])
    return NextEnd(first, Seconds(max(0.0, left[first])))


def limit(reason: Reason, timeouts: Timeouts) -> Seconds:
    """The time after which a cluster ends for this reason."""
    of = {Reason.IDLE: timeouts.idle, Reason.CLIENT_GONE: timeouts.no_client}
    return of.get(reason, timeouts.max)
