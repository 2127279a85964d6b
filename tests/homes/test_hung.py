"""A head that hangs or is stopped: seen by who looks, ended by `down` and at its maximum lifetime, and told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.client.clusters import open_home, open_project
from shoal.homes.local import periods
from shoal.homes.local.home import LocalHome
from shoal.model.cluster import Reason, State
from shoal.units import Seconds

Eventually = Callable[..., Any]


@pytest.fixture
def home(project: Path) -> LocalHome:
    return open_home(open_project(project))


def command(project: Path, *arguments: str, data: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | ({"SHOAL_DATA": str(data)} if data is not None else {})
    return subprocess.run(
        [sys.executable, "-m", "shoal", *arguments, "--project", str(project)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_a_stopped_head_is_told_of_and_down_ends_it_in_good_order(
    project: Path, home: LocalHome, marked: Callable[[], dict[int, str]]
) -> None:
    up = shoal.up("small", engine="dask", workers=1, name="desk", detach=True, project=project, quiet=True)
    pid = home.get(up.id).head["pid"]
    os.kill(pid, signal.SIGSTOP)
    why, doctor = command(project, "why", "desk"), command(project, "doctor")
    assert f"its head (pid {pid}) is stopped" in " ".join(why.stdout.split())
    assert "shoal down desk" in why.stdout
    assert f"desk: its head (pid {pid}) is stopped" in doctor.stdout
    down = command(project, "down", "desk")
    assert down.returncode == 0, down.stderr
    ended = home.get(up.id)
    assert (ended.state, ended.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)
    assert "killed" not in ended.message
    assert not marked()


def test_a_head_that_hangs_is_killed_after_the_stop_limit_and_told(
    project: Path,
    home: LocalHome,
    marked: Callable[[], dict[int, str]],
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Native code that keeps the interpreter to itself: no signal and no request is ever looked at."""
    monkeypatch.setattr(periods, "LOCAL", replace(periods.LOCAL, stop=Seconds(4)))
    with shoal.dask("small", workers=2, name="stuck", project=project, quiet=True) as cluster:
        hangs = tmp_path / "hangs"
        hang = (
            "import ctypes, pathlib, threading\n"
            "def hang():\n"
            f"    pathlib.Path({str(hangs)!r}).touch()\n"
            "    ctypes.PyDLL(None).sleep(600)\n"
            "threading.Timer(1, hang).start()"
        )
        cluster.client.run_on_scheduler(exec, hang, {})
        eventually(hangs.exists, 30, "it hangs")
        eventually(lambda: home.status(cluster.id, timeout=0.5) is None, 30, "it does not answer")
        assert home.get(cluster.id).state is State.READY, "not failed: only slow, for all that is known"
        assert home.unresponsive(home.get(cluster.id)) == ""
        home.stop(cluster.id, Reason.STOPPED_BY_USER, "no longer needed")
        eventually(lambda: home.get(cluster.id).state.ended, 60, "it was killed")
        cluster.release()
    ended = home.get(cluster.id)
    assert (ended.state, ended.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)
    assert ended.message == "no longer needed; its head did not end within 4 s and was killed"
    eventually(lambda: not marked(), 30, "its workers are gone too")
    assert not home.held(home.user()).admitted
    assert "was killed" in command(project, "why", "stuck").stdout.replace("\n", " ")


def test_the_maximum_lifetime_of_a_stopped_head_comes_when_anybody_looks(
    project: Path, home: LocalHome, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periods, "LOCAL", replace(periods.LOCAL, overdue=Seconds(2)))
    up = shoal.up(
        "small",
        engine="dask",
        workers=1,
        name="old",
        detach=True,
        max_duration="6 s",
        project=project,
        quiet=True,
    )
    os.kill(home.get(up.id).head["pid"], signal.SIGSTOP)
    eventually(lambda: not home.clusters(), 60, "it ended")
    ended = home.get(up.id)
    assert (ended.state, ended.reason) == (State.STOPPED, Reason.DEADLINE_REACHED)
    assert "maximum lifetime of 6 s" in ended.message
    assert not home.held(home.user()).admitted


def test_a_copy_of_the_data_folder_ends_nothing_of_the_original(
    project: Path, home: LocalHome, empty_home: Path, tmp_path: Path
) -> None:
    with shoal.dask("small", workers=1, name="mine", project=project, quiet=True) as cluster:
        copy = tmp_path / "copy"
        subprocess.run(["cp", "-r", str(empty_home), str(copy)], check=True)
        down = command(project, "down", "mine", data=copy)
        assert down.returncode == 2, down.stdout
        assert "this ledger is a copy" in down.stderr
        assert f"{empty_home / 'ledger.db'}, and is left alone" in " ".join(down.stderr.split())
        doctor = command(project, "doctor", data=copy)
        assert "kill" not in doctor.stdout, "what runs is the original's"
        assert "[]" in command(project, "ls", "-o", "json", data=copy).stdout
        assert cluster.client.submit(sum, [1, 2]).result(60) == 3
        assert cluster.record.state is State.READY


def test_a_data_folder_that_was_moved_still_ends_its_clusters(
    project: Path, home: LocalHome, empty_home: Path, tmp_path: Path, marked: Callable[[], dict[int, str]]
) -> None:
    """And one that is reached by another name is the same one."""
    shoal.up("small", engine="dask", workers=1, name="mine", detach=True, project=project, quiet=True)
    (tmp_path / "link").symlink_to(empty_home)
    listed = command(project, "ls", "-o", "json", data=tmp_path / "link")
    assert '"mine"' in listed.stdout
    home.ledger.close()
    moved = empty_home.rename(tmp_path / "moved")
    down = command(project, "down", "mine", data=moved)
    assert down.returncode == 0, down.stderr
    assert not marked()
