"""Where a flow keeps what it trained: MLflow, in a file of the user's or on a server.

Why it exists: a run of MLflow is made in several calls, and a flow may be killed between any two. It is written in one
stage, when all is known, and counts once it is FINISHED; what a killed one left is taken away by the next.

What it must not do: train, or know Prefect; import MLflow before it is needed.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shoal.errors import MissingExtraError, UsageError
from shoal.flows.errors import ScriptError, TrackingError
from shoal.flows.training import Trained
from shoal.machine.paths import data_folder, make_private
from shoal.machine.processes import identity, is_alive
from shoal.tables.catalogs.opening import without_password

KEY, TABLE, SNAPSHOT, WRITER = "shoal.run_key", "shoal.table", "shoal.snapshot_id", "shoal.writer"
_FILE = "sqlite:///"
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # its own seven take minutes until a server that is away is told
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with its password
    "GIT_PYTHON_REFRESH": "quiet",  # there may be no git
}
_OLD = 3600.0
"""s after which an unfinished run whose writer cannot be asked after counts as dead."""


@dataclass(frozen=True)
class Kept:
    """A training that MLflow has."""

    run_id: str
    metrics: Mapping[str, float]
    parameters: Mapping[str, str]

    @property
    def model(self) -> str:
        """Where its model is, as MLflow's ``load_model`` takes it."""
        return f"runs:/{self.run_id}/model"


def check(tracking: object) -> None:
    """UsageError for what cannot be a place of MLflow's."""
    if tracking is None or (isinstance(tracking, str) and re.match(r"https?://[^/]|sqlite:///.", tracking)):
        return
    shown = without_password(tracking) if isinstance(tracking, str) else repr(tracking)
    raise UsageError(
        f"tracking={shown} is neither a server's URL nor a file",
        hint="'https://mlflow.example.com', or 'sqlite:///mlflow.db' for a file below the project folder; by default "
        "MLFLOW_TRACKING_URI says it, or it is a file of yours.",
    )


def place(tracking: str | None, folder: Path) -> str:
    """MLflow's URI: as given, as the environment says, or a file in the user's data folder."""
    found = tracking or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not found:
        return f"{_FILE}{make_private(data_folder()) / 'mlflow' / 'mlflow.db'}"
    check(found)
    if found.startswith(_FILE):
        return f"{_FILE}{folder / Path(found.removeprefix(_FILE)).expanduser()}"
    return found


class Tracker:
    """One experiment."""

    def __init__(self, uri: str, experiment: str) -> None:
        for setting, wanted in _SETTINGS.items():
            os.environ.setdefault(setting, wanted)
        try:
            from mlflow.tracking import MlflowClient
        except ModuleNotFoundError as error:
            raise MissingExtraError.of("shoal.flows.ml_training", "MLflow", "ml") from error
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # that it makes its tables
        logging.getLogger("mlflow.sklearn").setLevel(logging.ERROR)  # that a pickle is one
        self.uri, self.experiment, self._client_of = uri, experiment, MlflowClient

    @property
    def shown(self) -> str:
        """The place without its password."""
        return without_password(self.uri)

    def open(self) -> None:
        """Have the experiment. TrackingError."""
        with self._told():
            artifacts = self._made_file() if self.uri.startswith(_FILE) else None
            self._client = self._client_of(self.uri)
            found = self._client.get_experiment_by_name(self.experiment)
            if found is None:
                place = f"{artifacts.as_uri()}/{_safe(self.experiment)}" if artifacts is not None else None
                self._id = self._client.create_experiment(self.experiment, artifact_location=place)
                return
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"the experiment {self.experiment} of {self.shown} was deleted",
                hint="Restore it there, or give another name: experiment='...'.",
                tracking=self.shown,
            )
        self._id = found.experiment_id

    def find(self, key: str) -> Kept | None:
        """What was trained under this key; of several the first. TrackingError."""
        with self._told():
            runs = [run for run in self._runs(key) if run.info.status == "FINISHED"]
        if not runs:
            return None
        first = min(runs, key=lambda run: (run.info.end_time or 0, run.info.run_id))
        metrics = {
            name: value for name, value in first.data.metrics.items() if not name.startswith("search_")
        }
        return Kept(first.info.run_id, metrics, dict(first.data.params))

    def keep(self, key: str, name: str, trained: Trained, metric: str, tags: Mapping[str, Any]) -> Kept:
        """Write all of it, or nothing that counts; what an earlier writer has under this key stays the one.

        Raises TrackingError, ScriptError for a model that cannot be saved.
        """
        with tempfile.TemporaryDirectory(prefix="shoal-model-") as folder:
            _save(trained, Path(folder), tags)
            with self._told():
                self._drop_dead(key)
                run = self._write(key, name, trained, metric, tags, folder)
        found = self.find(key)
        if found is not None and found.run_id != run:
            with self._told():
                self._client.delete_run(run)
        return found or Kept(run, trained.metrics, {k: str(v) for k, v in trained.parameters.items()})

    def _write(
        self, key: str, name: str, trained: Trained, metric: str, tags: Mapping[str, Any], folder: str
    ) -> str:
        from mlflow.entities import Dataset, DatasetInput, Metric, Param

        table, snapshot = str(tags[TABLE]), str(tags[SNAPSHOT])
        writer = json.dumps(identity())
        told = {KEY: key, WRITER: writer, **{tag: str(value) for tag, value in tags.items()}}
        run: str = self._client.create_run(self._id, tags=told, run_name=name).info.run_id
        try:
            now = int(time.time() * 1000)
            found = [Metric(name, value, now, 0) for name, value in trained.metrics.items()]
            scores = [score for _, score in trained.tried]
            found += [Metric(f"search_{metric}", s, now, i) for i, s in enumerate(scores) if s == s]
            params = [Param(name, str(value)[:500]) for name, value in trained.parameters.items()]
            for start in range(0, len(found), 500):
                self._client.log_batch(run, metrics=found[start : start + 500])
            self._client.log_batch(run, params=params)
            source = json.dumps({"table": table, "snapshot_id": snapshot})
            self._client.log_inputs(run, [DatasetInput(Dataset(table, snapshot, "iceberg", source))])
            self._client.log_artifacts(run, folder)
            self._client.set_terminated(run, "FINISHED")
        except BaseException:
            with suppress(Exception):
                self._client.delete_run(run)
            raise
        return run

    def _runs(self, key: str) -> list[Any]:
        return list(self._client.search_runs([self._id], f"tags.`{KEY}` = '{key}'"))

    def _drop_dead(self, key: str) -> None:
        """Delete unfinished runs whose writer is gone."""
        for run in self._runs(key):
            lives = is_alive(json.loads(run.data.tags.get(WRITER, "{}")))
            old = time.time() - run.info.start_time / 1000 > _OLD
            if run.info.status != "FINISHED" and (lives is False or (lives is None and old)):
                self._client.delete_run(run.info.run_id)

    def _made_file(self) -> Path:
        """Where the artifacts of a file go; the file is made whole, or not at all."""
        file = Path(self.uri.removeprefix(_FILE))
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if not file.exists():
                made = file.with_name(f".{file.name}.new")
                made.unlink(missing_ok=True)
                self._client_of(f"{_FILE}{made}").search_experiments(max_results=1)
                made.replace(file)
        finally:
            os.close(folder)
        return file.parent / f"{file.stem}-artifacts"

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (TrackingError, UsageError):
            raise
        except Exception as error:  # MLflow's own, of its HTTP library, of SQLAlchemy or of the file system
            raise TrackingError(
                f"MLflow at {self.shown} could not be used: {_first_line(error)}",
                hint="Is it there, and may you write to it? Nothing was kept; run again once it answers.",
                tracking=self.shown,
            ) from error


def _first_line(error: BaseException) -> str:
    said = str(error).strip().splitlines() or [""]
    return re.sub(r"//[^/@\s]*@", "//***@", said[0])[:300] or type(error).__name__


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _save(trained: Trained, folder: Path, tags: Mapping[str, Any]) -> None:
    """The model in MLflow's form, and what the search saw. ScriptError."""
    import mlflow.sklearn
    import mlflow.xgboost
    import xgboost
    from mlflow.models import infer_signature

    model, sample = trained.model, trained.sample
    how: dict[str, Any] = {"metadata": {name: str(value) for name, value in tags.items()}}
    names = ["scikit-learn", "pandas"]
    if isinstance(model, xgboost.XGBModel):
        write, names = mlflow.xgboost.save_model, ["xgboost", *names]
    else:
        write, how["serialization_format"] = mlflow.sklearn.save_model, "cloudpickle"
        names.append("cloudpickle")
    how["pip_requirements"] = [f"{name}=={_version(name)}" for name in names]
    try:
        if sample is not None and len(sample):
            how["signature"] = infer_signature(sample, model.predict(sample))
        write(model, str(folder / "model"), **how)
    except Exception as error:  # whatever it refers to may refuse in its own way
        raise ScriptError(
            f"the trained model, a {type(model).__name__}, cannot be saved: {_first_line(error)}",
            hint="A model is kept as a pickle: open files, locks and connections do not belong in it.",
        ) from error
    if trained.tried:
        told = [{"parameters": dict(each), "score": score} for each, score in trained.tried]
        (folder / "search.json").write_text(json.dumps(told, indent=1, default=str))


def _version(name: str) -> str:
    if name == "xgboost":
        import xgboost

        return str(xgboost.__version__)
    return version(name)
