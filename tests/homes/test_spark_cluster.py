"""A Spark Connect cluster of home ``local``: the same promises as Dask's, with a JVM under them."""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import shoal
from shoal.client.clusters import open_home, open_project
from shoal.errors import UsageError
from shoal.homes.local import endpoints
from shoal.machine import paths
from shoal.machine.java import JavaError
from shoal.model.cluster import Reason, State
from shoal.model.endpoint import Endpoint
from shoal.tables.errors import NotSupportedError

Marked = Callable[[], dict[int, str]]
Eventually = Callable[..., Any]


def of(marked: Marked, cluster_id: str) -> set[int]:
    return {pid for pid, cluster in marked().items() if cluster == cluster_id}


def assert_collected_without_waiting(session: Any) -> None:
    """A closed session goes while calls of another one are under way; pyspark's would wait for them, and they for
    the thread that collects."""
    from pyspark.sql.connect.client.reattach import ExecutePlanResponseReattachableIterator as Calls

    under_way = threading.Event()
    Calls._get_or_create_release_thread_pool().submit(under_way.wait)
    collecting = threading.Thread(target=type(session).__del__, args=(session,), daemon=True)
    collecting.start()
    collecting.join(5)
    waits = collecting.is_alive()
    under_way.set()
    assert not waits


@pytest.mark.spark
@pytest.mark.slow
def test_a_session_computes_wants_its_token_and_dies_with_its_head(
    project: Path, marked: Marked, eventually: Eventually
) -> None:
    """One server for all of it: a start costs some ten seconds."""
    handle = shoal.up("small", engine="spark", workers=2, project=project, quiet=True, detach=True)
    with shoal.connect(handle.name, project=project) as cluster:
        assert isinstance(cluster, shoal.SparkCluster)
        assert cluster.sql("select sum(id) as s from range(10)").collect()[0].s == 45
        values = [
            -(2**62),
            1.5,
            Decimal("-1.50"),
            "it's\\n",
            b"\x00\xff",
            dt.date(2026, 11, 30),
            ["a", None],
            None,
        ]
        assert list(cluster.sql(f"select {', '.join('?' * len(values))}", args=values).collect()[0]) == values
        cluster.sql("create namespace if not exists shoal.nyc")
        cluster.sql("create table shoal.nyc.t (a bigint) using iceberg")
        cluster.sql("insert into shoal.nyc.t values (1), (2)")
        assert cluster.table("nyc.t").count() == 2, "the shared catalog is the session's own"
        assert shoal.catalog().load_table("nyc.t").scan().to_arrow().num_rows == 2
        assert_a_view_is_told_as_one(cluster)
        assert_an_error_in_sql_is_told_in_one_message(cluster.session)
        status = eventually(
            lambda: (s := handle._home.status(handle.id)) and s.clients >= 1 and s, 10, "a client is seen"
        )
        assert status.peak_memory > 100e6
        session = cluster.session
    assert_collected_without_waiting(session)
    eventually(lambda: handle._home.status(handle.id).clients == 0, 10, "the client is seen to leave")
    assert_a_dropped_handle_gives_its_session_back(handle.name, project, eventually)
    assert_a_script_that_closes_nothing_gives_its_session_back(handle.name, project)
    assert_a_builder_gives_the_open_session(handle.name, project)
    assert_ones_own_local_session_goes_on(handle.name, project)
    eventually(lambda: handle._home.status(handle.id).clients == 0, 10, "nobody is there any more")
    endpoint = endpoints.read(paths.run_folder(handle.id))
    assert endpoint is not None
    assert_refused_without_token(endpoint)
    java = [pid for pid in of(marked, handle.id) if Path(f"/proc/{pid}/exe").resolve().name == "java"]
    assert len(java) == 1
    assert_closed_soon_where_nobody_answers(handle.name, project, java[0])
    temporary = (paths.run_folder(handle.id) / "tmp").readlink()
    assert list(temporary.iterdir()), "the JVM's libraries, what was uploaded"
    os.kill(handle.record.head["pid"], signal.SIGKILL)
    eventually(lambda: not of(marked, handle.id), 5, "the JVM is gone with nobody calling")
    assert temporary.exists(), "nobody has looked"
    assert (handle.record.state, handle.record.reason) == (State.FAILED, Reason.HEAD_CRASHED)
    assert not temporary.exists(), "who finds the head gone removes what it kept"
    assert not (paths.run_folder(handle.id) / "tmp").is_symlink()
    handle.close()


def assert_a_view_is_told_as_one(cluster: shoal.SparkCluster) -> None:
    cluster.sql("create view shoal.nyc.v as select a + 1 as b from shoal.nyc.t")
    assert "nyc.v" not in shoal.list_tables()
    for use in (shoal.read_table, lambda name: shoal.write_table(pa.table({"b": [1]}), name)):
        with pytest.raises(NotSupportedError, match=r"nyc\.v is a view(?s:.*)spark\.table\('nyc\.v'\)"):
            use("nyc.v")
    assert cluster.table("nyc.v").count() == 2, "as the hint says"


def assert_an_error_in_sql_is_told_in_one_message(session: Any) -> None:
    """Where it is wrong and what is, without frames of the server, and nothing beside it."""
    from pyspark.logger import PySparkLogger

    assert not PySparkLogger.getLogger("SQLQueryContextLogger").isEnabledFor(logging.ERROR)
    for wrong, place in (("selct 1", "line 1, pos 0"), ("select nothing from nyc.t", "line 1 pos 7")):
        with pytest.raises(Exception, match=place) as caught:
            session.sql(wrong).collect()
        assert "JVM" not in str(caught.value)
        assert "at org." not in str(caught.value)


def is_released(endpoint: Endpoint, session_id: str) -> bool:
    """Whether the server had a session of this id and has released it: it takes no other one of that id then."""
    from shoal.client.channel import spark_session

    session = spark_session(endpoint)
    session.client.set_retry_policies([])
    own, session.client._session_id = session.client._session_id, session_id
    said = ""
    try:
        session.conf.get("spark.sql.session.timeZone")
    except Exception as error:
        said = str(error)
    session.client._session_id = own
    session.stop()
    assert not said or "SESSION_CLOSED" in said, said
    return bool(said)


def assert_a_dropped_handle_gives_its_session_back(name: str, project: Path, eventually: Eventually) -> None:
    """A cell that connects and is run again: the old handle is collected, wherever that happens to be."""
    from pyspark.sql import SparkSession

    first, second = (shoal.connect(name, project=project) for _ in range(2))
    assert isinstance(first, shoal.SparkCluster)
    assert isinstance(second, shoal.SparkCluster)
    endpoint = first._home.endpoint(first.id)
    session, other = first.session, second.session
    assert SparkSession.getActiveSession() is session
    frame = session.range(3)
    assert frame.count() == 3
    before, gone = threading.active_count(), time.monotonic()
    del first
    assert time.monotonic() - gone < 1, "nothing is waited for"
    eventually(lambda: session.is_stopped, 20, "it is closed")
    with pytest.raises(UsageError, match=f"its handle was dropped(?s:.*)shoal.connect\\('{name}'\\)"):
        frame.count()
    assert threading.active_count() <= before
    assert is_released(endpoint, session.session_id)
    assert other.range(4).count() == 4, "another one does not mind"
    assert not is_released(endpoint, other.session_id)
    assert SparkSession.active() is other, "and is what is used where nobody says which"
    second.close()
    with pytest.raises(UsageError, match="its handle was closed"):
        other.range(4).count()


def assert_a_script_that_closes_nothing_gives_its_session_back(name: str, project: Path) -> None:
    script = f"""
import shoal
cluster = shoal.connect({name!r}, project={str(project)!r})
print(cluster.sql("select 7 as n").collect()[0].n, cluster.session.session_id)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    said, session_id = done.stdout.split()
    assert said == "7"
    assert done.stderr == ""
    handle = shoal.connect(name, project=project)
    assert is_released(handle._home.endpoint(handle.id), session_id)


def assert_a_builder_gives_the_open_session(name: str, project: Path) -> None:
    """What nearly every script and library of Spark's begins with; and a process that has none is not kept waiting."""
    script = f"""
import shoal
from pyspark.sql import SparkSession
def build():
    return SparkSession.builder.appName("older").config("spark.sql.shuffle.partitions", "3").getOrCreate()
with shoal.connect({name!r}, project={str(project)!r}) as cluster:
    session = cluster.session
    built = build()
    print(built is session, built.conf.get("spark.sql.shuffle.partitions"), built.range(3).count())
    child = "from pyspark.sql import SparkSession as S; S.builder.getOrCreate()"
    import subprocess, sys
    print("INVALID_CONNECT_URL" in subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stderr)
try:
    build()
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "3", "3", "True", "PySparkRuntimeError"], done
    assert done.stderr == ""


def assert_ones_own_local_session_goes_on(name: str, project: Path) -> None:
    """pyspark ends the server of a local session with whichever session is stopped."""
    script = f"""
import warnings
import shoal
from pyspark.sql import SparkSession
warnings.simplefilter("ignore")
own = SparkSession.builder.remote("local[1]").config("spark.ui.enabled", "false").getOrCreate()
before = own.range(2).count()
with shoal.connect({name!r}, project={str(project)!r}) as cluster:
    assert cluster.sql("select 7 as n").collect()[0].n == 7
print(before, own.range(3).count(), SparkSession.active() is own)
own.stop()
"""
    environment = os.environ | {"SPARK_TESTING": "1"}  # a free port for the local server
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.split() == ["2", "3", "True"], done.stderr


def assert_closed_soon_where_nobody_answers(name: str, project: Path, java: int) -> None:
    """A server that hangs: whoever closes or drops a handle is not held by it, nor is another session."""
    with shoal.connect(name, project=project) as cluster:
        assert isinstance(cluster, shoal.SparkCluster)
        assert cluster.sql("select 1").count() == 1
        os.kill(java, signal.SIGSTOP)
        begin = time.monotonic()
        try:
            cluster.close()
        finally:
            os.kill(java, signal.SIGCONT)
        assert time.monotonic() - begin < 60


def assert_refused_without_token(endpoint: Endpoint) -> None:
    """Who has the key alone is let through to the server, and that wants the token."""
    import grpc

    from shoal.client.channel import spark_session

    session = spark_session(replace(endpoint, token="guessed"))
    try:
        with pytest.raises(Exception, match="Invalid authentication token") as refusal:
            _ = session.version
    finally:
        session.client.set_retry_policies([])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            session.stop()
    assert grpc.StatusCode.UNAUTHENTICATED.name in repr(refusal.value) + str(refusal.value.__dict__)


def test_without_a_java_nothing_is_admitted(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(JavaError, match=r"(?s)Java 17.*apt install"):
        shoal.spark("small", project=project, quiet=True)
    home = open_home(open_project(project))
    assert home.clusters(ended=True) == []


def test_a_wrong_java_is_told_by_its_version(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_432\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    with pytest.raises(JavaError, match="is 8"):
        shoal.spark("small", project=project, quiet=True)
