"""The main job: real work, right results, nothing left behind. By the shipped deployment, too, in the soak."""

from __future__ import annotations

import itertools
import re
import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

# The first test waits for a whole run, on a busy machine for minutes.
pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_tables_are_what_they_claim(demo: Any) -> None:
    flights = demo.tables["nyc.flights"][2]
    assert (len(flights), int(flights["cancelled"].sum()), int(flights["dep_delay"].sum())) == (
        336_776,
        8_255,
        4_152_200,
    )
    report = demo.tables["nyc.carrier_report"][2].set_index("carrier")
    assert sorted(set(flights["carrier"]) - set(report.index)) == ["HA", "OO"], "Spark deleted the tiny ones"
    assert set(report["rating"]) == {"late", "on time"}, "Spark updated some"
    assert report.loc["EV", "rating"] == "late"
    assert report.loc["UA", "airline"] == "United Air Lines Inc."


def test_it_says_what_was_real_and_what_it_took(demo: Any) -> None:
    assert re.search(
        r"Dask in processes \[\d+, \d+\].* written by 2 workers, Spark in a JVM of process \d+", demo.out
    )
    assert "336,776 flights; counts and sums equal" in demo.out
    for phase in ("etl, dask", "analytics, spark", "read-back, dask"):
        assert phase in demo.out
    assert re.search(r"of 42\b|\b42 GB", demo.out), "how much of the quota it held; a cell may be wrapped"
    assert "worker-hours" in demo.out
    assert "$0.00" not in demo.out
    assert "0.00 USD" not in demo.out


def test_it_is_never_silent_for_long_and_never_noisy(demo: Any) -> None:
    times = [0.0, *(at for at, _ in demo.lines), demo.seconds]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) < 30, "something is waited for without a word"
    text = "\n".join(line for _, line in demo.lines)
    for noise in ("Traceback", "ERROR", "WARN", "telemetry", "Flow run"):
        assert noise not in text, text


def test_it_fits_in_8_gb_and_leaves_nothing_running(demo: Any) -> None:
    assert 0.5e9 < demo.peak < 8e9
    assert demo.left == []


def test_the_report_is_an_artifact_of_the_demos_own_prefect_too(demo: Any) -> None:
    """Its API is gone, so this looks into the database that it left."""
    with sqlite3.connect(demo.home / ".prefect" / "prefect.db") as connection:
        keys = {key for (key,) in connection.execute("select key from artifact")}
    connection.close()
    assert "nyc-flights" in keys


def test_its_prefect_tells_nobody_about_it(demo: Any) -> None:
    (environment,) = demo.servers
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"].lower() == "false"
    assert environment["DO_NOT_TRACK"] == "1"


def test_clusters_of_the_demo_are_gone_and_their_records_say_who_ended_them(demo: Any) -> None:
    from shoal.homes.local.ledger import Ledger

    with Ledger(f"sqlite:///{demo.home}/.local/share/shoal/ledger.db").read() as tx:
        clusters = tx.all()
    assert len(clusters) == 3
    assert {(c.state, c.reason) for c in clusters} == {("Stopped", "StoppedByUser")}
    assert len({c.tags["prefect.flow-run-id"] for c in clusters}) == 1
    assert {c.tags["prefect.flow"] for c in clusters} == {"nyc-flights"}
    assert not list(Path(demo.home, ".local/share/shoal/run").glob("*/endpoint.json"))


@pytest.mark.usefixtures("deployments")
def test_what_is_shipped_is_deployed(api: Any) -> None:
    names = {d["name"]: d for d in api.post("deployments/filter")}
    assert set(names) == {"demo", "nightly", "upkeep"}
    assert names["demo"]["pull_steps"][0].keys() == {"prefect.deployments.steps.set_working_directory"}
    assert [schedule["active"] for schedule in names["nightly"]["schedules"]] == [False]
    assert [schedule["active"] for schedule in names["upkeep"]["schedules"]] == [True]


@pytest.mark.soak
def test_the_shipped_deployment_completes_on_a_process_worker(deployed: Any, api: Any) -> None:
    assert deployed.flow_run["state"]["type"] == "COMPLETED"
    names = {d["name"]: d for d in api.post("deployments/filter")}
    assert deployed.flow_run["deployment_id"] == names["demo"]["id"]
    assert 0.5e9 < deployed.peak < 8e9
    assert deployed.left == []


@pytest.mark.soak
def test_the_report_of_each_cluster_and_of_the_run_are_artifacts(deployed: Any, api: Any) -> None:
    artifacts = api.artifacts(deployed.flow_run["id"])
    assert set(artifacts) == {"shoal-etl", "shoal-analytics", "shoal-read-back", "nyc-flights"}
    rows = [line.split("|") for line in artifacts["nyc-flights"].splitlines() if line.startswith("| ")][2:]
    assert [row[1].strip() for row in rows] == ["etl, dask", "analytics, spark", "read-back, dask"]
    for row in rows:
        assert re.search(r"[1-9]\d*(\.\d)? MB \([1-9]\d*%\)", row[4]), "a peak that was measured"
        assert row[5].strip() == "2 workers, 8 cores, 28 GB"
        assert "worker-hours" in row[6]
        assert "28 GB of 42 GB of memory" in row[7]


@pytest.mark.soak
def test_what_it_waits_for_is_in_prefects_logs_too(deployed: Any, api: Any) -> None:
    logs = api.post(
        "logs/filter", {"logs": {"flow_run_id": {"any_": [deployed.flow_run["id"]]}}, "limit": 200}
    )
    messages = "\n".join(entry["message"] for entry in logs)
    assert "Spark: nyc.delays, nyc.flights and nyc.airlines -> nyc.carrier_report" in messages
    assert re.search(r"analytics-[0-9a-f]{10}: Ready", messages)


@pytest.mark.soak
def test_a_second_run_gives_the_same_rows_in_the_same_tables_with_more_history(
    deployed: Any, demo: Any
) -> None:
    assert set(demo.tables) == {"nyc.flights", "nyc.delays", "nyc.airlines", "nyc.carrier_report"}
    for name, (uuid, snapshots, rows) in demo.tables.items():
        again_uuid, again_snapshots, again_rows = deployed.tables[name]
        assert again_uuid == uuid, name
        assert again_snapshots > snapshots, name
        pd.testing.assert_frame_equal(again_rows, rows)
