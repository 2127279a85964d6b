"""The analytics flow of test_analytics.py. Run by tests, never imported.

python weather_report.py PROJECT FIRST LAST     runs it for these dates; a line of JSON of what it gave
"""

import datetime as dt
import json
import sys
import time
from pathlib import Path

import shoal
from shoal.flows import Plot, analytics

folder, first, last = sys.argv[1:]
held, reached = Path(folder, "hold"), Path(folder, "reached")


def extremes(date: dt.date, warm: float) -> object:
    """Runs on Dask, after the query on Spark: it reads what that wrote."""
    while held.exists():
        reached.touch()
        time.sleep(0.05)
    rows = shoal.read_table("weather.by_origin", filters=[("day", "==", date)])
    return rows[rows.temp > warm][["origin", "temp"]]


weather = analytics(
    "weather",
    steps=["sql/", extremes],
    output="weather",
    by="day",
    parameters={"warm": 40.0},
    plots=[
        Plot("by_origin", x="day", y="temp", color="origin"),
        Plot("by_origin", x="origin", y=["temp", "wind"], kind="bar", title="<By> origin"),
    ],
    template="small",
    cluster={"workers": 1, "quiet": True},
)
given = [dt.date.fromisoformat(each) for each in (first, last)]
print(json.dumps(weather(date=given[0], until=given[1], project=folder)), flush=True)
