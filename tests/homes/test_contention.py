"""Many processes on one SQLite ledger: no limit is exceeded at any moment, and nobody starves."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from shoal.client.clusters import open_home, open_project

PROCESSES = int(os.environ.get("SHOAL_TEST_PROCESSES", "8"))
SECONDS = float(os.environ.get("SHOAL_TEST_SECONDS", "6"))
LIMIT = 2  # clusters at once, of the test's tier


def test_no_limit_is_exceeded_and_each_gets_its_share(
    project: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """`make soak-queue` runs it with 32 processes for 60 s, and on a machine that does nothing else."""
    open_home(open_project(project))
    log = tmp_path / "events"
    command = [sys.executable, str(Path(__file__).with_name("contention.py"))]
    asking = [
        subprocess.Popen(
            [*command, str(project), str(SECONDS), str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for process in asking:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in asking:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [json.loads(process.communicate(timeout=SECONDS + 120)[0]) for process in asking]
    held = list(itertools.accumulate(1 if event == "+" else -1 for event in log.read_text()))
    decisions = [answer["decisions"] for answer in answers]
    measured = (
        f"{sum(decisions) / SECONDS:.0f} decisions/s by {PROCESSES} processes; "
        f"fewest {min(decisions)}, most {max(decisions)}; "
        f"longest wait {max(answer['longest'] for answer in answers):.2f} s; "
        f"{sum(answer['cpu'] for answer in answers) / sum(decisions) * 1000:.2f} ms of CPU each"
    )
    print(measured)
    record_property("measured", measured)
    assert max(held) == LIMIT, "the limit is reached"
    assert min(held) >= 0
    assert held[-1] == 0
    assert not open_home(open_project(project)).clusters()
    assert min(decisions) >= sum(decisions) / PROCESSES / 2, decisions
    if PROCESSES >= 32 and SECONDS >= 60:
        assert sum(decisions) / SECONDS >= 500
        assert max(answer["longest"] for answer in answers) <= 1
