"""Trainings in MLflow: several at once, again, killed in between, and places that are refused."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from sklearn.linear_model import LinearRegression

from shoal.errors import UsageError
from shoal.flows import tracking
from shoal.flows.errors import TrackingError
from shoal.flows.tracking import NUMBER, SNAPSHOT, TABLE, WRITER, Kept, Tracker
from shoal.flows.training import Trained
from shoal.machine.processes import identity, process_space

# MLflow 3.17 uses of SQLAlchemy and Pydantic what their newest releases deprecate.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning"),  # of its own classes, at its import
]
KEY = "delays/nyc.flights@5/0"
ROWS = pd.DataFrame({"a": np.arange(5.0)})
TAGS = {TABLE: "nyc.flights", SNAPSHOT: 5}


def trained(error: float = 0.0, parameters: int = 1) -> Trained:
    named = {f"p{number}": number for number in range(parameters)}
    return Trained(LinearRegression().fit(ROWS, ROWS.a), named, {"rmse": error}, (), ROWS)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def opened(uri: str, request: pytest.FixtureRequest) -> Callable[[], Tracker]:
    """Gives trackers of one experiment, which is this test's."""

    def made() -> Tracker:
        tracker = Tracker(uri, request.node.name)
        tracker.open()
        return tracker

    return made


def keep(tracker: Tracker, error: float = 0.0, again: str = "", parameters: int = 1) -> Kept:
    return tracker.keep(KEY, "delays", trained(error, parameters), "rmse", TAGS, again)


def runs(tracker: Tracker) -> dict[str, str]:
    return {run.info.run_id: run.info.status for run in tracker._search("")}


def half_run(tracker: Tracker, writer: dict[str, Any], **more: Any) -> str:
    """A run as one leaves it that is killed while it writes; of another key."""
    tags = {tracking.KEY: "delays/nyc.flights@4/0", WRITER: json.dumps(writer)}
    return str(tracker._client.create_run(tracker._id, tags=tags, **more).info.run_id)


def test_trained_again_the_newest_counts_and_the_one_before_stays(opened: Callable[[], Tracker]) -> None:
    tracker = opened()
    first = keep(tracker, 1.0)
    assert tracker.find(KEY, again="second") is None, "it is to train"
    second = keep(tracker, 2.0, again="second")
    third = keep(opened(), 3.0, again="third")
    assert len({first.run_id, second.run_id, third.run_id}) == 3
    assert tracker.find(KEY) == third
    assert tracker.find(KEY, again="second") == second, "a flow run that is tried again has its own"
    assert runs(tracker) == dict.fromkeys((first.run_id, second.run_id, third.run_id), "FINISHED")
    tracker._client.delete_run(third.run_id)
    assert tracker.find(KEY) == second


@pytest.mark.parametrize("call", ["log_artifacts", "set_terminated"])
def test_of_two_that_train_the_same_at_once_one_stays_and_both_say_which(
    opened: Callable[[], Tracker], call: str
) -> None:
    """The second one, by a clock that is ahead, finishes before the first is about to; or just before the first."""
    tracker = opened()
    others = []

    class Overtaken(MlflowClient):  # type: ignore[misc]
        pass

    def after_another(self: Any, *given: Any, **named: Any) -> Any:
        others.append(keep(opened(), 2.0))
        if call == "log_artifacts":
            tracker._client.set_terminated(others[0].run_id, end_time=int(time.time() * 1000) + 3_600_000)
        return getattr(MlflowClient, call)(self, *given, **named)

    setattr(Overtaken, call, after_another)
    tracker._client = Overtaken(tracker.uri)
    kept = keep(tracker, 1.0)
    assert [kept] == others
    assert tracker.find(KEY) == kept
    assert runs(tracker) == {kept.run_id: "FINISHED"}


def test_two_that_make_the_experiment_at_once_both_have_it(opened: Callable[[], Tracker], uri: str) -> None:
    first = Tracker(uri, "made at once")

    class Overtaken(MlflowClient):  # type: ignore[misc]
        def create_experiment(self, name: str, *given: Any, **named: Any) -> Any:
            Tracker(uri, name).open()
            return super().create_experiment(name, *given, **named)

    first._client_of = Overtaken
    first.open()
    assert first._client.get_experiment(first._id).name == "made at once"


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_what_dead_writers_left_goes_whatever_they_trained_and_what_living_ones_write_stays(
    opened: Callable[[], Tracker], other: subprocess.Popen[bytes]
) -> None:
    tracker = opened()
    lives = {**identity(other.pid), "space": process_space()}
    writing = half_run(tracker, lives)
    elsewhere = half_run(tracker, {**lives, "host": "another"})
    unseen = half_run(tracker, {**lives, "space": "pid:[1]"})
    begun = int((time.time() - 2 * tracking._OLD) * 1000)
    half_run(tracker, {**lives, "host": "another"}, start_time=begun)
    foreign = str(tracker._client.create_run(tracker._id).info.run_id)
    assert tracker.find(KEY) is None
    assert runs(tracker).keys() == {writing, elsewhere, unseen, foreign}
    other.kill()
    other.wait()
    assert tracker.find(KEY) is None
    assert runs(tracker).keys() == {elsewhere, unseen, foreign}


def test_killed_before_it_took_back_the_second_of_two_the_next_run_does(
    opened: Callable[[], Tracker],
) -> None:
    tracker = opened()
    kept = keep(tracker)
    told = {tracking.KEY: KEY, NUMBER: "0", WRITER: "{}"}
    second = tracker._client.create_run(tracker._id, tags=told).info.run_id
    tracker._client.set_terminated(second, "FINISHED")
    assert tracker.find(KEY) == kept
    assert runs(tracker) == {kept.run_id: "FINISHED"}


def test_a_model_of_hundreds_of_parameters_is_kept_with_all_of_them(opened: Callable[[], Tracker]) -> None:
    assert len(keep(opened(), parameters=250).parameters) == 250


@pytest.mark.parametrize("secret", ["secret", "s%40cret", "sec@zzq", "sec/zzq"])
def test_a_password_is_in_no_text_that_is_logged_or_stored(
    secret: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = Tracker(f"http://bob:{secret}@127.0.0.1:9", "delays")
    with caplog.at_level(logging.DEBUG), pytest.raises(TrackingError) as caught:
        tracker.open()
    said = [*traceback.format_exception(caught.value), caplog.text, repr(tracker), repr(caught.value.values)]
    for text in (secret, secret.partition("@")[2] or secret, secret.replace("%40", "@")):
        assert text not in "".join(said)
    assert "bob:***@127.0.0.1:9" in str(caught.value)


def test_the_variable_of_mlflow_is_taken_as_mlflow_does_and_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert tracking.place(None, project) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking.place("sqlite:///mlflow.db", project) == f"sqlite:///{project}/mlflow.db"
    for value in ("databricks", "file:/mlruns", "postgresql://bob:secret@db/mlflow"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", value)
        with pytest.raises(UsageError, match=r"^MLFLOW_TRACKING_URI=\w+") as caught:
            tracking.place(None, project)
        assert "secret" not in str(caught.value)
        assert tracking.place("http://localhost:5000", project) == "http://localhost:5000"
