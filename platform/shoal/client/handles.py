"""Handles: a running cluster in the user's process.

Why it exists: a person works with a client or a session, not with records; and what a person opened ends
with the person's process, however that ends.

What it must not do: decide, or know how a home works inside.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, ClassVar, NoReturn, Self, TypeVar

from shoal.client import around
from shoal.client.ending import ended_error, wait_for_end, why_ended
from shoal.client.threads import in_thread
from shoal.display import card
from shoal.display.progress import Progress, line, progress
from shoal.display.report import Report, report_of
from shoal.errors import ClusterEndedError, DeadlineError, ShoalError
from shoal.homes.base import Home, dashboard_of
from shoal.machine.crash import CrashPoint, reached
from shoal.model.cluster import Cluster, Reason, State, script_end
from shoal.model.workload import Plan
from shoal.planning.asking import number_of_workers
from shoal.quota.admission import with_workers
from shoal.words import count

START_WAIT = 960.0  # s that a start is waited for: every home gives up by itself before (see test_lifecycle)
QUEUE_WAIT = 86400.0  # s in the queue
_POLL = 0.02

# Handles of this process, for the moment it forks.
_handles: weakref.WeakSet[ClusterHandle] = weakref.WeakSet()


class ClusterHandle(ABC):
    """What Dask's and Spark's handles share.

    One that owns its cluster ends it when closed or dropped. Whoever started the cluster owns it; whoever found
    it (:func:`shoal.connect`, ``name=`` of a live one) is attached, and so are copies, pickles, and what a forked
    child has of a handle: closing those leaves the cluster running.
    """

    # Packages whose errors may only say that the cluster is gone.
    _engine_errors: ClassVar[frozenset[str]] = frozenset()
    # What other libraries' clusters have under other names: name -> what to write here.
    _habits: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"shutdown": ".close()", "status": ".record.state"}
    )

    def __init__(self, home: Home, cluster: Cluster, *, owns: bool, quiet: bool = False) -> None:
        self._home = home
        self._cluster = cluster
        self._quiet = quiet
        self._closed = False
        self._closing = "closed by its user"
        self.progress = False  # whether a bar shows what is computed
        self._shown: Progress | None = None
        self._process = os.getpid()
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._leaving: weakref.finalize[Any, Any] | None = None
        if owns:
            self._own()
        _handles.add(self)

    @property
    def id(self) -> str:
        return self._cluster.id

    @property
    def name(self) -> str:
        return self._cluster.name

    @property
    def owns(self) -> bool:
        """Whether the cluster ends with this handle."""
        return self._finalizer is not None

    @property
    def plan(self) -> Plan:
        return self._cluster.plan

    @property
    def record(self) -> Cluster:
        """The record as it is now."""
        self._cluster = self._home.get(self.id)
        return self._cluster

    def wait(
        self,
        timeout: float = START_WAIT,
        shown: Progress | None = None,
        given_up: threading.Event | None = None,
    ) -> Self:
        """Until it is Ready. ClusterEndedError if it ends, DeadlineError after ``timeout`` seconds.

        ``given_up``: set by whoever does not wait for it any more (ClusterEndedError then).
        Time in the queue does not count towards ``timeout``; it has a limit of its own (24 h).
        """
        asked = begin = time.monotonic()
        self._shown = shown if shown is not None else progress(self._quiet)
        with self._shown as bar:
            while True:
                cluster = self.record
                bar.show(cluster)
                if cluster.state is State.READY:
                    reached(CrashPoint.CLIENT_READY)
                    bar.follow(self._home, self.id)
                    return self
                self._raise_if_ended(cluster)
                if given_up is not None and given_up.is_set():
                    raise ClusterEndedError(f"{cluster.name} was abandoned while starting")
                now = time.monotonic()
                if cluster.state is State.QUEUED and now - asked < QUEUE_WAIT:
                    if begin == asked and not self.owns:
                        self._home.attend(self.id)
                    begin = now
                if now - begin > timeout:
                    raise DeadlineError(
                        f"{line(cluster)} and was not Ready after {timeout:.0f} s",
                        hint=f"`shoal logs {self.name}` shows what it wrote.",
                    )
                time.sleep(_POLL if cluster.state is not State.QUEUED else 10 * _POLL)

    def scale(self, workers: int, timeout: float = 120.0, group: str = "") -> Self:
        """To this many workers: through admission when it grows (QuotaExceededError), then waits for them.

        ``group``: of a cluster with several kinds of workers, those of which (default: the first).
        WorkloadError for anything that is not a number of workers; UsageError below 1, or for an unknown group.
        """
        workers = number_of_workers(workers)
        wanted = with_workers(self._home.scale(self.id, workers, group).plan, workers, group).workers
        begin = time.monotonic()
        while (have := self.record.workers) != wanted:
            self._raise_if_ended(self._cluster)
            if time.monotonic() - begin > timeout:
                raise DeadlineError(
                    f"{self.name} has {have} of {count(wanted, 'worker')} after {timeout:.0f} s"
                )
            time.sleep(_POLL)
        return self

    def extend(self, longest: str) -> Self:
        """Extend its maximum lifetime, up to your tier's limit: to ``"6 h"`` from its admission, or by ``"+1 h"``.

        NeverFitsError where the tier gives less, UsageError where it has lived that long already (it would end at
        once), UnitError for what is not a time.
        """
        self._cluster = self._home.extend(self.id, self.record.plan.timeouts.longest(longest))
        return self

    def logs(self, lines: int = 200) -> str:
        """The last lines that the head and its children wrote."""
        return self._home.logs(self.id, lines)

    def report(self) -> Report:
        """What it took so far, or in all once it ended."""
        return report_of(self.record, self._home.history(self.id), time.time())

    def script_ended(self, code: int) -> None:
        """Note with what exit code the script ended that ran on it: its end is reported as that."""
        self._closing = script_end(code)
        self._home.note_exit(self.id, code)

    def release(self) -> None:
        """From now on the cluster keeps running without this handle, until its own timeouts."""
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None

    def close(self) -> None:
        """Disconnect; an owned cluster ends, and its report is printed. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._out_of_block()
        with contextlib.suppress(Exception):  # a client whose cluster is gone may fail in many ways
            self._disconnect()
        if self._finalizer is None:
            if self._shown is not None:
                self._shown.settle(self.record, None)
            return
        self._finalizer.detach()
        self._home.stop(self.id, Reason.STOPPED_BY_USER, self._closing)
        self._cluster = wait_for_end(self._home, self.id)
        if self._shown is not None:
            self._shown.settle(self._cluster, self.report())

    def _own(self) -> None:
        """From now on the cluster ends with this handle."""
        if self._finalizer is None:
            args = weakref.ref(self), self._home, self.id, self.name, self._process
            self._finalizer = weakref.finalize(self, _dropped, *args)

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.detach()
            self._leaving = None

    async def aclose(self) -> None:
        """As :meth:`close`, without blocking the event loop; for handles that no ``async with`` closes."""
        self._out_of_block()
        await self._leave_loop()
        await in_thread(self.close)

    def __enter__(self) -> Self:
        try:
            self._into_block()
        except BaseException as error:
            ended = self._why_gone(error)
            self.close()
            if ended is not None:
                raise ended from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out_of_block()
        ended = self._why_gone(error)
        self.close()
        if ended is not None:
            raise ended from error

    async def __aenter__(self) -> Self:
        """Connect, with nothing that blocks the event loop; ``client`` is an asynchronous one then."""
        try:
            await self._open_in_loop()
            self._into_block()
        except BaseException as error:
            await in_thread(self.close)
            if (ended := self._why_gone(error)) is not None:
                raise ended from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out_of_block()
        await self._leave_loop()
        await in_thread(self.__exit__, kind, error, trace)

    def _why_gone(self, error: BaseException | None) -> ClusterEndedError | None:
        """Why the cluster ended, where ``error`` is how its engine says that it is gone."""
        if not isinstance(error, Exception) or isinstance(error, ClusterEndedError):
            return None
        kinds = {each.__module__.partition(".")[0] for each in type(error).__mro__}
        if not (kinds & self._engine_errors or isinstance(error, OSError)):
            return None  # the user's own
        with contextlib.suppress(ShoalError):
            return why_ended(self._home, self.id)
        return None

    def __getattr__(self, name: str) -> NoReturn:
        """Only for what is not there: where it is, as far as habits tell."""
        said = f"{type(self).__name__!r} object has no attribute {name!r}"
        if not name.startswith("_") and (found := self._habits.get(name) or self._of_client(name)):
            said += f". Here it is cluster{found}"
        raise AttributeError(said, name=name, obj=self)

    @classmethod
    @abstractmethod
    def _of_client(cls, name: str) -> str:
        """How to reach what its client or session has under this name; empty where that has no such thing."""

    def __repr__(self) -> str:
        cluster = self._cluster if self._closed else self.record
        return (
            f"<{type(self).__name__} {self.name}: {cluster.state}, {count(cluster.workers, 'worker')}, "
            f"{cluster.reason} ({cluster.message})"
            f"{'' if self.owns or self._closed else '; attached: closing this leaves it running'}>"
        )

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        return _attached, (type(self), self._home, self._cluster, self._quiet)

    def __copy__(self) -> Self:
        return _attached(type(self), self._home, self._cluster, self._quiet)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def _repr_html_(self) -> str:
        cluster = self._cluster if self._closed else self.record
        history = self._home.history(self.id)
        status = None if self._closed else self._home.status(self.id)
        links = {"Dask's dashboard": url} if (url := dashboard_of(self._home, cluster)) else {}
        return card.html(cluster, history, status, time.time(), links)

    def _forked(self) -> None:
        """In a forked child: this is a copy, whose connection has threads that are not here."""
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        self._shown = None
        self._abandon()

    @abstractmethod
    def _abandon(self) -> None:
        """Leave the connection as it is: it is the parent's."""

    @abstractmethod
    def open(self) -> None:
        """Connect now instead of at the first use."""

    def _enter_block(self) -> None:  # noqa: B027 - Spark has no default session of a block
        """What is computed in this context from now on is computed by this cluster."""

    def _leave_block(self) -> None:  # noqa: B027
        """And now no more. Harmless where it was left before."""

    def _into_block(self) -> None:
        self._enter_block()
        if self._finalizer is not None:
            around.enter(self.id)

    def _out_of_block(self) -> None:
        around.leave(self.id)
        self._leave_block()

    async def _open_in_loop(self) -> None:
        await in_thread(self.open)

    async def _leave_loop(self) -> None:  # noqa: B027 - Spark has nothing there
        """Give back what belongs to the event loop."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close the connection, if there is one."""

    def raise_if_ended(self) -> None:
        """ClusterEndedError with the reason, if it has ended or is about to."""
        self._raise_if_ended(self.record)

    def _raise_if_ended(self, cluster: Cluster) -> None:
        if (error := ended_error(cluster)) is not None:
            raise error


_Handle = TypeVar("_Handle", bound=ClusterHandle)


def _attached(kind: type[_Handle], home: Home, cluster: Cluster, quiet: bool) -> _Handle:
    """A handle on the same cluster that does not own it."""
    return kind(home, cluster, owns=False, quiet=quiet)


def open_here(cluster_id: str) -> ClusterHandle | None:
    """A handle of this process on the cluster: one that owns it, if there is one."""
    found = [each for each in list(_handles) if each.id == cluster_id and not each._closed]
    return max(found, key=lambda each: each.owns, default=None)


def _in_a_forked_child() -> None:
    for handle in list(_handles):
        handle._forked()


os.register_at_fork(after_in_child=_in_a_forked_child)


def _dropped(handle: weakref.ref[Any], home: Home, cluster_id: str, name: str, process: int) -> None:
    """A handle went without close(): its cluster ends now instead of after its no-client time.

    Where this process has another handle of it, that one owns it from now on: a cell that opens it was run again.
    Only if the handle is gone: one that is still there is told that Python ends, where nobody inherits.
    """
    if os.getpid() != process:
        return  # a child that was forked past Python
    if handle() is None and (heir := open_here(cluster_id)) is not None:
        heir._own()
        return
    try:
        if why_ended(home, cluster_id) is not None:
            return  # for that reason; whoever used it knows
        home.stop(cluster_id, Reason.CLIENT_GONE, "its handle was dropped")
        what = "was ended"
    except ShoalError as error:
        what = f"could not be ended now ({error.message})"
    text = f"cluster {name!r} {what}: its handle was dropped without close()"
    # Python hides a ResourceWarning by default; whoever forgot `with` has to see it, too.
    print(
        f"shoal: {text}. Use `with shoal.dask(...) as cluster:`, or shoal.up(..., detach=True) for one that "
        "keeps running.",
        file=sys.stderr,
        flush=True,
    )
    warnings.warn(text, ResourceWarning, stacklevel=2)
