"""The moments at which the local home's client and head may be killed or interrupted, by name.

Why it exists: "nothing is left behind" holds only for the moments that were tried. Each has a name here, a
test that kills there with ``-9`` and one that presses Ctrl-C there; a name without a case fails the tests.

What it must not do: anything, unless ``SHOAL_CRASH_AT`` names the point.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum

AT = "SHOAL_CRASH_AT"
WITH = (
    "SHOAL_CRASH_WITH"  # the signal, without its SIG; STOP: the process stays at the point until it may go on
)


class CrashPoint(StrEnum):
    """In the order in which a cluster passes them."""

    CLIENT_AHEAD = "client-ahead"  # a head's process imports; nothing is decided
    HEAD_AHEAD = "head-ahead"  # it dies there: another one is started after the decision
    CLIENT_IN_DECISION = "client-in-decision"  # the record is written, the transaction not committed
    CLIENT_AFTER_DECISION = "client-after-decision"  # committed; no head was started
    CLIENT_AFTER_LAUNCH = "client-after-launch"  # the head runs; nobody has noted where
    HEAD_BORN = "head-born"  # before it noted where it is
    HEAD_RECORDED = "head-recorded"  # before it wrote its token
    HEAD_STARTING = "head-starting"  # in Starting, no engine yet
    HEAD_ENGINE_UP = "head-engine-up"  # workers run; nobody can connect yet
    HEAD_BEFORE_READY = "head-before-ready"  # clients could connect; the record says Starting
    HEAD_SERVING = "head-serving"
    CLIENT_READY = "client-ready"  # it knows that the cluster is Ready, and has not connected
    CLIENT_CLOSING = "client-closing"  # Stopping is noted; the head was not told
    HEAD_STOPPING = "head-stopping"  # its end is noted; workers still run
    HEAD_BEFORE_END = "head-before-end"  # the engine is stopped; the record says Stopping


def reached(point: CrashPoint) -> None:
    """Say that this process has come to ``point``; it sends itself the signal when it was told to, once."""
    if os.environ.get(AT) == point.value:
        number = signal.Signals[f"SIG{os.environ.get(WITH, 'KILL')}"]
        del os.environ[AT]
        os.kill(os.getpid(), number)
