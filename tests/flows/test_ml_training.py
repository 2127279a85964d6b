"""The ml_training flow: killed while its workers are at work or while it keeps its model, run twice, and refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.dataframe.dispatch import make_meta
from sklearn.linear_model import LogisticRegression

import shoal
from shoal.errors import ShoalError, UsageError
from shoal.flows import ml_training
from shoal.flows.errors import EmptyInputError, ScriptError, TargetError, TrackingError
from shoal.flows.ml_training import Training, look
from shoal.flows.tracking import Tracker
from shoal.flows.training import _check_classes, choose, prepare
from shoal.tables.errors import ColumnNotFoundError, TableNotFoundError

# MLflow 3.17 uses of SQLAlchemy and Pydantic what their newest releases deprecate.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
HERE = Path(__file__).parent


def departures(rows: int = 300) -> pd.DataFrame:
    hours = np.arange(rows) % 24
    late = np.where(hours + np.arange(rows) % 3 > 15, "yes", "no").astype(object)
    late[0] = None
    return pd.DataFrame(
        {"at": [f"{hour:02}:30" for hour in hours], "late": late, "seats": np.arange(rows) % 7, "none": None}
    )


def run_of(uri: str, experiment: str = "delays") -> list[Any]:
    tracker = Tracker(uri, experiment)
    tracker.open()
    return list(tracker._client.search_runs([tracker._id]))


@pytest.mark.soak  # its page of the docs runs the flow, and test_etl.py kills one
def test_killed_while_its_workers_are_at_work_the_next_run_gives_one_model_until_one_trains_again(
    api: Any, project: Path, eventually: Callable[..., Any], marked: Callable[[], dict[int, str]]
) -> None:
    shoal.write_table(dd.from_pandas(departures().drop(columns="none"), npartitions=2), "nyc.departures")
    env = dict(os.environ, PREFECT_API_URL=api.url, DO_NOT_TRACK="1", PREFECT_LOGGING_LEVEL="WARNING")
    env["PREFECT_HOME"] = str(project.parent / "prefect")
    command = [sys.executable, str(HERE / "delays.py"), str(project)]
    (project / "hold").touch()
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:

        def working() -> bool:
            assert process.poll() is None, process.communicate()
            return (project / "reached").exists()

        try:
            eventually(working, 120, "a worker has a part")
        finally:
            process.kill()
    (project / "hold").unlink()
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    first, second, again, last = said
    assert [each["replayed"] for each in said] == [False, True, False, True]
    assert {**first, "replayed": True} == second
    assert {**again, "replayed": True} == last
    assert {**first, "model": "", "run_id": ""} == {**again, "model": "", "run_id": ""}
    assert first["metrics"]["accuracy"] > 0.7
    assert first["tracking"] == f"sqlite:///{project}/models/mlflow.db"
    found = {run.info.run_id: run for run in run_of(first["tracking"])}
    assert found.keys() == {first["run_id"], again["run_id"]}, "the newest counts, and the one before stays"
    run = found[first["run_id"]]
    assert run.data.tags["shoal.snapshot_id"] == str(first["snapshot_id"])
    assert run.inputs.dataset_inputs[0].dataset.name == "nyc.departures"
    assert [m for m in run.data.metrics if m.startswith("search")] == ["search_f1"]
    show = (
        "import sys, mlflow, pandas as pd\nmlflow.set_tracking_uri(sys.argv[1])\n"
        "m = mlflow.pyfunc.load_model(sys.argv[2])\n"
        "print(m.metadata.metadata['shoal.table'], *m.predict(pd.DataFrame({'seats': [1.0, 1], 'hour': [2.0, 23]})))"
    )
    shown = [sys.executable, "-c", show, first["tracking"], first["model"]]
    assert subprocess.check_output(shown, text=True, env=env).split() == ["nyc.departures", "no", "yes"]
    listed = subprocess.check_output([sys.executable, "-m", "shoal", "ls", "-o", "json"])
    for name in {cluster["name"] for cluster in json.loads(listed)}:
        subprocess.run(
            [sys.executable, "-m", "shoal", "down", name, "--yes"], check=True, capture_output=True
        )
    eventually(lambda: not marked(), 60, "its clusters have ended")


@pytest.mark.soak
def test_killed_between_any_two_calls_to_mlflow_no_half_run_stays(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "killed_keepers.py"), uri, "delays/nyc.flights@5/0"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["codes"] == [-9] * 4
    assert said["first"] == said["run_id"], "of two the first one stays"
    assert [(run.info.run_id, run.info.status) for run in run_of(uri)] == [(said["run_id"], "FINISHED")]
    tracker = Tracker(uri, "delays")
    tracker.open()
    found = tracker.find("delays/nyc.flights@5/0")
    assert found is not None
    assert (found.run_id, found.parameters) == (said["run_id"], {"deep": "1"})
    assert tracker.find("delays/nyc.flights@6/0") is None


def job(**options: Any) -> Training:
    given: dict[str, Any] = {"table": "nyc.departures", "target": "late", "task": "classification"}
    made = ml_training("delays", **(given | options))
    (found,) = (c.cell_contents for c in made.fn.__closure__ if isinstance(c.cell_contents, Training))
    return found


class Unpicklable:
    """An estimator that holds what cannot be sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    fit = predict = lambda self: None

    def get_params(self) -> dict[str, Any]:
        return {}


def test_what_is_wrong_is_told_before_a_cluster_is_started_and_nothing_is_written(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    frame = dd.from_pandas(departures(), npartitions=2)
    frame["none"] = frame["none"].astype("float64")
    shoal.write_table(frame, "nyc.departures")
    shoal.write_table(frame.loc[1:0], "nyc.empty")
    (tmp_path / "models.py").write_text("import socket\ndef make():\n    return 3\n")
    kept = f"sqlite:///{tmp_path}/mlflow.db"
    wrong: list[tuple[dict[str, Any], type[ShoalError], str]] = [
        ({"table": "nyc.departure"}, TableNotFoundError, "nyc.departure"),
        ({"table": "nyc.empty"}, EmptyInputError, "no row"),
        ({"target": "lat"}, ColumnNotFoundError, "lat"),
        ({"features": ["seat"]}, ColumnNotFoundError, "seat"),
        ({"task": "regression"}, TargetError, "cannot predict"),
        ({"features": ["at"]}, UsageError, "at .large_string. of nyc.departures"),
        ({"features": "features.py:features"}, ScriptError, "is not there"),
        ({"model": "models.py:built"}, ScriptError, "no function 'built'"),
        ({"model": "models.py:make"}, ScriptError, "not an estimator"),
        ({"search": {"max_dept": [3]}}, UsageError, "Did you mean 'max_depth'"),
        ({"model": LogisticRegression(), "parameters": {"c": 1}}, UsageError, "no parameter 'c'"),
        ({"model": Unpicklable()}, ScriptError, "cannot be sent to workers"),
        ({"tracking": "http://bob:secret@127.0.0.1:9"}, TrackingError, r"bob:\*\*\*@127.0.0.1:9"),
        ({"tracking": f"sqlite:///{tmp_path}/models.py/x/mlflow.db"}, TrackingError, "could not be used"),
    ]
    for options, kind, said in wrong:
        with pytest.raises(kind, match=said) as caught:
            look(job(**({"tracking": kept} | options)), tmp_path, None)
        assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert "secret" not in repr(job(tracking="http://bob:secret@127.0.0.1:9"))
    assert not (tmp_path / "mlflow.db").exists()
    for bad in (
        {"task": "guess"},
        {"model": "xgb"},
        {"test": 1},
        {"features": ["late"]},
        {"tracking": "mlflow.db"},
    ):
        with pytest.raises(UsageError):
            job(**bad)


def test_a_features_file_that_was_edited_and_other_bound_values_are_another_training(
    empty_home: Path, tmp_path: Path
) -> None:
    shoal.write_table(dd.from_pandas(departures(), npartitions=2), "nyc.departures")

    def key(end: int, text: str = "part[['seats', 'late']]", *, again: bool = False) -> str:
        text = f"from functools import partial\ndef of(part, end):\n    return {text}\nfirst = partial(of, end={end})\n"
        (tmp_path / "features.py").write_text(text)
        options = {"features": "features.py:first", "tracking": f"sqlite:///{tmp_path}/mlflow.db"}
        return look(job(**options), tmp_path, None, again=again).key

    first = key(2)
    assert first == key(2) == key(2, again=True)
    assert len({first, key(3), key(2, "part[['late', 'seats']]")}) == 3


def test_rows_are_numbers_in_two_parts_and_targets_go_with_the_task(empty_home: Path) -> None:
    rows = departures()
    frame = dd.from_pandas(rows.assign(late=rows.late.map({"no": 0, "yes": 2})), npartitions=3)
    columns = choose(make_meta(frame), "late", None, "nyc.departures")
    assert columns == ["seats"]
    made = prepare(frame, "late", columns, "classification", test=0.3, seed=1, workers=4)
    assert (made.number, made.dropped, made.train.npartitions) == (299, 1, 4)
    with pytest.raises(TargetError, match=r"classes of the target late are 0.0 and 2.0"):
        _check_classes(made)
    text = dd.from_pandas(rows, npartitions=1)
    with pytest.raises(TargetError, match="cannot predict"):
        prepare(text, "late", columns, "regression", test=0.3, seed=1, workers=1)
    with pytest.raises(EmptyInputError, match="too few"):
        prepare(text.loc[:1], "late", columns, "classification", test=0.3, seed=1, workers=1)
