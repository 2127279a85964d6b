"""The handle of a Spark cluster: ``session``, and what connecting to Spark Connect takes.

Why it exists: see ``handles``; this is the part that knows Spark.

What it must not do: import Spark before a session is asked for.
"""

from __future__ import annotations

import os
import socket
import warnings
from typing import TYPE_CHECKING, Any

from shoal.channel import spark_session
from shoal.computing import SparkBar
from shoal.environment import differences, versions, warn
from shoal.errors import ForkedError
from shoal.handles import ClusterHandle
from shoal.homes.base import Home
from shoal.records import Cluster

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Sessions of the parent process, in a forked child: nothing may finalize them there.
_abandoned: list[SparkSession] = []


class SparkCluster(ClusterHandle):
    """A Spark Connect server. ``session`` sees the shared catalog as its default one."""

    def __init__(self, home: Home, cluster: Cluster, *, owns: bool, quiet: bool = False) -> None:
        super().__init__(home, cluster, owns=owns, quiet=quiet)
        self._session: SparkSession | None = None
        self._bar: SparkBar | None = None

    @property
    def session(self) -> SparkSession:
        """A Spark Connect session, opened at the first use."""
        if self._session is None:
            if os.getpid() != self._process:
                raise ForkedError(
                    f"the handle of {self.name!r} was made in process {self._process}, and this is its forked "
                    f"child {os.getpid()}: gRPC, which Spark Connect speaks, does not survive a fork",
                    hint="Start the child with multiprocessing.get_context('spawn') and open the cluster there: "
                    f"shoal.connect({self.name!r}).",
                )
            from pyspark.sql.connect.client.retries import DefaultPolicy

            from shoal.spark_code import PYTHON, settle_python

            session = spark_session(self._home.endpoint(self.id))
            self._session = session
            # pyspark's own policy retries a dead server for ten minutes without a word.
            session.client.set_retry_policies([DefaultPolicy(max_retries=6, max_backoff=3000)])
            try:
                there = session.version  # the first call connects: the cluster sees its client
                here = self._cluster.head.get("host") == socket.gethostname()
                python = settle_python(session, here=here, chosen=PYTHON in self.plan.conf)
            except BaseException:
                self._disconnect()  # else pyspark would hand this session to whoever asks for one
                raise
            if self.progress:
                self._bar = SparkBar(self.name)
                session.registerProgressHandler(self._bar)
            spark = differences({"pyspark": versions()["pyspark"]}, {"spark": {"pyspark": str(there)}})
            warn(spark + python)
        return self._session

    def sql(self, query: str, **arguments: Any) -> DataFrame:
        """``session.sql``."""
        return self.session.sql(query, **arguments)

    def table(self, name: str) -> DataFrame:
        """``session.table``."""
        return self.session.table(name)

    def open(self) -> None:
        _ = self.session

    def _abandon(self) -> None:
        if self._session is not None:
            _abandoned.append(self._session)
            self._session = None

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if self._bar is not None:
            self._bar.end()
            self._bar = None
        if session is not None:
            with warnings.catch_warnings():
                # It warns of a server that is gone, and where warnings are errors that would leave a dead
                # session to be this process's default one.
                warnings.simplefilter("ignore")
                session.client.set_retry_policies([])
                session.stop()
