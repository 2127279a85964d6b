"""``ml_training``: features from a table -> a search of parameters and a model on Dask -> MLflow.

Why it exists: see the package. A model is trained once for each snapshot and setting, and names its table and snapshot.

What it must not do: keep anything between runs but in MLflow.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask.dataframe as dd
from dask.dataframe.dispatch import make_meta
from prefect import flow
from prefect.runtime import flow_run

from shoal.errors import MissingExtraError, UsageError
from shoal.flows import inputs, pieces, script, tracking, trials
from shoal.flows.common import check_name, open_folder, slug, stage
from shoal.flows.errors import EmptyInputError, ScriptError
from shoal.flows.sameness import run_key
from shoal.flows.script import Function
from shoal.flows.tracking import SNAPSHOT, TABLE, Kept, Tracker
from shoal.flows.training import (
    Rows,
    Trained,
    check_parameters,
    check_target,
    choose,
    prepare,
    search_and_train,
)
from shoal.flows.trials import Task, check_search
from shoal.prefect import dask_cluster, publish_report
from shoal.prefect.publish import publish
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.reading.read import read_table
from shoal.units import Bytes
from shoal.words import count

XGBOOST = "xgboost"
_SCRIPT = re.compile(r".+\.py:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Training:
    """What :func:`ml_training` was told."""

    name: str
    table: str
    target: str
    task: Task
    features: Sequence[str] | Callable[..., Any] | str | None
    model: Any
    parameters: Mapping[str, Any]
    search: Mapping[str, Sequence[Any]]
    trials: int | None
    metric: str
    test: float
    seed: int
    experiment: str
    tracking: str | None = field(repr=False)  # a password may be in it
    data: str | None
    template: str
    cluster: Mapping[str, Any]

    @property
    def tries(self) -> list[dict[str, Any]]:
        """The candidates of its search."""
        return trials.candidates(self.search, self.trials, self.seed)


@dataclass(frozen=True)
class Basis:
    """What one run is about; settled before a cluster is started."""

    snapshot: int
    size: Bytes | None
    function: Function | None
    columns: list[str] | None
    """The features; None where a function gives them."""
    estimator: Any
    """None: XGBoost."""
    maker: Any
    """What is sent to workers with everything of its file."""
    key: str
    again: str
    """The flow run that is to train also where a model is there already; else empty."""
    tracker: Tracker = field(repr=False)

    def frame(self, job: Training) -> dd.DataFrame:
        """The rows with features and target."""
        read = [*self.columns, job.target] if self.columns is not None else None
        frame = read_table(job.table, columns=read, snapshot=self.snapshot)
        if self.function is None:
            return frame
        meta = self.function.meta(frame.head(pieces.ROWS))
        return frame.map_partitions(self.function, meta=meta, enforce_metadata=False)


def ml_training(
    name: str,
    *,
    table: str,
    target: str,
    task: Task,
    features: Sequence[str] | Callable[..., Any] | str | None = None,
    model: Any = XGBOOST,
    parameters: Mapping[str, Any] | None = None,
    search: Mapping[str, Sequence[Any]] | None = None,
    trials: int | None = None,
    metric: str | None = None,
    test: float = 0.2,
    seed: int = 0,
    experiment: str | None = None,
    tracking: str | None = None,
    data: str | None = None,
    template: str = "ml-training",
    cluster: Mapping[str, Any] | None = None,
    retries: int = 0,
    description: str = "",
) -> Any:
    """A Prefect flow that trains a model from a table's rows on Dask, and keeps it in MLflow.

    Run twice, tried again or killed, it gives one model for one snapshot of the table and the same settings: what is
    there already is returned, and no cluster is started.

    Args:
        name: Of the flow, and of its runs in MLflow.
        table: What is read: ``"nyc.flights"``.
        target: The column that is predicted. Rows without it are left out.
        task: ``"regression"`` or ``"classification"``.
        features: Columns of numbers; or a function that is called with each part's rows as a pandas frame, on the
            workers, and returns the features and the target; or ``"features.py:features"`` from a file of the project.
            Default: every other column of numbers.
        model: ``"xgboost"``, which is trained where the rows are, on all workers; or a scikit-learn estimator, a
            function that makes one, or ``"models.py:make"``: then the rows have to fit into the flow's own memory, and
            what can be tried in parallel is, on the workers.
        parameters: Of the model: ``{"max_depth": 6, "n_estimators": 200}``.
        search: Values to try, by parameter: ``{"max_depth": [3, 6, 9]}``. Every combination is tried, or ``trials`` of
            them, drawn at random; the best by ``metric`` is trained with.
        metric: By which candidates are compared: ``"rmse"``, ``"mae"`` or ``"r2"``; ``"accuracy"``, ``"f1"`` or
            ``"roc_auc"``. Default: the first of them.
        test: Which share of the rows is held out of training and search, for the metrics. The same row always is on
            the same side.
        seed: Of whatever is drawn at random.
        experiment: In MLflow. Default: ``name``.
        tracking: MLflow's server, or ``"sqlite:///PATH"`` for a file below the project folder. Default:
            ``MLFLOW_TRACKING_URI``, as MLflow takes it, else a file in the user's data folder.
        data: Estimated size of the rows, such as ``"25 GB"``, by which the cluster is sized. Default: the table's size.
        template: Of the cluster, with ``cluster``: options of ``shoal.dask`` in place of the template's.
        retries: How often Prefect tries a failed run again.
        description: Shown by Prefect. Default: what it predicts, and from which table.

    Returns:
        The flow. Its parameters are ``snapshot`` (of the table; default: the newest), ``again`` (train also where a
        model is there already; the new one counts from then on), ``project`` and ``target``; it returns where the model
        is, and what is known of it.

    Raises:
        UsageError: what was given makes no sense; of what is found only when it runs, the flow raises
            TableNotFoundError, ColumnNotFoundError, EmptyInputError, TargetError, ScriptError, TrackingError, or an
            error of clusters or of the model.
    """
    checked = _checked(name, table, target, task, features, model, metric, test, seed, experiment, tracking)
    job = Training(
        **checked,
        parameters=dict(parameters or {}),
        search=check_search(search, trials),
        trials=trials,
        data=data,
        template=template,
        cluster=dict(cluster or {}),
    )

    @flow(  # type: ignore[untyped-decorator]
        name=name, log_prints=True, retries=retries, description=description or f"{target} from {table}"
    )
    def run(
        snapshot: int | None = None,
        again: bool = False,
        project: str | None = None,
        target: str | None = None,
    ) -> dict[str, Any]:
        return run_once(job, snapshot, again=again, where={"project": project, "target": target})

    return run


def run_once(job: Training, snapshot: int | None, *, again: bool, where: Mapping[str, Any]) -> dict[str, Any]:
    """One run, in its flow."""
    folder = open_folder(where)
    found = stage("look", lambda: look(job, folder, snapshot, again=again))
    there = stage("ask MLflow", lambda: found.tracker.find(found.key, found.again))
    if there is not None:
        print(f"{job.name}: trained already from {job.table} at snapshot {found.snapshot}: {there.model}")
        return told(job, found, there, replayed=True)
    tries = job.tries
    tried = f", of {count(len(tries), 'candidate')}" if tries else ""
    print(f"{job.name}: {job.target} from {job.table} at snapshot {found.snapshot}{tried}")
    options = {"data": job.data or (str(found.size) if found.size else None), **job.cluster, **where}
    with script.by_value(found.maker):
        with dask_cluster(job.template, **options) as cluster:
            rows = stage("features", lambda: rows_of(job, found, cluster.client))
            left = f", {count(rows.dropped, 'row')} without a target" if rows.dropped else ""
            print(f"{job.name}: {count(rows.number, 'row')} of {count(len(rows.columns), 'feature')}{left}")
            trained: Trained = stage("train", lambda: train(job, found, rows, cluster.client))
        tags = {
            TABLE: job.table,
            SNAPSHOT: found.snapshot,
            "shoal.target": job.target,
            "shoal.flow": job.name,
        }
        kept: Kept = stage(
            "keep", lambda: found.tracker.keep(found.key, job.name, trained, job.metric, tags, found.again)
        )
    said = told(job, found, kept, replayed=False)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in kept.metrics.items())
    print(f"{job.name}: {shown}; {kept.model}")
    if flow_run.id is not None:
        publish(f"{slug(job.name)}-model", _page(job, said, trained), "What this run trained")
        publish_report(f"{slug(job.name)}-clusters", **where)
    return said


def look(job: Training, folder: Path, snapshot: int | None, *, again: bool = False) -> Basis:
    """What there is to train with. Whatever can be wrong is told here, if it can be told without a cluster."""
    for package in ("sklearn", XGBOOST, "joblib", "mlflow"):
        if find_spec(package) is None:
            raise MissingExtraError.of("shoal.flows.ml_training", package, "ml")
    table = catalogs.load(job.table)
    head = table.metadata.snapshot_by_name("main")
    frame = read_table(job.table, snapshot=snapshot)
    chosen = snapshot if snapshot is not None else head.snapshot_id if head is not None else None
    at = table.metadata.snapshot_by_id(chosen) if chosen is not None else None
    summary = at.summary.additional_properties if at is not None and at.summary is not None else {}
    if at is None or summary.get("total-records") == "0":
        raise EmptyInputError(
            f"{job.table} has no row{f' at snapshot {chosen}' if snapshot is not None else ''}",
            hint=f"Is it written by another flow that has not run yet? shoal tables history {job.table}",
        )
    function, columns, given = None, None, None
    if callable(job.features) or isinstance(job.features, str):
        given = job.features if callable(job.features) else script.function(str(job.features), folder)
        function = script.sent(given, getattr(given, "__qualname__", "features"))
    else:
        read_table(job.table, columns=[*(job.features or []), job.target], snapshot=snapshot)
        meta = make_meta(frame)
        columns = choose(meta, job.target, job.features, job.table)
        check_target(meta, job.target, job.task)
    estimator, maker = estimator_of(job.model, folder)
    check_parameters(estimator, [*job.parameters, *job.search])
    settings = {
        "features": columns or given,
        "model": XGBOOST if estimator is None else estimator,
        "parameters": {name: job.parameters[name] for name in sorted(job.parameters)},
        **{
            key: getattr(job, key) for key in ("target", "task", "search", "trials", "metric", "test", "seed")
        },
    }
    key = run_key(job.name, job.table, at.snapshot_id, settings)
    tracker = Tracker(tracking.place(job.tracking, folder), job.experiment)
    tracker.open()
    size = int(summary.get("total-files-size", 0))
    return Basis(
        at.snapshot_id,
        Bytes(size) if size else None,
        function,
        columns,
        estimator,
        maker,
        key,
        str(flow_run.id or uuid.uuid4()) if again else "",
        tracker,
    )


def estimator_of(model: Any, folder: Path) -> tuple[Any, Any]:
    """The estimator (None: XGBoost), and what it comes from. ScriptError."""
    if isinstance(model, str) and model == XGBOOST:
        return None, None
    maker: Any = type(model)
    if isinstance(model, str):
        model = script.function(model, folder)
    if callable(model) and not hasattr(model, "fit"):
        maker, model = model, model()
    if isinstance(model, type) or not all(hasattr(model, name) for name in ("fit", "predict", "get_params")):
        raise ScriptError(
            f"model= gives {model!r}, not an estimator of scikit-learn",
            hint="Give 'xgboost', an estimator such as RandomForestRegressor(), or a function that returns one.",
        )
    with script.by_value(maker):
        script.packed(model, f"the model, a {type(model).__name__},")
    return model, maker


def rows_of(job: Training, found: Basis, client: Any) -> Rows:
    """The rows, on the workers."""
    frame = found.frame(job)
    columns = found.columns
    if columns is None:
        columns = choose(make_meta(frame), job.target, None, getattr(found.function, "name", job.table))
    workers = len(client.scheduler_info(n_workers=-1)["workers"])
    return prepare(frame, job.target, columns, job.task, test=job.test, seed=job.seed, workers=workers)


def train(job: Training, found: Basis, rows: Rows, client: Any) -> Trained:
    """The search, the model and its metrics."""
    return search_and_train(
        found.estimator, client, rows, job.task, job.parameters, job.tries, job.metric, job.seed
    )


def told(job: Training, found: Basis, kept: Kept, *, replayed: bool) -> dict[str, Any]:
    """What was done, as plain values."""
    return {
        "model": kept.model,
        "run_id": kept.run_id,
        "experiment": job.experiment,
        "tracking": found.tracker.shown,
        "table": job.table,
        "snapshot_id": found.snapshot,
        "metrics": dict(kept.metrics),
        "parameters": dict(kept.parameters),
        "replayed": replayed,
    }


def _page(job: Training, said: Mapping[str, Any], trained: Trained) -> str:
    lines = [f"# {job.name}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in said.items() if key not in ("metrics", "replayed")]
    lines += [f"| **{name}** | {value:.6g} |" for name, value in trained.metrics.items()]
    if trained.tried:
        lines += ["", f"| candidate | {job.metric} |", "|---|---|"]
        lines += [f"| {dict(each)} | {score:.6g} |" for each, score in trained.tried]
    return "\n".join(lines)


def _checked(
    name: str,
    table: object,
    target: object,
    task: object,
    features: Any,
    model: Any,
    metric: str | None,
    test: object,
    seed: object,
    experiment: str | None,
    place: str | None,
) -> dict[str, Any]:
    check_name(name)
    if not isinstance(table, str) or not inputs.is_table(table):
        raise UsageError(
            f"table={table!r} is not a table", hint="Name it as 'namespace.table', such as 'nyc.flights'."
        )
    if not isinstance(target, str) or not target:
        raise UsageError(f"target={target!r} is not a column", hint="The one to predict, such as 'delay'.")
    kind = trials.check_task(task)
    if isinstance(features, str) and not _SCRIPT.fullmatch(features):
        raise UsageError(
            f"features={features!r} is neither columns nor a script",
            hint=f"Give a list, such as [{features!r}], a function, or 'features.py:features'.",
        )
    named = features is not None and not callable(features) and not isinstance(features, str)
    if named and (not features or target in features or not all(isinstance(each, str) for each in features)):
        raise UsageError(
            f"features={features!r} are not columns to predict {target} from",
            hint="Columns other than the target; without features=, it is every other column of numbers.",
        )
    if isinstance(model, str) and model != XGBOOST and not _SCRIPT.fullmatch(model):
        raise UsageError(
            f"model={model!r} is not known",
            hint="'xgboost', an estimator of scikit-learn, or 'models.py:make'.",
        )
    if not isinstance(test, (int, float)) or not 0 < test < 1:
        raise UsageError(f"test={test!r} is not a share of the rows", hint="Between 0 and 1, such as 0.2.")
    if not isinstance(seed, int) or not 0 <= seed < 2**32 - 1:
        raise UsageError(f"seed={seed!r} cannot be a seed", hint="A whole number, such as seed=7.")
    tracking.check(place)
    return {
        "name": name,
        "table": table,
        "target": target,
        "task": kind,
        "features": list(features) if named else features,
        "model": model,
        "metric": trials.check_metric(metric, kind),
        "test": float(test),
        "seed": seed,
        "experiment": experiment or name,
        "tracking": place,
    }
