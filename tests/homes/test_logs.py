"""A head's log in the form that a program reads, as detailed as whoever starts the cluster asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import shoal
from shoal.machine import paths


def test_a_head_writes_json_and_debugs_where_it_is_asked_to(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_LOG_FORMAT", "json")
    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        monkeypatch.setenv("SHOAL_LOG", "debug")  # too late for this one
        cluster.client.submit(print, "printed by a task").result()
        calm = (paths.run_folder(cluster.id) / "head.log").read_text().splitlines()
    told = [json.loads(line) for line in calm if line.startswith("{")]
    others = [line for line in calm if not line.startswith("{")]
    assert others == ["printed by a task"]
    assert any(line["logger"] == "shoal.homes" and "1 worker" in line["message"] for line in told), told
    assert {line["cluster"] for line in told} == {cluster.id}
    assert "debug" not in {line["level"] for line in told}
    assert any(line["logger"].startswith("distributed.") for line in told)
    assert any(line["logger"] == "distributed.worker" for line in told), "workers write as their head does"

    monkeypatch.delenv("SHOAL_LOG_FORMAT")
    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        cluster.scale(2)
        loud = (paths.run_folder(cluster.id) / "head.log").read_text()
    assert " - shoal.engines - DEBUG - workers wanted: " in loud
