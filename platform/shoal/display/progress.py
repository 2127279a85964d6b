"""Tells a person what a cluster waits for, at every moment.

Why it exists: silence is the commonest complaint about cluster tools. Every wait shows which phase it is
in, since when, and why.

What it must not do: write to standard output, which belongs to the user's data.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from shoal.display.following import Follower, speaker
from shoal.display.forecast import starts
from shoal.model.cluster import Cluster
from shoal.units import Seconds

if TYPE_CHECKING:
    from shoal.display.report import Report
    from shoal.homes.base import Home

STILL = 10.0  # s after which a line says that something still goes on, where there is no spinner


class Progress(Protocol):
    """Is shown every record while somebody waits."""

    def show(self, cluster: Cluster) -> None: ...

    def follow(self, home: Home, cluster_id: str) -> None:
        """It is Ready: what shows a cluster in use goes on by itself from here."""
        ...

    def settle(self, cluster: Cluster, report: Report | None) -> None:
        """It ended, or (without a report) this process left it."""
        ...

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def line(cluster: Cluster) -> str:
    """One line: name, state, what it waits for, and until when at the latest where that is known."""
    ahead = starts(cluster, time.time())
    return f"{cluster.name}: {cluster.state} ({cluster.message}{'; ' if ahead else ''}{ahead})"


class _Quiet:
    """What shows nothing while a cluster is in use, but says when it is about to end."""

    _follower: Follower | None = None

    def follow(self, home: Home, cluster_id: str) -> None:
        self._follower = Follower(home, cluster_id, speaker() or _to_standard_error)

    def settle(self, cluster: Cluster, report: Report | None) -> None:
        if self._follower is not None:
            self._follower.end()
        if report is not None:
            print(report.line(), file=sys.stderr)


def _to_standard_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Silent(_Quiet):
    """Shows nothing; who asked for quiet hears of an end only where somebody said where (a flow's log)."""

    def show(self, cluster: Cluster) -> None:
        pass

    def follow(self, home: Home, cluster_id: str) -> None:
        if speaker() is not None:
            super().follow(home, cluster_id)

    def settle(self, cluster: Cluster, report: Report | None) -> None:
        super().settle(cluster, None)

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Lines(_Quiet):
    """One line on standard error per change of state or reason, and every 10 s while nothing changes.

    Each with the seconds since the beginning.
    """

    def __init__(self) -> None:
        self._begin = self._shown = time.monotonic()
        self._last = ""

    def show(self, cluster: Cluster) -> None:
        now, at = line(cluster), time.monotonic()
        if now != self._last or at - self._shown > STILL:
            self._last, self._shown = now, at
            print(f"[{at - self._begin:5.1f} s] {now}", file=sys.stderr, flush=True)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Spinner(_Quiet):
    """A line that moves, for a terminal; finished phases stay above it with how long they took."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.markup import escape

        self._plain = escape  # messages may hold brackets
        self._console = Console(stderr=True)
        self._status = self._console.status("")
        self._last: tuple[str, float] | None = None

    def show(self, cluster: Cluster) -> None:
        now = line(cluster)
        if self._last is None or self._last[0] != now:
            self._finish()
            self._last = (now, time.monotonic())
        seconds = Seconds(int(time.monotonic() - self._last[1]))
        self._status.update(f"{self._plain(now)} [dim]{seconds}[/dim]")

    def _finish(self) -> None:
        if self._last is not None:
            took = Seconds(time.monotonic() - self._last[1])
            self._console.print(
                f"[green]✓[/green] {self._plain(self._last[0])} [dim]{took}[/dim]", highlight=False
            )

    def __enter__(self) -> Spinner:
        self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        self._status.stop()


def progress(quiet: bool = False) -> Progress:
    """What fits where this runs: a card in a notebook, a spinner on a terminal, else lines; none if quiet."""
    if quiet:
        return Silent()
    if "IPython" in sys.modules:
        from shoal.display.notebook import Card, in_kernel

        if in_kernel():
            return Card()
    return Spinner() if sys.stderr.isatty() else Lines()


@contextmanager
def doing(what: str, *, quiet: bool = False, still: float = STILL) -> Iterator[None]:
    """Says what the block waits for: when it begins, every ``still`` seconds, and how long it took.

    On standard error: a spinner on a terminal, lines elsewhere, nothing when quiet.
    """
    if quiet:
        yield
        return
    begin = time.monotonic()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.markup import escape

        console = Console(stderr=True)
        with console.status(escape(what)):
            yield
        took = Seconds(time.monotonic() - begin)
        console.print(f"[green]✓[/green] {escape(what)} [dim]{took}[/dim]", highlight=False)
        return
    print(f"{what} ...", file=sys.stderr, flush=True)
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(still):
            print(f"{what} ... {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)

    watcher = threading.Thread(target=repeat, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    print(f"{what}: done in {Seconds(time.monotonic() - begin)}", file=sys.stderr, flush=True)
