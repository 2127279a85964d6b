"""Asking under the name of a live cluster: whoever started it owns it, whoever found it is attached."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.client.clusters import open_home, open_project
from shoal.errors import UsageError
from shoal.model.cluster import Reason, State


@pytest.fixture(scope="module")
def detached(shared_project: Path) -> Iterator[shoal.DaskCluster]:
    """A cluster of two workers that was brought up to stay."""
    handle = shoal.up(
        "small", engine="dask", workers=2, name="desk", project=shared_project, quiet=True, detach=True
    )
    assert isinstance(handle, shoal.DaskCluster)
    yield handle
    handle._home.stop(handle.id, Reason.STOPPED_BY_USER, "the tests are over")


def test_whoever_finds_a_cluster_by_name_leaves_it_running_and_reads_so(
    detached: shoal.DaskCluster, shared_project: Path
) -> None:
    """Another notebook opens `name="desk"` in a `with` block: the first one's cluster must survive its end."""
    code = (
        "import shoal, sys\n"
        f"with shoal.dask('small', workers=2, name='desk', project={str(shared_project)!r}) as c:\n"
        "    print(c.id, c.owns, c.client.submit(sum, [1, 2]).result())\n"
        f"shoal.dask('small', workers=2, name='desk', project={str(shared_project)!r}).close()\n"
        f"forgotten = shoal.dask('small', workers=2, name='desk', project={str(shared_project)!r}, quiet=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split() == [detached.id, "False", "3"], done.stderr
    assert (
        "desk already exists: attached to it, and it keeps running when this handle is closed" in done.stderr
    )
    assert "shoal down desk" in done.stderr
    assert "dropped" not in done.stderr
    assert detached.record.state is State.READY


def test_a_cell_that_is_run_again_keeps_its_cluster_until_the_last_handle_is_gone(
    shared_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second run promised that it keeps running, and then the first one's handle was dropped, and ended it."""

    def cell() -> shoal.DaskCluster:
        return shoal.dask("small", workers=1, name="again", project=shared_project)

    cluster = cell()
    first = cluster.id
    cluster = cell()
    gc.collect()
    said = capsys.readouterr().err
    assert "again is open in this process already" in said
    assert "dropped" not in said
    assert (cluster.id, cluster.owns) == (first, True)
    assert cluster.client.submit(sum, [1, 2]).result(timeout=60) == 3
    cluster.close()
    assert (cluster.record.state, cluster.record.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)


def test_an_actor_belongs_to_the_cluster_that_has_it_while_a_newer_one_is_open(
    detached: shoal.DaskCluster, shared_project: Path
) -> None:
    """Dask gave it the newest client, whose cluster does not know it: its calls waited for ever."""

    class Counter:
        number = 0

        def add(self, more: int) -> int:
            self.number += more
            return self.number

    with shoal.dask("small", workers=1, name="newer", project=shared_project, quiet=True) as newer:
        counter = detached.client.submit(Counter, actor=True).result(timeout=60)
        assert counter.add(2).result(timeout=30) == 2
        assert counter.add(3).result(timeout=30) == 5
        assert newer.client.submit(sum, [1, 2]).result(timeout=60) == 3


def test_another_size_is_refused_in_python_before_anything_is_given(
    detached: shoal.DaskCluster, shared_project: Path
) -> None:
    with pytest.raises(UsageError, match=r"(?s)requested +existing.*workers +1 +2") as refusal:
        shoal.dask("small", workers=1, name="desk", project=shared_project, quiet=True)
    assert "shoal scale desk 1" in str(refusal.value)
    with pytest.raises(UsageError, match=r"engine +spark +dask"):
        shoal.spark("small", workers=2, name="desk", project=shared_project, quiet=True)
    assert detached.record.state is State.READY


def test_of_several_processes_that_ask_at_once_exactly_one_owns(shared_project: Path) -> None:
    code = (
        "import shoal, sys\n"
        "sys.stdin.readline()\n"
        f"with shoal.dask('small', workers=1, name='raced', project={str(shared_project)!r}, quiet=True) as c:\n"
        "    print(c.id, c.owns, flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = [racer.stdout.readline().split() for racer in racers if racer.stdout is not None]
        assert len({cluster for cluster, _ in said}) == 1
        assert sorted(owns for _, owns in said) == ["False", "False", "True"]
        home = open_home(open_project(shared_project))
        for racer in sorted(racers, key=lambda racer: said[racers.index(racer)][1] == "True"):
            assert home.get(said[0][0]).state is State.READY, "finders leave, and it stays"
            racer.communicate("done\n", timeout=60)
            assert racer.returncode == 0
        assert home.get(said[0][0]).state is State.STOPPED, "its owner left"
    finally:
        for racer in racers:
            racer.kill()
            racer.wait(10)


def test_a_name_whose_cluster_is_just_ending_is_free_a_moment_later(shared_project: Path) -> None:
    """A cell is run again while the old cluster is on its way out: a new one, not the end of the old one."""
    options = {"workers": 1, "name": "again", "project": shared_project, "quiet": True}
    first = shoal.dask("small", **options)
    first._home.stop(first.id, Reason.STOPPED_BY_USER, "its turn is over")
    with shoal.dask("small", **options) as second:
        assert second.owns
        assert second.id != first.id
        assert second.client.submit(sum, [1, 2]).result() == 3
    first.close()


def test_an_attached_handle_that_is_dropped_disconnects(
    detached: shoal.DaskCluster, shared_project: Path, eventually: Callable[..., Any]
) -> None:
    """A cell that is run again and again: its connections stayed, and the last one was Dask's default client."""
    from distributed import default_client

    def clients() -> list[str]:
        known = detached.client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.clients))
        return [each for each in known if each.startswith("Client")]

    before = clients()

    def cell() -> Any:
        handle = shoal.connect("desk", project=shared_project)
        assert isinstance(handle, shoal.DaskCluster)
        assert handle.client.submit(sum, [1, 2], pure=False).result(60) == 3
        return handle.client

    last = [cell() for _ in range(3)][-1]
    eventually(lambda: clients() == before, 30, "only those that somebody holds are connected")
    eventually(lambda: last.status == "closed", 30, "the client knows it")
    assert default_client() is detached.client
    with pytest.raises(UsageError, match="its handle was dropped"):
        last.submit(sum, [1, 2], pure=False)


def test_connections_that_overlap_leave_no_scheduler_behind(
    detached: shoal.DaskCluster, shared_project: Path
) -> None:
    """Two clusters in one notebook, closed in the order in which they were opened; then Dask computes without one."""
    import dask

    first = shoal.connect("desk", project=shared_project)
    second = shoal.connect("desk", project=shared_project)
    for handle in (first, second):
        handle.open()
    for handle in (first, second):
        handle.close()
    assert dask.delayed(sum)([1, 2]).compute() == 3
