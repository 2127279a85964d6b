"""The demo's parts by themselves, without Prefect, without a cluster: through ``.fn`` and by their checks."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from shoal.demo import as_data, as_text, find_flow
from shoal.display.run_report import RunReport
from shoal.errors import NotFoundError
from shoal.project.loading import defaults
from shoal.units import Seconds


@pytest.fixture(scope="module")
def job() -> Iterator[ModuleType]:
    """The flow's module, loaded from its file."""
    spec = importlib.util.spec_from_file_location(
        "nyc_flights_parts", defaults() / "flows" / "nyc_flights.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_pieces_are_all_of_the_raw_flights_each_once(job: ModuleType) -> None:
    raw = pd.read_csv(job.data_folder() / "flights.csv.zip")
    pieces = [job.read_chunk(number, str(job.data_folder())) for number in range(job.CHUNKS)]
    whole = pd.concat(pieces, ignore_index=True)
    assert len(whole) == len(raw) == job.ROWS
    for column in ("month", "flight", "distance", "carrier", "tailnum"):
        assert whole[column].equals(raw[column]), column
    assert whole["dep_delay"].sum() == raw["dep_delay"].sum()
    assert whole["cancelled"].sum() == raw["dep_time"].isna().sum()
    assert str(whole["dep_time"].dtype) == "Int32", "missing times stay whole numbers"
    assert str(whole["time_hour"].dtype) == "datetime64[us, UTC]"
    assert {str(piece.dtypes.to_dict()) for piece in pieces} == {str(pieces[0].dtypes.to_dict())}


def test_what_is_expected_is_what_is_known_of_the_data(job: ModuleType) -> None:
    expected = job.expect.fn()
    months = expected["nyc.flights by month"]
    assert (months["flights"].sum(), months["cancelled"].sum()) == (336_776, 8_255)
    report = expected["nyc.carrier_report"]
    assert len(report) == 14  # 16 carriers, of which two have fewer than 500 flights
    assert sorted(report.loc[report["rating"] == "late", "carrier"]) == ["9E", "EV", "F9", "FL", "WN", "YV"]


def test_a_difference_fails_and_says_where(job: ModuleType) -> None:
    want = pd.DataFrame({"carrier": ["AA", "UA"], "flights": [1, 2]})
    job.compare("t", want.iloc[::-1], want)  # in any order
    job.compare("t", want.astype({"flights": "int64[pyarrow]"}), want)  # whatever holds the values
    wrong = {
        "a value": want.assign(flights=[1, 3]),
        "a row too few": want.head(1),
        "a row twice": pd.concat([want, want.head(1)]),
        "a missing value": want.assign(flights=pd.array([1, None], dtype="Int64")),
    }
    for frame in wrong.values():
        with pytest.raises(job.WrongResultError, match="not what pandas computed"):
            job.compare("t", frame, want)
    with pytest.raises(job.WrongResultError, match="columns"):
        job.compare("t", want.drop(columns="flights"), want)


def test_a_run_that_was_not_real_fails(job: ModuleType) -> None:
    import os

    job.assert_real([1, 2], ["tcp://a", "tcp://b"], 3)
    for pids, writers, jvm in (
        ([1], ["a", "b"], 3),
        ([1, os.getpid()], ["a", "b"], 3),
        ([1, 2], ["a"], 3),
        ([1, 2], ["a", "b"], 2),
        ([1, 2], ["a", "b"], 0),
        ([1, 2], ["a", "b"], os.getpid()),
    ):
        with pytest.raises(job.WrongResultError):
            job.assert_real(pids, writers, jvm)


def test_tables_that_were_replaced_or_did_not_grow_fail(job: ModuleType) -> None:
    job.assert_history({}, {"t": ("u", 1)})
    job.assert_history({"t": ("u", 1)}, {"t": ("u", 2)})
    with pytest.raises(job.WrongResultError, match="another table"):
        job.assert_history({"t": ("u", 1)}, {"t": ("v", 2)})
    with pytest.raises(job.WrongResultError, match="nothing was added"):
        job.assert_history({"t": ("u", 1)}, {"t": ("u", 1)})


def test_the_project_s_own_flow_comes_first_else_the_shipped_one(tmp_path: Path) -> None:
    assert find_flow(tmp_path) == defaults() / "flows" / "nyc_flights.py"
    own = tmp_path / "flows" / "nyc_flights.py"
    own.parent.mkdir()
    own.touch()
    assert find_flow(tmp_path) == own


def test_a_missing_flow_names_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.project.loading.defaults", lambda: tmp_path / "shipped")
    with pytest.raises(NotFoundError, match="shipped"):
        find_flow(tmp_path)


def test_the_demo_tells_the_same_to_people_and_to_programs() -> None:
    result = {
        "flow_run_id": "f",
        "artifact": "nyc-flights",
        "flights": 336_776,
        "tables": {"nyc.flights": {"uuid": "u-1", "snapshots": 2}},
        "real": {"worker_pids": [11, 12], "writers": ["a", "b"], "files": 19, "jvm_pid": 13},
    }
    text = as_text(result, RunReport("r", []), Seconds(75.0))
    for told in (
        "[11, 12]",
        "19 files",
        "written by 2 workers",
        "process 13",
        "336,776",
        "u-1",
        "1 min 15 s",
    ):
        assert told in text
    data = json.loads(as_data(result, RunReport("r", []), Seconds(75.0)))
    assert (data["tables"], data["seconds"], data["report"]["phases"]) == (result["tables"], 75.0, [])
