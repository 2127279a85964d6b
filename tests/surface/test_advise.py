"""``shoal advise`` on a ledger with runs in it: what it says, what it writes, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.client.clusters import open_project
from shoal.homes.choose import open_home
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import Workload

COMMAND = str(Path(sys.executable).with_name("shoal"))


@pytest.fixture
def project(empty_home: Path, tmp_path: Path) -> Path:
    """A project folder as `shoal init` makes it, with nothing in its ledger."""
    subprocess.run([COMMAND, "init"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def ended(name: str, at: float, peak: int, **used: Any) -> None:
    """Note a run of ``etl`` that was Ready for ten minutes."""
    home = open_home(open_project())
    plan = shoal.plan("etl", workers=1)
    limit = int(plan.groups[0].there.memory)
    report = {"peak_worker_memory": peak, "worker_memory_limit": limit} | used
    record = Cluster(
        id=name,
        name=name,
        owner="alice",
        team=None,
        workload=Workload("etl"),
        plan=plan,
        state=State.READY,
        reason=Reason.SERVING,
        message="1 worker serves",
        since=at,
        created=at,
        admitted_at=at,
        ready_at=at,
        report=report,
    )
    with home.ledger.write() as tx:
        tx.now = at
        tx.insert(record)
        tx.now = at + 600
        tx.move(name, State.STOPPED, Reason.STOPPED_BY_USER, "closed by its user")


def advise(*arguments: str) -> Any:
    done = subprocess.run(
        [COMMAND, "advise", "etl", "-o", "json", *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_three_runs_give_an_estimate_that_is_written_only_when_asked_for(project: Path) -> None:
    file = project / "clusters" / "etl.yaml"
    before = file.read_text()
    for number in range(2):
        ended(f"run{number}", 1e9 + number, 700_000_000)
    assert advise()["memory"] is None, "two runs are no basis"
    ended("run2", 1e9 + 2, 900_000_000)
    said = advise()
    assert (said["memory"], said["runs"], said["estimate"]) == (2_000_000_000, 3, True)
    assert said["applied"] is None
    assert file.read_text() == before
    assert advise("--apply")["applied"] == str(file)
    assert file.read_text() == before.replace("memory: 14 GB", "memory: 2 GB")
    assert shoal.plan("etl").groups[0].size.memory == 2_000_000_000
    assert advise("--apply")["memory"] is None, "what was applied is not advised again"


def test_runs_that_spilled_or_lost_workers_are_left_out(project: Path) -> None:
    for number in range(3):
        ended(f"run{number}", 1e9 + number, 700_000_000, spilled=1 if number else 0)
    said = advise()
    assert said["memory"] is None
    assert len(said["left_out"]) == 2
    assert "spilled" in said["left_out"][0]
