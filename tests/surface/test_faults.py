"""What goes wrong around a cluster: a server that never answers, a full disk, many at once, two people."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql.connect.session import SparkSession

import shoal
from shoal.client.clusters import open_project
from shoal.homes.choose import open_home
from shoal.model.cluster import Reason, State

# `make soak` runs these at full size; here they show that the loop is sound.
DASK_RUNS = int(os.environ.get("SHOAL_SOAK_DASK", "10"))
SPARK_RUNS = int(os.environ.get("SHOAL_SOAK_SPARK", "1"))
AT_ONCE = 4
SMALL: dict[str, Any] = {"workers": 1, "cores": 1, "memory": "1 GB", "quiet": True}


def home() -> Any:
    return open_home(open_project())


def nothing_left(marked: Callable[[], dict[int, str]]) -> None:
    assert not marked()
    assert not home().clusters()
    assert not home().held(home().user()).admitted


@pytest.mark.spark
def test_a_spark_server_that_never_answers_is_given_up_with_its_last_words(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marked: Callable[[], dict[int, str]]
) -> None:
    java = tmp_path / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "*-version) echo 'openjdk version \"17.0.9\"' >&2; exit 0;;\n"
        '*launcher.Main*) exec $REAL_JAVA "$@";;\n'
        "esac\n"
        "echo warming up for ever; exec sleep 600\n"
    )
    java.chmod(java.stat().st_mode | stat.S_IEXEC)
    real = subprocess.run(["bash", "-c", "command -v java"], capture_output=True, text=True, check=True)
    monkeypatch.setenv("REAL_JAVA", real.stdout.strip())
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
    monkeypatch.setenv("SHOAL_START_LIMIT", "6")
    with pytest.raises(shoal.ShoalError, match="did not answer within") as caught:
        shoal.spark("analytics", name="mute", **SMALL)
    assert "warming up for ever" in str(caught.value)
    found = home().find("mute", home().user())
    assert (found.state, found.reason.value) == (State.FAILED, "StartFailed")
    nothing_left(marked)


@pytest.mark.spark
def test_a_spark_server_that_is_killed_ends_its_cluster_which_says_so_in_one_line(
    empty_home: Path, marked: Callable[[], dict[int, str]], eventually: Callable[..., Any]
) -> None:
    with shoal.spark("analytics", name="shot", **SMALL) as cluster:
        [jvm] = home().status(cluster.id).worker_pids
        os.kill(jvm, signal.SIGKILL)
        eventually(lambda: cluster.record.state is State.FAILED, 20, "it is noted")
        assert cluster.record.reason is Reason.HEAD_CRASHED
        assert cluster.record.message == "Spark's JVM was killed (signal 9); `shoal logs shot`"
        with pytest.raises(shoal.ShoalError, match=r"shot ended: HeadCrashed") as caught:
            cluster.raise_if_ended()
        assert str(caught.value).count("shoal logs") == 1
        assert "Spark's JVM ended with -9" in cluster.logs()
    assert SparkSession.getActiveSession() is None, "nobody is handed the dead one"
    nothing_left(marked)


def test_a_worker_that_is_killed_is_replaced_and_the_work_goes_on(
    empty_home: Path, marked: Callable[[], dict[int, str]], eventually: Callable[..., Any]
) -> None:
    with shoal.dask("etl", name="shot", **SMALL | {"workers": 2}) as cluster:
        naps = cluster.client.map(time.sleep, [0.5 + n / 1000 for n in range(12)])
        before = set(cluster.client.run(os.getpid).values())
        os.kill(min(before), signal.SIGKILL)
        assert cluster.client.gather(naps) == [None] * 12
        eventually(lambda: len(cluster.client.run(os.getpid)) == 2, 20, "a new one is there")
        assert min(before) not in cluster.client.run(os.getpid).values()
        assert cluster.record.state is State.READY
    nothing_left(marked)


def test_files_that_may_not_grow_are_told_and_leave_nothing(
    empty_home: Path, marked: Callable[[], dict[int, str]]
) -> None:
    """A limit on files, as some machines set it. A disk that is really full: tests/cli/test_disk_full.py."""
    command = Path(sys.executable).with_name("shoal")
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 0; {command} up etl --workers 1 --name full"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "cannot write in" in done.stderr
    assert "Traceback" not in done.stderr
    nothing_left(marked)


def test_two_people_of_one_machine_have_their_own_names_and_quotas(
    empty_home: Path, monkeypatch: pytest.MonkeyPatch, marked: Callable[[], dict[int, str]]
) -> None:
    with shoal.dask("etl", name="mine", **SMALL) as first:
        monkeypatch.setenv("SHOAL_USER", "bob")
        with shoal.dask("etl", name="mine", **SMALL) as second:
            assert first.id != second.id
            assert {c.owner for c in home().clusters()} == {"alice", "bob"}
            assert len(home().held("bob").admitted) == 1
            monkeypatch.setenv("SHOAL_USER", "carol")
            with pytest.raises(shoal.ShoalError, match="no live cluster"):
                shoal.connect("mine")
        monkeypatch.setenv("SHOAL_USER", "alice")
        assert first.client.submit(sum, [1, 2]).result() == 3
    nothing_left(marked)


@pytest.mark.slow
def test_clusters_one_after_the_other_leave_nothing(
    empty_home: Path, marked: Callable[[], dict[int, str]], record_property: Callable[[str, object], None]
) -> None:
    record_property("n", DASK_RUNS)
    for number in range(DASK_RUNS):
        with shoal.dask("etl", name="again", **SMALL) as cluster:
            assert cluster.client.submit(sum, [number, 1]).result() == number + 1
        assert not marked(), f"after run {number}"
    nothing_left(marked)
    assert len(home().clusters(ended=True)) == DASK_RUNS


@pytest.mark.spark
@pytest.mark.slow
def test_spark_clusters_one_after_the_other_leave_nothing(
    empty_home: Path, marked: Callable[[], dict[int, str]], record_property: Callable[[str, object], None]
) -> None:
    record_property("n", SPARK_RUNS)
    for number in range(SPARK_RUNS):
        with shoal.spark("analytics", name="again", **SMALL) as cluster:
            assert cluster.sql(f"select {number} + 1 as n").collect()[0].n == number + 1
        assert not marked(), f"after run {number}"
    nothing_left(marked)


@pytest.mark.slow
def test_clusters_at_once_are_all_served_or_refused_and_leave_nothing(
    empty_home: Path, marked: Callable[[], dict[int, str]], eventually: Callable[..., Any]
) -> None:
    """The standard tier gives three clusters: of four at once, three serve and one is told no."""

    def one(number: int) -> str:
        code = (
            "import shoal, sys\n"
            "try:\n"
            f"    with shoal.dask('etl', name='c{number}', **{SMALL}) as c:\n"
            "        assert c.client.submit(sum, [1, 2]).result() == 3\n"
            "        sys.stdin.readline()\n"
            "    print('served')\n"
            "except shoal.ShoalError as error:\n"
            "    print(type(error).__name__)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    processes: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [pool.submit(one, number) for number in range(AT_ONCE)]
        try:
            ready = lambda: sum(c.state is State.READY for c in home().clusters()) == AT_ONCE - 1  # noqa: E731
            eventually(ready, 90, "three of them serve")
        finally:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
        answers = sorted(future.result(120) for future in asked)
    for process in processes:
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
    assert answers == ["QuotaExceededError", "served", "served", "served"]
    nothing_left(marked)
