"""``shoal submit`` at a home that runs scripts itself: the same words, and nobody has to stay.

The home is the guest's, with real heads, the real program that runs scripts, and a person in another folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Eventually = Callable[..., Any]
SCRIPT = """
import sys, time, shoal, helpers
print("begun", *sys.argv[1:], flush=True)
cluster = shoal.dask("small")
print(cluster.name, cluster.client.submit(helpers.double, 21).result(), flush=True)
begun = cluster.record.plan.timeouts.max
while cluster.record.plan.timeouts.max == begun:
    time.sleep(0.1)
print("last words")
sys.exit(7)
"""


@pytest.fixture
def beside(guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A person's folder with a script and a module, elsewhere than where they are and than their project."""
    entries = tmp_path / "installed" / "guest_home-1.0.dist-info" / "entry_points.txt"
    text = entries.read_text().replace("[shoal.desks]", "beside = guest_scripts:ScriptHome\n[shoal.desks]")
    entries.write_text(text)
    file = guest / "shoal.yaml"
    file.write_text(file.read_text().replace("home: guest", "home: beside"))
    for name, content in {"job.py": SCRIPT, "helpers.py": "def double(x): return 2 * x\n"}.items():
        (tmp_path / "work").mkdir(exist_ok=True)
        (tmp_path / "work" / name).write_text(content)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("SHOAL_PROJECT", str(guest))
    yield tmp_path / "work"
    begin("down", "--all", "--yes").communicate(timeout=120)


def begin(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "shoal", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shoal(*words: str, code: int = 0) -> str:
    process = begin(*words)
    out, err = process.communicate(timeout=180)
    assert process.returncode == code, (words, out, err)
    return out


def submit(*words: str, lines: int = 2) -> tuple[subprocess.Popen[str], list[str]]:
    """One whose script has written so many lines."""
    process = begin(
        "submit",
        "../work/job.py",
        "--template",
        "small",
        "--engine",
        "dask",
        "--workers",
        "1",
        "--yes",
        *words,
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    assert all(said), process.communicate(timeout=60)
    return process, said


def test_a_script_outlives_its_terminal_and_its_exit_code_comes_to_whoever_waits(beside: Path) -> None:
    terminal, said = submit("--name", "nightly", "--", "--month", "3")
    assert said == ["begun --month 3\n", "nightly 42\n"]
    terminal.send_signal(signal.SIGHUP)
    terminal.communicate(timeout=60)
    assert terminal.returncode == 128 + signal.SIGHUP
    follows, waits = begin("logs", "nightly", "--follow"), begin("wait", "nightly", "-o", "json")
    assert follows.stdout is not None
    assert [follows.stdout.readline() for _ in said] == said
    (live,) = json.loads(shoal("ls", "-o", "json"))
    assert (live["name"], live["state"], live["exit_code"]) == ("nightly", "Ready", None)
    shoal("extend", "nightly", "+1 h")
    out, err = waits.communicate(timeout=120)
    assert (waits.returncode, json.loads(out)["exit_code"]) == (7, 7), err
    out, err = follows.communicate(timeout=120)
    assert (follows.returncode, out) == (0, "last words\n"), err
    why = json.loads(shoal("why", "nightly", "-o", "json"))
    assert (why["exit_code"], why["message"]) == (7, "its script failed: exit code 7")
    assert json.loads(shoal("report", "nightly", "-o", "json"))["exit_code"] == 7
    assert shoal("logs", "nightly", "--lines", "1") == "last words\n"
    refused = begin("submit", "../work/job.py", "--template", "small", "--engine", "spark", "--yes")
    assert "run beside Dask clusters" in refused.communicate(timeout=120)[1]
    assert refused.returncode == 2


def test_ctrl_c_and_down_end_a_script_as_they_do_at_home(beside: Path) -> None:
    process, _ = submit("--name", "interrupted", "-o", "json", lines=0)
    assert process.stderr is not None
    while (line := process.stderr.readline()) != "interrupted 42\n":  # with -o json it writes there
        assert line, process.communicate(timeout=60)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    process, _ = submit("--name", "down")
    shoal("down", "down")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "down ended before its script: StoppedByUser: ended by `shoal down`" in err
    rows = {row["name"]: row for row in json.loads(shoal("ls", "--all", "-o", "json"))}
    assert (rows["interrupted"]["message"], rows["interrupted"]["exit_code"]) == (
        "its script failed: exit code 130",
        130,
    )
    assert (rows["down"]["exit_code"], rows["down"]["result"]) == (None, "ended")
    assert not [each for each in os.listdir() if each], "nothing is left where they are"
