"""One bar while work is computed, for both engines: which part, how much of it is done, since when.

Why it exists: between Ready and the last line a person would look at nothing, sometimes for an hour.

What it must not do: be shown where nobody looks (pipes, ``progress=False``, ``SHOAL_PROGRESS=0``), write to
standard output, disturb the work, or keep a client alive. In a notebook the cluster's card shows it.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TextIO

from shoal.engines.dask.tasks import TASKS
from shoal.units import Seconds

_EVERY = 0.5  # s between looks
SLOW = 1.0  # s of work before anything is shown
_FAILURES = 3  # looks in a row that may fail before it is given up: an older head does not tell
_SHOWN = 4  # parts that are named

PartDone = tuple[str, int, int]  # what, how many are done, how many there are


def wanted(progress: bool = True) -> bool:
    """Whether somebody looks, and has not said that nothing be shown."""
    if not progress or os.environ.get("SHOAL_PROGRESS", "1") in ("0", "false", "no"):
        return False
    return sys.stderr.isatty() or _in_kernel()


def _in_kernel() -> bool:
    if "IPython" not in sys.modules:
        return False
    from shoal.display.notebook import in_kernel

    return in_kernel()


class Shows(Protocol):
    """What is told, from any thread, how far the work is."""

    def show(self, parts: Sequence[PartDone]) -> None:
        """Something is computed, and consists of these."""
        ...

    def clear(self) -> None:
        """Nothing is computed any more."""
        ...

    def pause(self) -> None:
        """The user's code goes on, and may print: what is drawn makes room until the next :meth:`show`."""
        ...


def shows(name: str, shown: object) -> Shows | None:
    """Where it is shown: in the card that ``shown`` is, else on the terminal; None where there is neither."""
    if (card := getattr(shown, "computing", None)) is not None:
        found: Shows = card()
        return found
    return Bar(name) if sys.stderr.isatty() else None


def counted(parts: Sequence[PartDone]) -> tuple[int, int]:
    """How many tasks are done, and how many there are."""
    return sum(part[1] for part in parts), sum(part[2] for part in parts)


def most_left(parts: Sequence[PartDone]) -> str:
    """Those with most left to do: ``"join 0/9, sum 1/2"``."""
    left = sorted((part for part in parts if part[1] < part[2]), key=lambda part: part[1] - part[2])
    return ", ".join(f"{what} {ready}/{of}" for what, ready, of in left[:_SHOWN])


def said(name: str, parts: Sequence[PartDone], seconds: float, width: int) -> str:
    """The bar as a line of at most ``width`` columns: all parts together, then those with most left to do.

    >>> said("etl", [("sum", 3, 4), ("read", 4, 4)], 61, 80)
    'etl [#################...] 7 of 8 tasks, 1 min 1 s; sum 3/4'
    """
    done, total = counted(parts)
    full = 20 * done // total if total else 0
    bar = "#" * full + "." * (20 - full)
    which = most_left(parts)
    tasks = "task" if total == 1 else "tasks"
    line = f"{name} [{bar}] {done:,} of {total:,} {tasks}, {Seconds(int(seconds))}"
    return f"{line}; {which}"[:width] if which else line[:width]


class Bar:
    """The line on a terminal, drawn over itself."""

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        self._name, self._stream = name, stream or sys.stderr
        self._begin: float | None = None
        self._drawn = False

    def show(self, parts: Sequence[PartDone]) -> None:
        """Draw; nothing before the work has taken a moment."""
        now = time.monotonic()
        if self._begin is None:
            self._begin = now
        if now - self._begin >= SLOW:
            width = shutil.get_terminal_size().columns - 1
            self._put(f"\r\x1b[2K{said(self._name, parts, now - self._begin, width)}\r")
            self._drawn = True

    def clear(self) -> None:
        """Nothing is computed any more."""
        self.pause()
        self._begin = None

    def pause(self) -> None:
        """The user's code may print now."""
        if self._drawn:
            self._put("\r\x1b[2K")
        self._drawn = False

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone: the work goes on
            self._begin = None


class DaskBar:
    """Watches a client's work from a thread of its own, until :meth:`end`."""

    def __init__(self, client: Any, bar: Shows) -> None:
        self._client = weakref.ref(client)
        self._bar, self._over = bar, threading.Event()
        self._known: dict[str, None] = {}
        self._lock, self._pauses = threading.Lock(), 0
        self._thread = threading.Thread(target=self._watch, name="shoal-progress", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Nothing is shown any more."""
        self._over.set()

    def pause(self) -> None:
        """A call of the user's to the client has ended."""
        if threading.current_thread() is not self._thread:
            with self._lock:
                self._pauses += 1
                self._bar.pause()

    def _watch(self) -> None:
        failures = 0
        while not self._over.wait(_EVERY) and failures < _FAILURES:
            client = self._client()
            if client is None or client.status == "closed":
                break
            pauses = self._pauses
            try:
                parts = self._look(client)
                failures = 0
            except Exception:  # a bar that cannot be drawn must not disturb the work it shows
                failures, parts = failures + 1, []
            del client
            with self._lock:
                if not parts or self._over.is_set():
                    self._bar.clear()
                elif pauses == self._pauses:  # else the user's code has just got a result, and may print
                    self._bar.show(parts)
        self._bar.clear()

    def _look(self, client: Any) -> list[PartDone]:
        """What the work consists of; nothing where the client waits for nothing."""
        if not any(state.status == "pending" for state in list(client.futures.values())):
            self._known.clear()
            return []
        groups = client.sync(_ask, client, list(self._known), callback_timeout=2 * _EVERY + 1)
        self._known.update(dict.fromkeys(group[0] for group in groups))
        if not any(group[4] for group in groups):
            return []
        parts: dict[str, list[int]] = {}
        for _, what, done, total, _ in groups:
            known = parts.setdefault(what, [0, 0])
            known[0] += done
            known[1] += total
        return [(what, done, total) for what, (done, total) in parts.items()]


async def _ask(client: Any, known: list[str]) -> Any:
    return await getattr(client.scheduler, TASKS)(known=known)


class SparkBar:
    """A progress handler of Spark Connect."""

    def __init__(self, bar: Shows) -> None:
        self._bar, self._lock = bar, threading.Lock()
        self._running: dict[str, list[PartDone]] = {}

    def __call__(
        self, stages: Iterable[Any] | None, inflight_tasks: int, operation_id: str | None, done: bool
    ) -> None:
        """What Spark tells while it runs a query."""
        with self._lock:
            if done:
                self._running.pop(operation_id or "", None)
            else:
                self._running[operation_id or ""] = [
                    (f"stage {stage.stage_id}", stage.num_completed_tasks, stage.num_tasks)
                    for stage in stages or ()
                    if stage.num_tasks
                ]
            parts = [part for each in self._running.values() for part in each]
            if parts:
                self._bar.show(parts)
            else:
                self._bar.clear()

    def end(self) -> None:
        """Nothing is shown any more."""
        with self._lock:
            self._running.clear()
            self._bar.clear()
