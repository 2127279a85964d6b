"""docs/how-to/flows.md is run from its first line to its last, against a Prefect server."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "test_examples.py"


@pytest.mark.slow
@pytest.mark.spark
def test_the_examples_of_the_page_run(
    api: Any,
    empty_home: Path,
    tmp_path: Path,
    marked: Callable[[], dict[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = importlib.util.spec_from_file_location("examples_of_docs", EXAMPLES)
    assert spec is not None
    assert spec.loader is not None
    examples = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, examples)
    spec.loader.exec_module(examples)
    prefect = {"PREFECT_API_URL": api.url, "PREFECT_HOME": str(empty_home / "prefect"), "DO_NOT_TRACK": "1"}
    of_sales = {"flows": {"name": {"any_": ["sales"]}}, "sort": "START_TIME_ASC"}
    before = {run["id"] for run in api.post("flow_runs/filter", of_sales)}  # of other tests
    examples.run_page("docs/how-to/flows.md", tmp_path / "project", {**os.environ, **prefect})
    run, again = (each for each in api.post("flow_runs/filter", of_sales) if each["id"] not in before)
    assert {run["state"]["type"], again["state"]["type"]} == {"COMPLETED"}
    assert {"sales-result", "sales-clusters"} <= set(api.artifacts(run["id"]))
    assert not api.artifacts(again["id"]), "nothing was new, and no cluster was started"
    of_daily = {"flows": {"name": {"any_": ["daily"]}}, "sort": "START_TIME_DESC"}
    (report, *_) = api.post("flow_runs/filter", of_daily)
    assert {"daily-report", "daily-clusters"} <= set(api.artifacts(report["id"]))
    assert (tmp_path / "project" / "reports" / "daily" / "2026-11-29.html").is_file()
    assert not marked()
