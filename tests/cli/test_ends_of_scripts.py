"""A submitted script ends with what was submitted: its command, however that ends, and its cluster's `shoal down`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from shoal.machine.crash import AT, WITH, CrashPoint

Eventually = Callable[..., Any]

ENDLESS = "import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(600)\n"
# The cluster is gone, and the script goes on.
ALONE = """
import os, time
import shoal

cluster = shoal.dask()
cluster.client.shutdown()
print('pid', os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def begun(small: Any) -> Iterator[list[subprocess.Popen[str]]]:
    """Commands that a test started: none of them, and nothing of theirs, outlives it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def its_pid(text: str) -> int | None:
    """Of the script, once it said so."""
    said = [line.split()[1] for line in text.splitlines() if line.startswith("pid ")]
    return int(said[0]) if said else None


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def submitted(place: Any, started: list[subprocess.Popen[str]], name: str) -> int:
    """A script in the foreground; its pid. Whoever ends the command ends that one process alone."""
    place.write("endless.py", ENDLESS)
    command = ("submit", "endless.py", "-t", "small", "-w", "1", "--name", name)
    process = place.start(*command)
    started.append(process)
    assert process.stdout is not None
    pid = its_pid(process.stdout.readline())
    assert pid is not None, process.communicate()
    return pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_what_ends_submit_ends_its_script_and_its_cluster(
    number: signal.Signals, small: Any, begun: list[subprocess.Popen[str]]
) -> None:
    pid = submitted(small, begun, "told")
    begun[0].send_signal(number)
    _, err = begun[0].communicate(timeout=60)
    assert begun[0].returncode == 128 + number, err
    assert f"Ended by {number.name}" in err
    assert "Traceback" not in err, err
    assert gone(pid), "the script goes on"
    assert small.quick("ls", "-o", "json").json == []
    (row,) = [row for row in small.quick("ls", "--all", "-o", "json").json if row["name"] == "told"][:1]
    assert (row["state"], row["exit_code"]) == ("Stopped", 128 + number)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_a_script_ends_with_a_command_that_was_killed(
    small: Any, begun: list[subprocess.Popen[str]], eventually: Eventually
) -> None:
    pid = submitted(small, begun, "killed-hard")
    begun[0].kill()
    eventually(lambda: gone(pid), 30, "the script is gone")
    small.quick("down", "killed-hard")


def test_down_ends_the_script_in_the_foreground_too(small: Any, begun: list[subprocess.Popen[str]]) -> None:
    pid = submitted(small, begun, "seen-elsewhere")
    assert small.quick("down", "seen-elsewhere").code == 0
    begun[0].communicate(timeout=60)
    assert begun[0].returncode == 128 + signal.SIGTERM
    assert gone(pid)


def test_down_ends_a_script_in_the_background_and_says_so(small: Any, eventually: Eventually) -> None:
    small.write("endless.py", ENDLESS)
    small("submit", "endless.py", "-t", "small", "-w", "1", "--detach", "--name", "back")
    pid = eventually(lambda: its_pid(small.quick("logs", "back").out), 60, "it runs")
    assert small.quick("down", "back").code == 0
    assert gone(pid), "the script goes on"
    waited = small.quick("wait", "back", "-o", "json")
    assert (waited.code, waited.json["result"]) == (128 + signal.SIGTERM, "ended"), waited
    row = next(row for row in small.quick("ls", "--all", "-o", "json").json if row["name"] == "back")
    assert (row["message"], row["exit_code"]) == ("ended by `shoal down`", None)


def test_down_ends_a_script_that_has_no_cluster_any_more(small: Any, eventually: Eventually) -> None:
    small.write("alone.py", ALONE)
    small("submit", "alone.py", "-t", "small", "-w", "1", "--detach", "--name", "alone")
    pid = eventually(lambda: its_pid(small.quick("logs", "alone").out), 60, "it runs")
    eventually(lambda: small.quick("ls", "-o", "json").json == [], 30, "its cluster is gone")
    ended = small.quick("down", "alone")
    assert ended.code == 0, ended
    assert "its script was ended" in ended.out
    assert gone(pid)
    assert small.quick("down", "alone").code == 2


def test_up_that_is_terminated_takes_its_cluster_back(
    small: Any, begun: list[subprocess.Popen[str]], eventually: Eventually
) -> None:
    held = {AT: CrashPoint.CLIENT_AFTER_LAUNCH.value, WITH: "STOP"}
    up = small.start("up", "small", "-w", "1", "--name", "early", "--yes", **held)
    begun.append(up)
    eventually(lambda: psutil.Process(up.pid).status() == psutil.STATUS_STOPPED, 60, "it is starting")
    up.send_signal(signal.SIGTERM)
    os.kill(up.pid, signal.SIGCONT)
    _, err = up.communicate(timeout=60)
    assert up.returncode == 128 + signal.SIGTERM, err
    assert small.quick("ls", "-o", "json").json == []


def test_a_hang_up_that_is_ignored_stays_ignored(small: Any, begun: list[subprocess.Popen[str]]) -> None:
    """As `nohup` starts it."""
    small.write("brief.py", "import os, signal\nos.kill(os.getppid(), signal.SIGHUP)\nprint('went on')\n")
    command = [small.command, "submit", "brief.py", "-t", "small", "-w", "1"]
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command],
        cwd=small.folder,
        env=small.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    begun.append(process)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out) == (0, "went on\n"), err
