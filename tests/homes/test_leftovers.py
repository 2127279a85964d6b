"""Whatever a task started ends with its cluster, however that ends, and nothing else does."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from shoal.client.clusters import open_home, open_project
from shoal.machine import cgroups, paths
from shoal.machine.processes import identity, is_alive
from shoal.model.cluster import Reason, State

Eventually = Callable[..., Any]
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="orphans are found on Linux alone")


def daemon_leaver(ignore_term: bool = False) -> Callable[[], int]:
    def leave_a_daemon() -> int:  # nested: the workers do not have this module
        import subprocess
        import sys

        code = (
            "import os, signal\n"
            f"if {ignore_term}: signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "os.setsid()\n"
            "pid = os.fork()\n"
            "if pid: print(pid, flush=True); os._exit(0)\n"
            "null = os.open(os.devnull, os.O_RDWR)\n"
            "[os.dup2(null, each) for each in (0, 1, 2)]\n"
            "os.execve('/bin/sleep', ['sleep', '600'], {})\n"
        )
        return int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout)

    return leave_a_daemon


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it may end between two looks at it
        return False


@linux
def test_a_daemon_with_a_cleared_environment_ends_with_its_cluster(project: Path) -> None:
    """A task leaves daemons that double-fork, leave the session and clear the environment; then it closes."""
    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        left = [cluster.client.submit(daemon_leaver(each), pure=False).result() for each in (False, True)]
        assert all(psutil.Process(pid).environ() == {} for pid in left)
        mine = psutil.Popen(["/bin/sleep", "600"], env={}, start_new_session=True)
    assert not [pid for pid in left if runs(pid)]
    assert runs(mine.pid), "what the user started beside it is the user's"
    mine.kill()
    mine.wait()


@linux
@pytest.mark.parametrize("killed", ["head", "guard"])
def test_nothing_is_there_5_s_after_a_kill_with_nobody_calling(
    project: Path, eventually: Eventually, killed: str
) -> None:
    """README: kill the head with -9, and none of its processes is left five seconds later, a daemon's included.

    Where the guard is killed, a daemon with a cleared environment stays until the next look: its cgroup tells.
    """
    handle = shoal.up("small", engine="dask", workers=1, project=project, quiet=True, detach=True)
    head = psutil.Process(handle.record.head["pid"])
    guard = head.parent()
    assert guard is not None
    with shoal.connect(handle.name, project=project) as second:
        assert isinstance(second, shoal.DaskCluster)
        left = second.client.submit(daemon_leaver(True), pure=False).result()
        every = [guard, head, *head.children(recursive=True)]
        if killed == "head":
            every.append(psutil.Process(left))
        os.kill(head.pid if killed == "head" else guard.pid, signal.SIGKILL)
        eventually(lambda: not [each for each in every if runs(each.pid)], 5, "all of it gone")
    assert (handle.record.state, handle.record.reason) == (State.FAILED, Reason.HEAD_CRASHED)
    handle.close()
    if killed == "guard" and cgroups.of(left) is None:  # this machine lets its user make none
        os.kill(left, signal.SIGKILL)
    open_home(open_project(project)).clusters()
    eventually(lambda: not runs(left), 20, "the next look ends it")


@linux
def test_a_cluster_has_a_cgroup_of_its_own_and_its_user_is_outside(
    project: Path, eventually: Eventually
) -> None:
    """Where one can be made: of a cluster that a task started, too. What is empty is removed at the next start."""

    def start_another(project: str) -> str:
        import shoal

        return str(shoal.up("small", engine="dask", workers=1, project=project, quiet=True, detach=True).id)

    home = open_home(open_project(project))
    with shoal.dask("small", workers=1, project=project, quiet=True) as outer:
        if (its := cgroups.of(outer.record.head["pid"])) is None:
            assert not cgroups.join(cgroups.member("probe", "probe")), "one can be made here"
            return
        assert its == cgroups.member(outer.id, home.ledger.url)
        assert outer.client.submit(lambda: cgroups.of(os.getpid()), pure=False).result() == its
        assert cgroups.of(os.getpid()) != its
        inner = outer.client.submit(start_another, str(project), pure=False).result()
        assert cgroups.of(home.get(inner).head["pid"]) == cgroups.member(inner, home.ledger.url)
    assert home.get(inner).state is State.READY
    home.stop(inner, Reason.STOPPED_BY_USER, "the test is over")
    eventually(lambda: home.get(inner).state.ended, 20, "it ended")


@linux
def test_a_cluster_that_a_task_started_belongs_to_itself(project: Path, eventually: Eventually) -> None:
    """A task starts a detached cluster: it lives on when the cluster of the task ends, also by a kill."""

    def start_another(project: str) -> str:
        import shoal

        inner = shoal.up("small", engine="dask", workers=1, project=project, quiet=True, detach=True)
        return str(inner.id)

    with shoal.dask("small", workers=1, project=project, quiet=True) as outer:
        inner = outer.client.submit(start_another, str(project), pure=False).result()
    home = open_home(open_project(project))
    assert home.get(inner).state is State.READY
    assert is_alive(home.get(inner).head)
    home.stop(inner, Reason.STOPPED_BY_USER, "the test is over")
    eventually(lambda: home.get(inner).state.ended, 20, "it ended")


def test_who_removes_the_data_folder_leaves_no_temporary_files_behind(
    project: Path, eventually: Eventually
) -> None:
    """``rm -r`` of everything while a cluster lives: what is elsewhere goes with its head."""
    handle = shoal.up("small", engine="dask", workers=1, project=project, quiet=True, detach=True)
    temporary = (paths.run_folder(handle.id) / "tmp").readlink()
    head = psutil.Process(handle.record.head["pid"])
    assert temporary.is_dir()
    handle.close()
    assert runs(head.pid)
    shutil.rmtree(paths.data_folder())
    head.terminate()
    eventually(lambda: not runs(head.pid), 30, "it ends")
    assert not temporary.exists()


def test_who_removes_the_data_folder_and_kills_leaves_nothing_for_longer_than_until_the_next_start(
    project: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """``rm -r`` and ``kill -9``: the way to the temporary files is gone with the folder, their owner is in them."""
    handle = shoal.up("small", engine="dask", workers=1, project=project, quiet=True, detach=True)
    gone = (paths.run_folder(handle.id) / "tmp").readlink()
    head = psutil.Process(handle.record.head["pid"])
    head.kill()
    eventually(lambda: not runs(head.pid), 30, "it ends")
    told = json.loads((gone / ".shoal.json").read_text())
    # One whose head lives, one whose head only a container of somebody's sees, one whose folder is there.
    alive, hidden, found = (gone.with_name(f"shoal-{secrets.token_hex(8)}") for _ in range(3))
    here = tmp_path / "tmp"
    here.symlink_to(found)
    for each, more in ((alive, identity()), (hidden, {"space": "pid:[1]"}), (found, {"folder": str(here)})):
        shutil.copytree(gone, each)
        (each / ".shoal.json").write_text(json.dumps(told | more))
    shutil.rmtree(paths.data_folder())  # now anybody's next start may take the first one away
    try:
        with shoal.dask("small", workers=1, project=project, quiet=True) as another:
            assert not gone.exists()
            assert all(each.exists() for each in (alive, hidden, found))
            assert (paths.run_folder(another.id) / "tmp").readlink().exists()
    finally:
        for each in (alive, hidden, found):
            shutil.rmtree(each)


def test_the_folders_of_old_clusters_go_with_what_they_point_to(empty_home: Path, tmp_path: Path) -> None:
    """Whoever tidied up after a killed head was killed as well: nobody else looks into that folder again."""
    old = paths.make_private(paths.run_folder("old"))
    kept = tmp_path / "shoal-kept"
    (kept / "artifacts").mkdir(parents=True)
    (old / "tmp").symlink_to(kept)
    paths.prune(keep=0)
    assert not old.exists()
    assert not kept.exists()
