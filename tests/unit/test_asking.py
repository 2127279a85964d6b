"""What a person types becomes a workload, or one error that says everything wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal.errors import ShoalError, UnitError, UsageError, WorkloadError
from shoal.model.codec import plain, read
from shoal.model.workload import Engine, Workload
from shoal.planning.asking import ask, labels
from shoal.units import Bytes, Seconds


def test_values_as_people_write_them() -> None:
    asked = ask(
        "etl",
        engine="spark",
        data="25 GB",
        workers="2-10",
        cores="4",
        memory="14 GB",
        gpu=0,
        spot="50%",
        max_duration="4 h",
        idle="20 min",
        packages=["xgboost>=2", "a[b] @ https://example.org/a.whl"],
        queue=True,
    )
    assert asked == Workload(
        template="etl",
        engine=Engine.SPARK,
        data=Bytes(25 * 10**9),
        workers=(2, 10),
        cores=4,
        memory=Bytes(14 * 10**9),
        gpu=0,
        spot=0.5,
        max_duration=Seconds(4 * 3600),
        idle=Seconds(1200),
        packages=("xgboost>=2", "a[b] @ https://example.org/a.whl"),
        queue=True,
    )


@pytest.mark.parametrize(
    ("value", "workers"),
    [(3, 3), ("3", 3), ("2-10", (2, 10)), ((2, 10), (2, 10)), ([2, 2], (2, 2)), (None, None)],
)
def test_workers_are_a_number_or_a_range(value: Any, workers: object) -> None:
    assert ask("etl", workers=value).workers == workers


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({"data": 0}, WorkloadError, "data: 0 is not above 0"),
        ({"data": -1}, WorkloadError, "data: -1 is not above 0"),
        ({"data": "0 B"}, WorkloadError, "data: 0 B is not above 0"),
        ({"data": "-1 GB"}, UnitError, "data: '-1 GB' is negative"),
        ({"data": 25}, UnitError, "data: 25 has no unit"),
        ({"memory": "14"}, UnitError, "memory: '14' has no unit"),
        ({"memory": "1 MB"}, WorkloadError, "memory: 1 MB per worker is too little"),
        ({"workers": 0}, WorkloadError, "workers: 0 is below 1"),
        ({"workers": "-3"}, WorkloadError, "workers: -3 is below 1"),
        ({"workers": "10-2"}, WorkloadError, "workers: the minimum 10 is above the maximum 2"),
        ({"workers": "2-4-6"}, WorkloadError, "workers: '2-4-6' is not a number of workers"),
        ({"workers": 2.5}, WorkloadError, "workers: 2.5 is not a number of workers"),
        ({"workers": True}, WorkloadError, "workers: True is not a number of workers"),
        ({"cores": 0}, WorkloadError, "cores: 0 is below 1"),
        ({"gpu": -1}, WorkloadError, "gpu: -1 is below 0"),
        ({"spot": 50}, UnitError, "spot: 50 is not between 0% and 100%"),
        ({"max_duration": "0 s"}, WorkloadError, "max_duration: 0 ms is not above 0"),
        ({"engine": "sprak"}, WorkloadError, "engine: there is no engine 'sprak'\nDid you mean 'spark'"),
        (
            {"packages": "--index-url=https://evil"},
            WorkloadError,
            "packages: '--index-url=https://evil' is not",
        ),
    ],
)
def test_a_value_that_makes_no_sense_says_which_and_why(
    asked: dict[str, Any], kind: type[ShoalError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        ask("etl", **asked)
    assert isinstance(caught.value, UsageError)
    assert said in str(caught.value)
    assert list(caught.value.values["faults"]) == list(asked)


def test_tags_are_names_with_values() -> None:
    assert labels({"project": "churn", "run": 5}) == {"project": "churn", "run": "5"}
    for wrong in (["project"], "project", {"project": None}, {5: "x"}):
        with pytest.raises(WorkloadError, match="tags"):
            labels(wrong)


def test_all_faults_are_said_at_once() -> None:
    with pytest.raises(WorkloadError) as caught:
        ask("etl", data=0, memory="14", workers="0-2", cores=0)
    assert set(caught.value.values["faults"]) == {"data", "memory", "workers", "cores"}


@pytest.mark.parametrize(
    ("function", "wrong", "said"),
    [
        (shoal.dask, {"n_workers": 2}, "shoal.dask() has no option 'n_workers'\nDid you mean workers=?"),
        (shoal.spark, {"executor_memory": "2 GB"}, "option 'executor_memory'\nDid you mean memory=?"),
        (shoal.up, {"idle_timeout": "1 h"}, "shoal.up() has no option 'idle_timeout'\nDid you mean idle=?"),
        (shoal.plan, {"worker_memory": "2 GB"}, "shoal.plan() has no option 'worker_memory'\nDid"),
        (shoal.dask, {"wrokers": 2}, "Did you mean 'workers'? Known: cores, data, "),
        (shoal.dask, {"n_workers": 2, "nthreads": 1}, "n_workers: did you mean workers=?\nnthreads: did"),
    ],
)  # fmt: skip
def test_spellings_of_others_are_answered_with_ours(
    empty_home: Path, function: Any, wrong: dict[str, Any], said: str
) -> None:
    """People come from Dask's, Coiled's and Spark's own names."""
    with pytest.raises(UsageError) as caught:
        function("etl", **wrong)
    assert said.lower() in str(caught.value).lower()
    assert set(caught.value.values["faults"]) == set(wrong)


@given(
    st.builds(
        Workload,
        template=st.text(min_size=1),
        engine=st.none() | st.sampled_from(Engine),
        data=st.none() | st.integers(1, 10**15).map(Bytes),
        workers=st.none() | st.integers(1, 99) | st.tuples(st.integers(1, 9), st.integers(9, 99)),
        gpu=st.none() | st.integers(0, 8),
        spot=st.none() | st.floats(0, 1),
        idle=st.none() | st.floats(1, 1e6).map(Seconds),
        packages=st.lists(st.text()).map(tuple),
        queue=st.booleans(),
    )
)
def test_a_workload_survives_json(asked: Workload) -> None:
    again = read(Workload, json.loads(json.dumps(plain(asked))))
    assert again == asked
    assert type(again.data) is type(asked.data)
