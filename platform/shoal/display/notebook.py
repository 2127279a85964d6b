"""Shows a cluster in a notebook: one card that is updated in place and keeps its final state when saved.

Why it exists: widgets and spinners leave an empty block in a saved notebook; ``display(display_id=True)``
with plain HTML keeps what was there at the end.

What it must not do: be imported outside of a kernel, or keep a handle alive.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from shoal.display import card
from shoal.display.computing import SLOW, PartDone
from shoal.display.report import Report
from shoal.homes.base import Home, dashboard_of
from shoal.model.cluster import Cluster
from shoal.model.status import Event, HeadStatus

_EVERY = 2.0  # s between looks while the cluster is in use
_LEAST = 0.25  # s between two updates while it starts or computes


def in_kernel() -> bool:
    """Whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


class Card:
    """A :class:`shoal.display.progress.Progress` that draws a card."""

    def __init__(self) -> None:
        self._display: Any = None
        self._history: list[Event] = []
        self._shown = 0.0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._last: tuple[Cluster, HeadStatus | None, Mapping[str, str]] | None = None
        self._parts: Sequence[PartDone] = ()
        self._begun = 0.0

    def computing(self) -> _Computing:
        """What shows in this card how far the work is."""
        return _Computing(self)

    def work(self, parts: Sequence[PartDone]) -> None:
        """What is computed now; nothing: nothing is."""
        if not parts and not self._parts:
            return
        now = time.monotonic()
        if not self._parts:
            self._begun = now
        self._parts = parts
        if parts and (now - self._begun < SLOW or now - self._shown < _LEAST):
            return
        with self._lock:
            last = None if self._ended.is_set() else self._last
        if last is not None:
            self._draw_in_use(*last)

    def show(self, cluster: Cluster) -> None:
        changed = self._note(cluster)
        if changed or time.monotonic() - self._shown > _LEAST:
            self._draw(card.html(cluster, self._history, None, time.time()))

    def follow(self, home: Home, cluster_id: str) -> None:
        """From now on the card shows what the cluster does, until :meth:`settle`."""
        threading.Thread(target=self._look, args=(home, cluster_id), name="shoal-card", daemon=True).start()

    def settle(self, cluster: Cluster, report: Report | None) -> None:
        """The last state, which stays."""
        self._ended.set()
        self._note(cluster)
        with self._lock:
            self._last, self._parts = None, ()
        self._draw(card.html(cluster, self._history, None, time.time(), report=report), last=True)

    def __enter__(self) -> Card:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _look(self, home: Home, cluster_id: str) -> None:
        failures, url = 0, ""
        while not self._ended.wait(_EVERY) and failures < 5:
            try:
                cluster = home.get(cluster_id)
                url = url or dashboard_of(home, cluster)
                links = {"Dask's dashboard": url} if url else {}
                status = home.status(cluster_id)
            except Exception:  # a card that cannot be drawn must not disturb the work it shows
                failures += 1
                continue
            with self._lock:
                over = self._ended.is_set()
            if over or cluster.state.ended:
                break
            self._note(cluster)
            self._draw_in_use(cluster, status, links)

    def _draw_in_use(self, cluster: Cluster, status: HeadStatus | None, links: Mapping[str, str]) -> None:
        self._last = cluster, status, links
        parts, seconds = self._parts, time.monotonic() - self._begun
        work = (parts, seconds) if parts and seconds >= SLOW else None
        self._draw(card.html(cluster, self._history, status, time.time(), links, work=work))

    def _note(self, cluster: Cluster) -> bool:
        now = Event(cluster.state, cluster.reason, cluster.message, cluster.since)
        if self._history and (self._history[-1].state, self._history[-1].message) == (now.state, now.message):
            return False
        self._history.append(now)
        return True

    def _draw(self, html: str, *, last: bool = False) -> None:
        from IPython.display import HTML, display

        with self._lock:
            if self._ended.is_set() and not last:
                return  # the last state stays
            self._shown = time.monotonic()
            if self._display is None:
                self._display = display(HTML(html), display_id=True)  # type: ignore[no-untyped-call]
            elif self._display is not None:
                self._display.update(HTML(html))  # type: ignore[no-untyped-call]


class _Computing:
    """Draws how far the work is into a card, which it does not keep alive."""

    def __init__(self, shown: Card) -> None:
        self._card = weakref.ref(shown)

    def show(self, parts: Sequence[PartDone]) -> None:
        if (shown := self._card()) is not None:
            shown.work(parts)

    def clear(self) -> None:
        self.show(())

    def pause(self) -> None:
        """What is printed goes below the card."""
