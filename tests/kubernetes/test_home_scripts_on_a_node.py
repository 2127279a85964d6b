"""A submitted script on a real kubelet: its output, its exit code, its end by too much memory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.client.clusters import open_project
from shoal.homes.choose import open_home

from .test_home_on_a_node import World, governed, world

__all__ = ["governed", "world"]  # fixtures
pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(600)]
SUBMITTED = """
import sys, time, shoal, helpers
cluster = shoal.dask()
print(*sys.argv[1:], cluster.client.submit(helpers.double, 21).result(), flush=True)
while not cluster.record.plan.timeouts.max > 3600: time.sleep(0.1)
if "large" in sys.argv: taken = [bytearray(b"1" * 10**8) for _ in range(100)]
print("last words")
sys.exit(7)
"""


def begin(*words: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "shoal", *words]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hears_of_terminals
    )


def hears_of_terminals() -> None:
    """Also where the tests themselves run under ``nohup``."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_a_script_runs_beside_its_cluster_and_outlives_its_terminal(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_PROJECT", str(world.project))
    (tmp_path / "work").mkdir()
    (tmp_path / "work/job.py").write_text(SUBMITTED)
    (tmp_path / "work/helpers.py").write_text("def double(x): return 2 * x\n")
    how = ("submit", "work/job.py", "--template", "small", "--engine", "dask", "--workers", "1", "--yes")
    for name, code, last in (("seven", 7, "last words\n"), ("large", 137, "")):
        terminal = begin(*how, "--name", name, "--", name)
        assert terminal.stdout is not None
        assert terminal.stdout.readline() == f"{name} 42\n", terminal.communicate(timeout=60)
        terminal.send_signal(signal.SIGHUP)
        terminal.communicate(timeout=60)
        follows, waits = begin("logs", name, "--follow"), begin("wait", name)
        begin("extend", name, "+1 h").communicate(timeout=60)
        out, err = waits.communicate(timeout=120)
        assert (terminal.returncode, waits.returncode) == (129, code), (out, err)
        assert follows.communicate(timeout=60)[0] == f"{name} 42\n{last}"
    # What it wrote until it was interrupted is kept.
    terminal = begin(*how, "--name", "stopped", "--", "stopped")
    assert terminal.stdout is not None
    assert terminal.stdout.readline() == "stopped 42\n", terminal.communicate(timeout=60)
    terminal.send_signal(signal.SIGINT)
    terminal.communicate(timeout=120)
    assert terminal.returncode == 130
    assert begin("logs", "stopped").communicate(timeout=60)[0] == "stopped 42\n"
    found = open_home(open_project(world.project)).find("large", "alice")
    assert found is not None
    assert found.message == "its script failed: exit code 137 (it took more than the 700 MB that it had)"
