"""The handle of a Spark cluster: ``session``, and what connecting to Spark Connect takes.

Why it exists: see ``handles``; this is the part that knows Spark.

What it must not do: import Spark before a session is asked for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from shoal.client.binding import bind
from shoal.client.channel import spark_session
from shoal.client.ending import why_ended
from shoal.client.handles import ClusterHandle
from shoal.display.computing import SparkBar, shows
from shoal.errors import ForkedError, SessionLostError, ShoalError, UsageError
from shoal.homes.base import Home
from shoal.machine.environment import differences, versions, warn
from shoal.model.cluster import Cluster

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_FRESH = 1.0  # s after which a session is looked at before it is given
_GONE = "temporary views, cached frames, registered functions and settings of the old one are gone"


@dataclass
class _Link:
    """What is known of a session; apart from the handle, which has to be free to go."""

    cluster: str
    seen: float
    lost: bool = False

    def said(self) -> str:
        return f"the server of {self.cluster!r} has closed this Spark session; the cluster itself is still running"

    def lose(self) -> SessionLostError:
        self.lost = True
        hint = f"Use the handle's .session (or .sql, .table) again: it opens a new one. {_GONE.capitalize()}."
        return SessionLostError(self.said(), hint=hint, cluster=self.cluster)


class SparkCluster(ClusterHandle):
    """A Spark Connect server. ``session`` sees the shared catalog as its default one."""

    _engine_errors = frozenset({"grpc", "pyspark"})
    _habits = MappingProxyType(
        {**ClusterHandle._habits, "spark": ".session", "stop": ".close()", "getOrCreate": ".session"}
    )

    def __init__(self, home: Home, cluster: Cluster, *, owns: bool, quiet: bool = False) -> None:
        super().__init__(home, cluster, owns=owns, quiet=quiet)
        self._session: SparkSession | None = None
        self._bar: SparkBar | None = None
        self._link = _Link(cluster.name, 0.0)

    @property
    def session(self) -> SparkSession:
        """A Spark Connect session, opened at the first use, and again once it was stopped or its server lost it."""
        if self._session is not None and os.getpid() == self._process:
            self._renew_if_lost(self._session)
        if self._session is None:
            if os.getpid() != self._process:
                raise ForkedError(
                    f"the handle of {self.name!r} was made in process {self._process}, and this is its forked "
                    f"child {os.getpid()}: gRPC, which Spark Connect speaks, does not survive a fork",
                    hint="Start the child with multiprocessing.get_context('spawn') and open the cluster there: "
                    f"shoal.connect({self.name!r}).",
                )
            from shoal.client.spark_code import PYTHON, settle_python
            from shoal.client.spark_leaving import keep
            from shoal.client.spark_policy import TellingPolicy

            session = spark_session(self._home.endpoint(self.id))
            keep(session)
            self._session = session
            self._leave_when_dropped(session)
            self._link = link = _Link(self.name, time.monotonic())
            policy = TellingPolicy(partial(why_ended, self._home, self.id), link.lose)
            session.client.set_retry_policies([policy])
            try:
                there = session.version  # the first call connects: the cluster sees its client
                _show_errors(session, whole=os.environ.get("SHOAL_LOG", "").lower() == "debug")
                here = self._cluster.head.get("host") == socket.gethostname()
                python = settle_python(session, here=here, chosen=PYTHON in self.plan.conf)
            except BaseException:
                self._disconnect()  # else pyspark would hand this session to whoever asks for one
                raise
            if self.progress and (bar := shows(self.name, self._shown)) is not None:
                self._bar = SparkBar(bar)
                session.registerProgressHandler(self._bar)
            spark = differences({"pyspark": versions()["pyspark"]}, {"spark": {"pyspark": str(there)}})
            warn(spark + python)
        return self._session

    def _renew_if_lost(self, session: SparkSession) -> None:
        if session.is_stopped:  # by the user's own stop(), as most scripts end
            self._disconnect()
            return
        link = self._link
        if not link.lost and time.monotonic() - link.seen > _FRESH:
            with contextlib.suppress(SessionLostError):
                session.conf.get("spark.sql.session.timeZone")  # the version is told to closed sessions, too
            link.seen = time.monotonic()
        if link.lost:
            self._disconnect()
            print(f"shoal: {link.said()}. A new session is open: {_GONE}.", file=sys.stderr, flush=True)

    def sql(
        self, query: str, args: Mapping[str, Any] | Sequence[Any] | None = None, **arguments: Any
    ) -> DataFrame:
        """``session.sql``; with ``args``, the values of ``:name`` or ``?`` in the query.

        Raises UsageError for a parameter without a value, or with one that cannot be a literal.
        """
        return self.session.sql(query if args is None else bind(query, args), **arguments)

    def table(self, name: str) -> DataFrame:
        """``session.table``."""
        return self.session.table(name)

    def open(self) -> None:
        _ = self.session

    @classmethod
    def _of_client(cls, name: str) -> str:
        from pyspark.sql.connect.session import SparkSession

        return f".session.{name}" if hasattr(SparkSession, name) else ""

    def _leave_when_dropped(self, session: SparkSession) -> None:
        self._leaving = weakref.finalize(
            self, _left, session, partial(_why_left, "dropped", self._home, self._cluster), self._process
        )
        self._leaving.atexit = False  # all sessions are closed there

    def _abandon(self) -> None:
        self._bar = None
        self._session = None
        self._stay()

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        self._stay()
        if self._bar is not None:
            self._bar.end()
            self._bar = None
        if session is not None:
            from shoal.client.spark_leaving import leave

            leave(session, partial(_why_left, "closed", self._home, self._cluster))


def _show_errors(session: SparkSession, *, whole: bool) -> None:
    """An error of a query is told once, by its message; ``whole``: also with the server's frames, and pyspark's log."""
    if whole:
        session.conf.set("spark.sql.connect.serverStacktrace.enabled", "true")
        return
    from pyspark.logger import PySparkLogger

    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        logger = PySparkLogger.getLogger(name)
        if (
            logger.level == logging.WARNING
        ):  # as pyspark makes it; else somebody has said what they want of it
            logger.setLevel(logging.CRITICAL)


def _left(session: SparkSession, why: Callable[[], ShoalError], process: int) -> None:
    """A handle went without close()."""
    if os.getpid() == process:
        from shoal.client.spark_leaving import leave_soon

        leave_soon(session, why)


def _why_left(how: str, home: Home, cluster: Cluster) -> ShoalError:
    """What a session says that was closed, by its handle or since that went."""
    with contextlib.suppress(ShoalError):
        if (ended := why_ended(home, cluster.id)) is not None:
            return ended
    again = f"cluster = shoal.connect({cluster.name!r})."
    keep = "Keep the handle for as long as its session is used" if how == "dropped" else "Connect again"
    return UsageError(
        f"the connection to {cluster.name!r} was closed: its handle was {how}", hint=f"{keep}: {again}"
    )
