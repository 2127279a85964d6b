"""Where a flow keeps what it trained: MLflow, in a file of the user's or on a server.

Why it exists: a run of MLflow is made in several calls, and a flow may be killed between any two. It is written in one
stage, when all is known, and counts once it is FINISHED; what a killed one left is taken away by the next. No clock
decides which is the newest: each that replaces others has the next number.

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
from urllib.parse import unquote

from shoal.errors import MissingExtraError, UsageError
from shoal.flows.errors import ScriptError, TrackingError
from shoal.flows.training import Trained
from shoal.machine.paths import data_folder, make_private
from shoal.machine.processes import identity, is_alive, process_space
from shoal.tables.catalogs.opening import without_password

KEY, TABLE, SNAPSHOT, WRITER = "shoal.run_key", "shoal.table", "shoal.snapshot_id", "shoal.writer"
NUMBER, AGAIN = "shoal.training", "shoal.again"
"""Which training of the same settings it is, from 0 on, and the flow run that asked for it although one was there."""
_FILE = "sqlite:///"
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # its own seven take minutes until a server that is away is told
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with its password
    "GIT_PYTHON_REFRESH": "quiet",  # there may be no git
}
_OLD = 86400.0
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
    if tracking is None or _is_place(tracking):
        return
    shown = without_password(tracking) if isinstance(tracking, str) else repr(tracking)
    raise UsageError(
        f"tracking={shown} is neither a server's URL nor a file",
        hint="'https://mlflow.example.com', or 'sqlite:///mlflow.db' for a file below the project folder; by default "
        "MLFLOW_TRACKING_URI says it, or it is a file of yours.",
    )


def place(tracking: str | None, folder: Path) -> str:
    """MLflow's URI: as given, as the environment says, or a file in the user's data folder. UsageError."""
    found = tracking or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not found:
        return f"{_FILE}{make_private(data_folder()) / 'mlflow' / 'mlflow.db'}"
    if not _is_place(found):
        raise UsageError(
            f"MLFLOW_TRACKING_URI={without_password(found)} is neither a server's URL nor a file of SQLite",
            hint="export MLFLOW_TRACKING_URI=https://mlflow.example.com; or give the flow "
            "tracking='sqlite:///mlflow.db', which comes before the variable.",
        )
    if not found.startswith(_FILE):
        return found
    file = Path(found.removeprefix(_FILE))
    # What the variable names is where MLflow's own programs find it.
    return f"{_FILE}{folder / file.expanduser() if tracking else Path.cwd() / file}"


def _is_place(found: object) -> bool:
    return isinstance(found, str) and re.match(r"https?://[^/]|sqlite:///.", found) is not None


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
                found = self._made_experiment(artifacts)
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"the experiment {self.experiment} of {self.shown} was deleted",
                hint="Restore it there, or give another name: experiment='...'.",
                tracking=self.shown,
            )
        self._id = found.experiment_id

    def find(self, key: str, again: str = "") -> Kept | None:
        """The newest training under this key, or that of the flow run ``again``. TrackingError."""
        with self._told():
            there = self._settle(key)
        return next((_kept(run) for run in reversed(there) if again in ("", run.data.tags.get(AGAIN))), None)

    def keep(
        self,
        key: str,
        name: str,
        trained: Trained,
        metric: str,
        tags: Mapping[str, Any],
        again: str = "",
    ) -> Kept:
        """Write all of it, or nothing that counts; what another has written meanwhile stays the one.

        ``again`` is the flow run that replaces what is there. Raises TrackingError, ScriptError for a model that cannot
        be saved.
        """
        with tempfile.TemporaryDirectory(prefix="shoal-model-") as folder:
            _save(trained, Path(folder), tags)
            with self._told():
                number = max((_number(run) + 1 for run in self._settle(key)), default=0) if again else 0
                told = {KEY: key, NUMBER: number, **({AGAIN: again} if again else {}), **tags}
                self._write(name, trained, metric, told, folder)
                (run,) = (run for run in self._settle(key) if _number(run) == number)
        return _kept(run)

    def _write(self, name: str, trained: Trained, metric: str, tags: Mapping[str, Any], folder: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, Metric, Param

        table, snapshot = str(tags[TABLE]), str(tags[SNAPSHOT])
        writer = json.dumps({**identity(), "space": process_space()})
        told = {WRITER: writer, **{tag: str(value) for tag, value in tags.items()}}
        run = self._client.create_run(self._id, tags=told, run_name=name).info.run_id
        try:
            now = int(time.time() * 1000)
            found = [Metric(name, value, now, 0) for name, value in trained.metrics.items()]
            scores = [score for _, score in trained.tried]
            found += [Metric(f"search_{metric}", s, now, i) for i, s in enumerate(scores) if s == s]
            params = [Param(name, str(value)[:500]) for name, value in trained.parameters.items()]
            self._client.log_batch(run, metrics=found, params=params)
            source = json.dumps({"table": table, "snapshot_id": snapshot})
            self._client.log_inputs(run, [DatasetInput(Dataset(table, snapshot, "iceberg", source))])
            self._client.log_artifacts(run, folder)
            if any(_number(other) == tags[NUMBER] for other in self._settle(tags[KEY])):
                self._client.delete_run(run)
            else:
                self._client.set_terminated(run, "FINISHED")
        except BaseException:
            with suppress(Exception):
                self._client.delete_run(run)
            raise

    def _settle(self, key: str) -> list[Any]:
        """The finished runs of this key, oldest first.

        What killed writers have left in the experiment is deleted, and so are all but the first of those that have the
        same number: two that finished at the same moment, or one whose writer was killed before it took it back.
        """
        for run in self._search(f"tags.`{WRITER}` LIKE '%' AND attributes.status != 'FINISHED'"):
            if _is_dead(run):
                self._client.delete_run(run.info.run_id)
        there: dict[int, Any] = {}
        finished = self._search(f"tags.`{KEY}` = '{key}' AND attributes.status = 'FINISHED'")
        for run in sorted(finished, key=lambda run: (_number(run), run.info.end_time or 0, run.info.run_id)):
            if there.setdefault(_number(run), run) is not run:
                self._client.delete_run(run.info.run_id)
        return list(there.values())

    def _search(self, what: str) -> list[Any]:
        found, token = [], None
        while True:
            page = self._client.search_runs([self._id], what, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _made_experiment(self, artifacts: Path | None) -> Any:
        """The experiment, made by this process or by another one at the same moment."""
        from mlflow.exceptions import MlflowException

        place = f"{artifacts.as_uri()}/{_safe(self.experiment)}" if artifacts is not None else None
        try:
            self._client.create_experiment(self.experiment, artifact_location=place)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self._client.get_experiment_by_name(self.experiment)

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
                f"MLflow at {self.shown} could not be used: {self._without_password(error)}",
                hint="Is it there, and may you write to it? Nothing was kept; run again once it answers.",
                tracking=self.shown,
            ) from None  # MLflow's own message has the URL with its password, and Prefect stores tracebacks

    def _without_password(self, error: Exception) -> str:
        said = re.sub(
            r"//[^/\s]*@", "//***@", str(error).replace(self.uri.rstrip("/"), self.shown.rstrip("/"))
        )
        found = re.match(r"https?://[^:/]*:(.+)@", self.uri)
        for secret in (found[1], unquote(found[1])) if found else ():
            said = said.replace(secret, "***")
        return _first_line(error, said)


def _first_line(error: Exception, said: str) -> str:
    return (said.strip().splitlines() or [""])[0][:300] or type(error).__name__


def _kept(run: Any) -> Kept:
    shown = {name: value for name, value in run.data.metrics.items() if not name.startswith("search_")}
    return Kept(run.info.run_id, shown, dict(run.data.params))


def _number(run: Any) -> int:
    return int(run.data.tags.get(NUMBER, 0))


def _is_dead(run: Any) -> bool:
    """Whether who writes this run is gone; of one that cannot be asked after, whether it began long ago."""
    writer = json.loads(run.data.tags[WRITER])
    lives = is_alive(writer) if writer.get("space") == process_space() else None
    return lives is False or (lives is None and time.time() - run.info.start_time / 1000 > _OLD)


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
            f"the trained model, a {type(model).__name__}, cannot be saved: {_first_line(error, str(error))}",
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
