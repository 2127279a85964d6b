"""Ctrl-C, as a terminal sends it: SIGINT to every process in the foreground, in each phase of a cluster's life.

Whatever the moment: exit code 130, one word instead of a stack trace, and nothing of the cluster is left. The
moments are the crash points, at which a process is held until the keys were pressed; a point without a case
fails the tests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from shoal.machine.crash import AT, WITH, CrashPoint

P = CrashPoint
Eventually = Callable[..., Any]

# Who is interrupted there: `up`, while it starts; `submit`, while its script runs (the script outlives nobody)
# or, with a script that is over at once, while it ends the cluster.
CASES: dict[CrashPoint, tuple[str, ...]] = {
    P.CLIENT_AHEAD: ("up", "small"),
    P.HEAD_AHEAD: ("up", "small"),
    P.CLIENT_IN_DECISION: ("up", "small"),
    P.CLIENT_AFTER_DECISION: ("up", "small"),
    P.CLIENT_AFTER_LAUNCH: ("up", "small"),
    P.HEAD_BORN: ("up", "small"),
    P.HEAD_RECORDED: ("up", "small"),
    P.HEAD_STARTING: ("up", "small"),
    P.HEAD_ENGINE_UP: ("up", "small"),
    P.HEAD_BEFORE_READY: ("up", "small"),
    P.CLIENT_READY: ("up", "small"),
    P.HEAD_SERVING: ("submit", "endless.py", "-t", "small"),
    P.CLIENT_CLOSING: ("submit", "brief.py", "-t", "small"),
    P.HEAD_STOPPING: ("submit", "brief.py", "-t", "small"),
    P.HEAD_BEFORE_END: ("submit", "brief.py", "-t", "small"),
}
ENDLESS = "import os; os.execvp('sh', ['sh', '-c', 'echo on it; exec sleep 600'])\n"


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def ends_what_it_started() -> Iterator[None]:
    """A test that failed leaves no command behind: a later test would fail for it."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
        process.wait(30)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def foreground(place: Any, *arguments: str, **changes: str) -> subprocess.Popen[str]:
    """The command in a process group of its own, as a shell starts it."""
    process = subprocess.Popen(
        [place.command, *arguments],
        cwd=place.folder,
        env=place.environment | changes,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    STARTED.append(process)
    return process


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)


def ends_as_interrupted(process: subprocess.Popen[str], timeout: float = 60) -> None:
    """Exit code 130, a word, no stack trace."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 130, (process.returncode, out, err)
    assert "Interrupted" in err
    assert "Traceback" not in err, err
    assert "Exception ignored" not in err, err


def held(place: Any, process: subprocess.Popen[str]) -> int | None:
    """The pid of the process that is held at the point."""
    for pid in (process.pid, *place.marked()):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                return pid
        except psutil.NoSuchProcess:
            continue
    return None


def go_on(pid: int) -> None:
    """Unless it was let go on already: whoever ends a head that is stopped does that."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def record(place: Any, name: str) -> dict[str, Any] | None:
    rows = [row for row in place.quick("ls", "--all", "-o", "json").json if row["name"] == name]
    return rows[-1] if rows else None


def is_gone(place: Any, name: str, eventually: Eventually) -> None:
    eventually(lambda: not place.marked(), 20, "no process is left")
    row = record(place, name)
    assert row is None or (row["state"], row["reason"]) == ("Stopped", "StoppedByUser"), row
    assert place.quick("quota", "-o", "json").json["clusters"] == [], "it holds nothing"


def test_every_point_has_a_case() -> None:
    assert set(CASES) == set(CrashPoint)


IN_CI = (P.CLIENT_AFTER_LAUNCH, P.HEAD_STARTING, P.CLIENT_READY, P.HEAD_SERVING, P.HEAD_STOPPING)


@pytest.mark.parametrize(
    "point",
    [pytest.param(point, marks=() if point in IN_CI else pytest.mark.soak) for point in CASES],
    ids=str,
)
def test_ctrl_c_in_every_phase_leaves_nothing(point: CrashPoint, small: Any, eventually: Eventually) -> None:
    small.write("endless.py", ENDLESS)
    small.write("brief.py", "")
    command = (*CASES[point], "-w", "1", "--name", "c", "--yes")
    process = foreground(small, *command, **{AT: point.value, WITH: "STOP"})
    pid = eventually(lambda: held(small, process) or process.poll() is not None, 60, f"it is at {point}")
    assert pid is not True, process.communicate()
    press_ctrl_c(process)
    if pid != process.pid:
        time.sleep(0.5)  # the client first, as it is with a head that is busy
    go_on(pid)
    ends_as_interrupted(process)
    is_gone(small, "c", eventually)


def test_ctrl_c_while_a_script_runs(small: Any, eventually: Eventually) -> None:
    small.write("endless.py", ENDLESS)
    process = foreground(small, "submit", "endless.py", "-t", "small", "-w", "1", "--name", "c")
    assert process.stdout is not None
    assert process.stdout.readline() == "on it\n"
    press_ctrl_c(process)
    ends_as_interrupted(process)
    is_gone(small, "c", eventually)


def test_ctrl_c_twice_is_no_worse_than_once(small: Any, eventually: Eventually) -> None:
    """The second one comes while the first one's end is waited for."""
    small.write("endless.py", ENDLESS)
    process = foreground(
        small,
        *("submit", "endless.py", "-t", "small", "-w", "1", "--name", "c"),
        **{AT: P.HEAD_STOPPING, WITH: "STOP"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "on it\n"
    press_ctrl_c(process)
    pid = eventually(lambda: held(small, process), 30, "its head ends")
    press_ctrl_c(process)
    ends_as_interrupted(process, timeout=5)
    go_on(pid)
    is_gone(small, "c", eventually)


def test_ctrl_c_in_the_queue_and_in_down(small: Any, eventually: Eventually) -> None:
    for name in ("one", "two"):
        assert small("up", "small", "-w", "1", "--name", name, "--detach").code == 0
    for command in (("up", "small"), ("submit", "brief.py", "-t", "small")):
        small.write("brief.py", "")
        name = f"queued-{command[0]}"
        waiting = foreground(small, *command, "-w", "1", "--name", name, "--queue")
        eventually(lambda name=name: (record(small, name) or {}).get("state") == "Queued", 30, "it waits")
        press_ctrl_c(waiting)
        ends_as_interrupted(waiting)
        row = record(small, name)
        assert row is not None
        assert (row["state"], row["reason"]) == ("Stopped", "StoppedByUser")
    # It is stopped once its wish is recorded: a head that is stopped instead is let go on by whoever looks.
    down = foreground(small, "down", "one", "--yes", **{AT: P.CLIENT_CLOSING, WITH: "STOP"})
    eventually(lambda: held(small, down) == down.pid, 30, "its wish is recorded")
    press_ctrl_c(down)
    go_on(down.pid)
    ends_as_interrupted(down, timeout=10)
    eventually(
        lambda: record(small, "one") is None or record(small, "one")["state"] == "Stopped", 30, "it ends"
    )  # type: ignore[index]
    assert [row["name"] for row in small.quick("ls", "-o", "json").json] == ["two"]
    assert small.quick("down", "two", "--yes").code == 0
    is_gone(small, "one", eventually)


def test_ctrl_c_while_looking_on(small: Any, eventually: Eventually) -> None:
    assert small("up", "small", "-w", "1", "--name", "seen", "--detach").code == 0
    try:
        follow = foreground(small, "logs", "seen", "--follow")
        assert follow.stdout is not None
        follow.stdout.readline()
        press_ctrl_c(follow)
        ends_as_interrupted(follow)
        assert record(small, "seen")["state"] == "Ready", "whoever only looks ends nothing"  # type: ignore[index]
    finally:
        small.quick("down", "seen")


@pytest.mark.parametrize("module", ["typer", "rich.console", "shoal.client.clusters", "pydantic", "sqlite3"])
def test_ctrl_c_while_it_still_imports(small: Any, module: str) -> None:
    """Impatient fingers: before the command itself runs."""
    small.write(
        "press.py",
        f"""
        import os, signal, sys

        class Press:
            def find_spec(self, name, path, target=None):
                if name == {module!r}:
                    sys.meta_path.remove(self)
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Press())
        from shoal.cli.main import main
        main()
        """,
    )
    process = subprocess.Popen(
        [sys.executable, "press.py", "up", "small"],
        cwd=small.folder,
        env=small.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ends_as_interrupted(process)
    assert record(small, "small") is None
