"""Models from the rows of a Dask frame: XGBoost on the workers, scikit-learn by joblib's Dask backend.

Why it exists: see ``ml_training``. Both give a model that predicts without a cluster.

What it must not do: know tables, Prefect or MLflow; import XGBoost or scikit-learn before they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
from dask.dataframe.dispatch import make_meta

from shoal.errors import UsageError
from shoal.flows.errors import EmptyInputError, TargetError
from shoal.flows.trials import LOWER, Task, best_of, held_out
from shoal.tables.arguments import pandas_schema
from shoal.words import count, did_you_mean, listed, sentence

FOLDS = 3
"""Parts of the rows in scikit-learn's search, each of which is predicted by a model of the others."""
_SCORERS = {"rmse": "neg_root_mean_squared_error", "mae": "neg_mean_absolute_error", "f1": "f1_macro"}


@dataclass(frozen=True)
class Rows:
    """The rows of a run, as numbers, on the cluster's workers."""

    train: dd.DataFrame
    test: dd.DataFrame
    target: str
    number: int
    """Of rows to train with and to test with."""
    dropped: int
    """Rows without a target."""

    @property
    def columns(self) -> list[str]:
        """The features."""
        return [name for name in self.train.columns if name != self.target]


@dataclass(frozen=True)
class Trained:
    """A model, and what is known of it."""

    model: Any = field(repr=False)
    parameters: Mapping[str, Any]
    """Those that it was trained with."""
    metrics: Mapping[str, float]
    """Of the rows that were held out."""
    tried: Sequence[tuple[Mapping[str, Any], float]] = ()
    """The candidates of the search, each with its score."""
    sample: pd.DataFrame | None = field(default=None, repr=False)
    """Some rows of features."""


def _is_number(kind: pa.DataType) -> bool:
    return any(of(kind) for of in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)) or bool(
        pa.types.is_boolean(kind)
    )


def choose(meta: pd.DataFrame, target: str, features: Sequence[str] | None, where: str) -> list[str]:
    """The columns that are features: those named, else all that hold numbers.

    Raises TargetError, UsageError.
    """
    types = {f.name: f.type for f in pandas_schema(meta)}
    if target not in types:
        raise TargetError(
            f"{where} gives no column {target!r}, which is the target",
            hint=f"Its columns: {', '.join(types)}.",
            target=target,
        )
    numbers = [name for name, kind in types.items() if name != target and _is_number(kind)]
    found = numbers if features is None else list(features)
    if odd := [f"{name} ({types[name]})" for name in found if name not in numbers]:
        raise UsageError(
            f"{listed(odd)} of {where} cannot be a feature: it is not a number",
            hint="Make numbers of it in a function for features=, such as codes of a text, or the hour of a time.",
        )
    if not found:
        raise UsageError(
            f"{where} gives no column of numbers beside the target {target}",
            hint="Make numbers of its columns in a function for features=.",
        )
    return found


def check_parameters(estimator: Any, names: Sequence[str]) -> None:
    """UsageError for a parameter that the model does not have: XGBoost would pass over it, scikit-learn fail late."""
    if estimator is not None:
        known = list(estimator.get_params())
        wrong = [name for name in names if name not in known]
    else:
        from xgboost import XGBModel

        known = list(XGBModel().get_params())
        # It has more than these, for certain objectives; so only what is like one of them is a slip.
        wrong = [n for n in names if n not in known and get_close_matches(n, known, cutoff=0.8)]
    if wrong:
        raise UsageError(
            f"the model has no parameter {wrong[0]!r}", hint=sentence(did_you_mean(wrong[0], known))
        )


def check_target(meta: pd.DataFrame, target: str, task: Task) -> bool:
    """Whether the target is a number; TargetError where it has to be one."""
    kind = pa.Schema.from_pandas(meta[[target]], preserve_index=False).field(0).type
    number = _is_number(kind)
    if task == "regression" and not number:
        raise TargetError(
            f"the target {target} is {kind}, which task='regression' cannot predict",
            hint="task='classification' predicts classes; or make a number of it in a function for features=.",
            target=target,
        )
    return number


def _numbers(part: pd.DataFrame, columns: list[str], target: str, *, number: bool) -> pd.DataFrame:
    """A part's features and targets as float64; classes that are no numbers as texts."""
    made = {name: part[name].to_numpy(dtype="float64", na_value=np.nan) for name in columns}
    goal = part[target]
    if number:
        made[target] = goal.to_numpy(dtype="float64", na_value=np.nan)
    else:
        made[target] = goal.astype(object).map(str, na_action="ignore").to_numpy(dtype=object)
    return pd.DataFrame(made, index=part.index)


def _goal(goal: Any, task: Task) -> Any:
    """Targets, or what was predicted, as scikit-learn takes them."""
    values = np.asarray(goal)
    if values.dtype.kind not in "biuf":
        return values.astype(str).astype(object)
    if task == "classification" and bool(np.all(values == np.floor(values))):
        return values.astype("int64")
    return values


def _side(part: pd.DataFrame, target: str, share: float, seed: int, *, held: bool) -> pd.DataFrame:
    """The rows of one side that have a target."""
    there = part[target].notna().to_numpy(dtype=bool)
    side: pd.DataFrame = part[there & (held_out(part, share, seed) == held)]
    return side


def prepare(
    frame: dd.DataFrame,
    target: str,
    columns: list[str],
    task: Task,
    *,
    test: float,
    seed: int,
    workers: int,
) -> Rows:
    """The rows as numbers, in the workers' memory, in two parts.

    Raises TargetError for a target that does not go with the task, EmptyInputError where a part has no row.
    """
    known = make_meta(frame)[[*columns, target]]
    number = check_target(known, target, task)
    meta = _numbers(known, columns, target, number=number)
    rows = frame[[*columns, target]].map_partitions(
        _numbers, columns, target, number=number, meta=meta, enforce_metadata=False
    )
    if rows.npartitions < workers:
        # By position: an index that a function made need not be what Dask takes it for, and rows would be lost.
        rows = rows.clear_divisions().repartition(npartitions=workers)
    rows = rows.persist()  # once for both sides
    whole = len(rows)
    parts = [
        rows.map_partitions(_side, target, test, seed, held=held, meta=meta, enforce_metadata=False).persist()
        for held in (False, True)
    ]
    train, held = (len(part) for part in parts)
    if not whole:
        raise EmptyInputError("there are no rows to train with", hint="Put some into the table first.")
    if not train or not held:
        raise EmptyInputError(
            f"{count(train + held, 'row')} with a {target}, of {count(whole, 'row')}, are too few: "
            f"{train} to train with, {held} to test with",
            hint="Use a table with more rows, or another share for test=.",
        )
    return Rows(parts[0], parts[1], target, train + held, whole - train - held)


def search_and_train(
    estimator: Any,
    client: Any,
    rows: Rows,
    task: Task,
    parameters: Mapping[str, Any],
    tries: Sequence[Mapping[str, Any]],
    metric: str,
    seed: int,
) -> Trained:
    """Try the candidates, and train with the best one; ``estimator`` is None for XGBoost."""
    kind: Any = (
        _XGBoost(client, task, seed) if estimator is None else _ScikitLearn(client, estimator, task, seed)
    )
    if estimator is None and task == "classification":
        _check_classes(rows)
    scores = kind.search(rows, parameters, tries, metric) if tries else []
    if scores and all(np.isnan(score) for score in scores):
        raise TargetError(
            f"none of the {count(len(scores), 'candidate')} of search= could be judged by {metric}",
            hint="roc_auc needs rows of two classes; other metrics take any number of them.",
            target=rows.target,
        )
    best = {**parameters, **(tries[best_of(scores, metric)] if scores else {})}
    model = kind.train(rows.train, rows.target, best)
    metrics = measure(predict(model, rows.test, rows.target), task)
    sample = rows.train[rows.columns].head(20, npartitions=-1)
    return Trained(model, best, metrics, tuple(zip(tries, scores, strict=True)), sample)


def predict(model: Any, rows: dd.DataFrame, target: str) -> pd.DataFrame:
    """Targets, predictions and, of two classes, the probability of the second; predicted on the workers."""
    plain = np.dtype("float64")
    known = make_meta(rows)
    meta = pd.DataFrame({"is": known[target], "said": known[target], "chance": pd.Series([], dtype=plain)})
    said = rows.map_partitions(_predicted, model, target, meta=meta, enforce_metadata=False)
    return pd.DataFrame(said.compute().reset_index(drop=True))


def _predicted(part: pd.DataFrame, model: Any, target: str) -> pd.DataFrame:
    features = part.drop(columns=target)
    chance = np.full(len(part), np.nan)
    if not len(part):
        return pd.DataFrame({"is": part[target], "said": part[target], "chance": chance})
    if hasattr(model, "predict_proba"):
        of_each = np.asarray(model.predict_proba(features))
        if of_each.ndim == 2 and of_each.shape[1] == 2:
            chance = of_each[:, 1].astype("float64")
    said = np.asarray(model.predict(features))
    return pd.DataFrame({"is": part[target].to_numpy(), "said": said, "chance": chance})


def measure(seen: pd.DataFrame, task: Task) -> dict[str, float]:
    """The metrics of predictions; without those that they do not tell."""
    from sklearn import metrics

    truth, said = pd.Series(_goal(seen["is"], task)), _goal(seen["said"], task)
    if task == "regression":
        found = {
            "rmse": metrics.root_mean_squared_error(truth, said),
            "mae": metrics.mean_absolute_error(truth, said),
        }
        if len(seen) > 1:
            found["r2"] = metrics.r2_score(truth, said)
    else:
        found = {
            "accuracy": metrics.accuracy_score(truth, said),
            "f1": metrics.f1_score(truth, said, average="macro"),
        }
        if truth.nunique() == 2 and seen["chance"].notna().all():
            found["roc_auc"] = metrics.roc_auc_score(truth == sorted(truth.unique())[1], seen["chance"])
    return {name: float(value) for name, value in found.items()}


def _check_classes(rows: Rows) -> None:
    """XGBoost's classes are whole numbers from 0 on; TargetError."""
    classes = sorted(rows.train[rows.target].unique().compute().tolist())
    if classes != list(range(len(classes))) or len(classes) < 2:
        shown = listed([repr(each) for each in classes[:5]]) + (", ..." if len(classes) > 5 else "")
        raise TargetError(
            f"the classes of the target {rows.target} are {shown}; XGBoost's are 0, 1 and so on, two or more",
            hint="Give numbers to them in a function for features=: part.assign(late=part.late.map({'no': 0, "
            "'yes': 1})).",
            target=rows.target,
        )


class _XGBoost:
    """Each worker trains with the rows that it has; they agree after each step."""

    def __init__(self, client: Any, task: Task, seed: int) -> None:
        self._client, self._task, self._seed = client, task, seed

    def search(
        self,
        rows: Rows,
        parameters: Mapping[str, Any],
        tries: Sequence[Mapping[str, Any]],
        metric: str,
    ) -> list[float]:
        """Each candidate is trained with four fifths of the rows to train with, and judged by the fifth."""
        train, judge = (
            rows.train.map_partitions(
                _side,
                rows.target,
                0.2,
                self._seed + 1,
                held=held,
                meta=make_meta(rows.train),
                enforce_metadata=False,
            ).persist()
            for held in (False, True)
        )
        scores = []
        for each in tries:
            model = self.train(train, rows.target, {**parameters, **each})
            seen = predict(model, judge, rows.target)
            scores.append(measure(seen, self._task).get(metric, np.nan) if len(seen) else np.nan)
        return scores

    def train(self, rows: dd.DataFrame, target: str, parameters: Mapping[str, Any]) -> Any:
        """The model, which no longer needs the cluster."""
        import xgboost
        from xgboost import dask as on_dask

        parameters = {"random_state": self._seed, **parameters}
        name = "Classifier" if self._task == "classification" else "Regressor"
        spread = getattr(on_dask, f"DaskXGB{name}")(**parameters)
        spread.client = self._client
        spread.fit(rows.drop(columns=target), rows[target])
        model = getattr(xgboost, f"XGB{name}")(**parameters)
        model.load_model(spread.get_booster().save_raw("ubj"))
        return model


class _ScikitLearn:
    """The rows come to this process; what is tried in parallel is computed on the workers."""

    def __init__(self, client: Any, estimator: Any, task: Task, seed: int) -> None:
        self._client, self._estimator, self._task, self._seed = client, estimator, task, seed

    def search(
        self,
        rows: Rows,
        parameters: Mapping[str, Any],
        tries: Sequence[Mapping[str, Any]],
        metric: str,
    ) -> list[float]:
        """Cross-validated, each candidate and part by itself."""
        from joblib import parallel_config
        from sklearn.model_selection import GridSearchCV

        grid = [{name: [value] for name, value in each.items()} for each in tries]
        search = GridSearchCV(
            self._made(parameters), grid, scoring=_SCORERS.get(metric, metric), cv=FOLDS, refit=False
        )
        whole = rows.train.compute()
        with parallel_config("dask", client=self._client):
            search.fit(whole.drop(columns=rows.target), _goal(whole[rows.target], self._task))
        sign = -1.0 if metric in LOWER else 1.0
        return [sign * float(score) for score in search.cv_results_["mean_test_score"]]

    def train(self, rows: dd.DataFrame, target: str, parameters: Mapping[str, Any]) -> Any:
        """The model."""
        from joblib import parallel_config

        model, whole = self._made(parameters), rows.compute()
        with parallel_config("dask", client=self._client):
            model.fit(whole.drop(columns=target), _goal(whole[target], self._task))
        return model

    def _made(self, parameters: Mapping[str, Any]) -> Any:
        from sklearn.base import clone

        made = clone(self._estimator)
        if made.get_params().get("random_state", 0) is None:
            made.set_params(random_state=self._seed)
        return made.set_params(**parameters)
