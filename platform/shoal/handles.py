"""Handles: a running cluster in the user's process.

Why it exists: a person works with a client or a session, not with records; and what a person opened ends
with the person's process, however that ends.

What it must not do: decide, or know how a home works inside.
"""

from __future__ import annotations

import contextlib
import time
import warnings
import weakref
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from shoal import card
from shoal.environment import VERSIONS, EnvironmentMismatchWarning, differences, versions
from shoal.errors import DeadlineError, InfrastructureError
from shoal.homes.base import Home
from shoal.homes.local.crash import CrashPoint, reached
from shoal.progress import Progress, line, progress
from shoal.records import Cluster, Reason, State
from shoal.report import Report, report_of
from shoal.workload import Plan

if TYPE_CHECKING:
    from distributed import Client
    from pyspark.sql import DataFrame, SparkSession

START_WAIT = 330.0  # s that a start is waited for: the head gives up by itself after 300
QUEUE_WAIT = 86400.0  # s in the queue
STOP_WAIT = 30.0
_POLL = 0.02
_COMPARE = 5.0  # s that workers get to tell their versions


class ClusterEndedError(InfrastructureError):
    """The cluster ended before it was ready, or while it was in use. ``values["reason"]`` says why."""


class ClusterHandle(ABC):
    """What Dask's and Spark's handles share. Owned ones end their cluster when closed or dropped."""

    def __init__(self, home: Home, cluster: Cluster, *, owns: bool, quiet: bool = False) -> None:
        self._home = home
        self._cluster = cluster
        self._quiet = quiet
        self._closed = False
        self._shown: Progress | None = None
        self._finalizer = weakref.finalize(self, _dropped, home, cluster.id, cluster.name) if owns else None

    @property
    def id(self) -> str:
        return self._cluster.id

    @property
    def name(self) -> str:
        return self._cluster.name

    @property
    def plan(self) -> Plan:
        return self._cluster.plan

    @property
    def record(self) -> Cluster:
        """The record as it is now."""
        self._cluster = self._home.get(self.id)
        return self._cluster

    def wait(self, timeout: float = START_WAIT, shown: Progress | None = None) -> Self:
        """Until it is Ready. ClusterEndedError if it ends, DeadlineError after ``timeout`` seconds.

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
                now = time.monotonic()
                if cluster.state is State.QUEUED and now - asked < QUEUE_WAIT:
                    begin = now
                if now - begin > timeout:
                    raise DeadlineError(
                        f"{line(cluster)} and was not Ready after {timeout:.0f} s",
                        hint=f"`shoal logs {self.name}` shows what it wrote.",
                    )
                time.sleep(_POLL if cluster.state is not State.QUEUED else 10 * _POLL)

    def scale(self, workers: int, timeout: float = 120.0) -> Self:
        """To this many workers: through admission when it grows (QuotaExceededError), then waits for them."""
        self._home.scale(self.id, workers)
        begin = time.monotonic()
        while (have := self.record.workers) != workers:
            self._raise_if_ended(self._cluster)
            if time.monotonic() - begin > timeout:
                raise DeadlineError(f"{self.name} has {have} of {workers} workers after {timeout:.0f} s")
            time.sleep(_POLL)
        return self

    def extend(self, longest: str) -> Self:
        """Let it live longer, inside what your tier gives: ``"6 h"`` from its admission on, or ``"+1 h"`` more.

        NeverFitsError where the tier gives less; UnitError for what is no time.
        """
        self._home.extend(self.id, self.record.plan.timeouts.longest(longest))
        return self

    def logs(self, lines: int = 200) -> str:
        """The last lines that the head and its children wrote."""
        return self._home.logs(self.id, lines)

    def report(self) -> Report:
        """What it took so far, or in all once it ended."""
        return report_of(self.record, self._home.history(self.id), time.time())

    def release(self) -> None:
        """From now on the cluster lives on without this handle, until its own timeouts."""
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None

    def close(self) -> None:
        """Disconnect; an owned cluster ends, and its report is printed. May be called again."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Exception):  # a client whose cluster is gone may fail in many ways
            self._disconnect()
        if self._finalizer is None:
            if self._shown is not None:
                self._shown.settle(self.record, None)
            return
        self._finalizer.detach()
        self._home.stop(self.id, Reason.STOPPED_BY_USER, "closed by its user")
        begin = time.monotonic()
        while not self.record.state.ended or self._home.remains(self.id):
            if time.monotonic() - begin > STOP_WAIT:
                raise DeadlineError(
                    f"{self.name} has not ended {STOP_WAIT:.0f} s after it was asked to",
                    hint=f"It ends by itself; `shoal ls` shows it, `shoal logs {self.name}` what it wrote.",
                )
            time.sleep(_POLL)
        if self._shown is not None:
            self._shown.settle(self._cluster, self.report())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        cluster = self._cluster if self._closed else self.record
        return (
            f"<{type(self).__name__} {self.name}: {cluster.state}, {cluster.workers} workers, "
            f"{cluster.reason} ({cluster.message})>"
        )

    def _repr_html_(self) -> str:
        cluster = self._cluster if self._closed else self.record
        history = self._home.history(self.id)
        status = None if self._closed else self._home.status(self.id)
        return card.html(cluster, history, status, time.time())

    @abstractmethod
    def open(self) -> None:
        """Connect now instead of at the first use."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close the connection, if there is one."""

    def raise_if_ended(self) -> None:
        """ClusterEndedError with the reason, if it has ended or is about to."""
        self._raise_if_ended(self.record)

    def _raise_if_ended(self, cluster: Cluster) -> None:
        if cluster.state.ended or cluster.state is State.STOPPING:
            raise ClusterEndedError(
                f"{cluster.name} ended: {cluster.reason}, {cluster.message}",
                hint=f"`shoal logs {cluster.name}` shows what it wrote.",
                reason=cluster.reason.value,
                cluster=cluster.id,
            )


class DaskCluster(ClusterHandle):
    """A Dask cluster. ``client`` is the default client of this process while it is open."""

    def __init__(self, home: Home, cluster: Cluster, *, owns: bool, quiet: bool = False) -> None:
        super().__init__(home, cluster, owns=owns, quiet=quiet)
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """A ``distributed.Client``, connected at the first use."""
        if self._client is None:
            from distributed import Client, Security
            from distributed.versions import VersionMismatchWarning

            endpoint = self._home.endpoint(self.id)
            security = Security(require_encryption=True, **endpoint.security)
            with warnings.catch_warnings():
                # _compare says the same, of more packages, and once.
                warnings.simplefilter("ignore", VersionMismatchWarning)
                self._client = Client(
                    endpoint.address, security=security, timeout="30s", name=f"shoal-{self.name}"
                )
            self._compare(self._client)
        return self._client

    @staticmethod
    def _compare(client: Client) -> None:
        """Warn where workers have other packages. Workers that do not answer are not held against it."""
        known = client.scheduler_info(n_workers=-1)["workers"]
        theirs = {address: worker.get(VERSIONS) for address, worker in known.items()}
        if not all(theirs.values()):  # workers that nobody told to say it are asked
            theirs = {}
            with contextlib.suppress(OSError, TimeoutError):
                theirs = client.sync(client._run, versions, on_error="ignore", callback_timeout=_COMPARE)
        _warn(differences(versions(), theirs))

    @property
    def dashboard(self) -> str:
        """The address of Dask's own dashboard."""
        return self._home.endpoint(self.id).dashboard

    def open(self) -> None:
        _ = self.client

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class SparkCluster(ClusterHandle):
    """A Spark Connect server. ``session`` sees the shared catalog as its default one."""

    def __init__(self, home: Home, cluster: Cluster, *, owns: bool, quiet: bool = False) -> None:
        super().__init__(home, cluster, owns=owns, quiet=quiet)
        self._session: SparkSession | None = None

    @property
    def session(self) -> SparkSession:
        """A Spark Connect session, opened at the first use."""
        if self._session is None:
            from pyspark.sql import SparkSession
            from pyspark.sql.connect.client.retries import DefaultPolicy

            endpoint = self._home.endpoint(self.id)
            url = f"{endpoint.address}/;token={endpoint.token}"
            session: Any = SparkSession.builder.remote(url).create()
            self._session = session
            # pyspark's own policy retries a dead server for ten minutes without a word.
            session.client.set_retry_policies([DefaultPolicy(max_retries=6, max_backoff=3000)])
            try:
                there = session.version  # the first call connects: the cluster sees its client
            except BaseException:
                self._disconnect()  # else pyspark would hand this session to whoever asks for one
                raise
            _warn(differences({"pyspark": versions()["pyspark"]}, {"spark": {"pyspark": str(there)}}))
        return self._session

    def sql(self, query: str, **arguments: Any) -> DataFrame:
        """``session.sql``."""
        return self.session.sql(query, **arguments)

    def table(self, name: str) -> DataFrame:
        """``session.table``."""
        return self.session.table(name)

    def open(self) -> None:
        _ = self.session

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with warnings.catch_warnings():
                # It warns of a server that is gone, and where warnings are errors that would leave a dead
                # session to be this process's default one.
                warnings.simplefilter("ignore")
                session.client.set_retry_policies([])
                session.stop()


def _warn(different: list[str]) -> None:
    if different:
        message = f"client and workers differ: {'; '.join(different)}. Results may fail or differ."
        warnings.warn(message, EnvironmentMismatchWarning, stacklevel=4)


def _dropped(home: Home, cluster_id: str, name: str) -> None:
    """A handle went without close(): its cluster ends now instead of after its no-client time."""
    warnings.warn(
        f"the handle of cluster {name!r} was dropped without close(); its cluster ends. Use `with`.",
        ResourceWarning,
        stacklevel=2,
    )
    home.stop(cluster_id, Reason.CLIENT_GONE, "its handle was dropped")
