"""A person is told what is waited for: at the beginning, while it lasts, and at the end."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from shoal.display.progress import Lines, doing
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.units import Bytes, Seconds

SIZE = Size(1, Bytes(1))
PLAN = Plan(
    "etl",
    Engine.DASK,
    "local",
    SIZE,
    (Group("default", 1, 1, 1, SIZE, SIZE),),
    Timeouts(Seconds(1), Seconds(1), Seconds(1)),
)
CLUSTER = Cluster(
    "c", "n", "o", None, Workload("etl"), PLAN, State.STARTING, Reason.HEAD_STARTING, "starting", 0, 0
)


def test_a_wait_is_told_while_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    with doing("reading", still=0.05):
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reading ..."
    assert len([line for line in lines if line.startswith("reading ... ")]) >= 2
    assert lines[-1].startswith("reading: done in ")


def test_a_wait_that_fails_is_not_told_as_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ZeroDivisionError), doing("dividing"):
        _ = 1 / 0
    assert "done" not in capsys.readouterr().err


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with doing("reading", quiet=True):
        pass
    assert capsys.readouterr().err == ""


def test_a_cluster_is_told_at_each_change_and_again_while_nothing_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal.display.progress.STILL", 0.05)
    with Lines() as lines:
        lines.show(CLUSTER)
        lines.show(CLUSTER)
        time.sleep(0.1)
        lines.show(CLUSTER)
        lines.show(replace(CLUSTER, state=State.READY, message="serves"))
    told = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert told == ["n: Starting (starting)", "n: Starting (starting)", "n: Ready (serves)"]
