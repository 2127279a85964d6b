"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it was starting is taken back, nothing is left running.

Why it exists: a CI job that is cancelled, a service that is stopped and a terminal that is closed send these, and by
default they end Python on the spot, with its cluster and its script left behind.

What it must not do: change how other programs take signals, or take back a signal that was ignored (nohup).
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_TAKEN = (signal.SIGTERM, signal.SIGHUP)
_heard: list[signal.Signals] = []  # the first that came; empty: none


@contextlib.contextmanager
def taken() -> Iterator[None]:
    """In the block the two signals raise KeyboardInterrupt, where nothing else was set up for them."""
    _heard.clear()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in _TAKEN if signal.getsignal(each) is signal.SIG_DFL}
    for each in before:
        signal.signal(each, _hear)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def heard() -> signal.Signals | None:
    """The signal that ends this command; None: none did, or Ctrl-C."""
    return _heard[0] if _heard else None


def interrupted_code() -> int:
    """What an interrupted command exits with: 128 and the signal's number, as shells count."""
    return 128 + (heard() or signal.SIGINT).value


def say_so() -> None:
    """One word about it, as far as there is still a terminal."""
    by = heard()
    with contextlib.suppress(OSError, ValueError):
        print("\nInterrupted." if by is None else f"\nEnded by {by.name}.", file=sys.stderr, flush=True)


def _hear(number: int, _frame: FrameType | None) -> None:
    if _heard:
        return  # it is ending already
    _heard.append(signal.Signals(number))
    if number == signal.SIGHUP:
        from shoal.cli.console import stop_writing

        if sys.stderr.isatty() or sys.stdout.isatty():
            stop_writing()  # that terminal is gone, and what is left to do must not fail for want of it
    raise KeyboardInterrupt
