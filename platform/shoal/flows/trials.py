"""What a training is to try, and by what it is judged.

Why it exists: all of it is known before a cluster is started, and is the same for each try of a run. Pure.

What it must not do: import what trains.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from shoal.errors import UsageError
from shoal.words import did_you_mean, sentence

Task = Literal["regression", "classification"]
METRICS = {"regression": ("rmse", "mae", "r2"), "classification": ("accuracy", "f1", "roc_auc")}
"""What each kind of model is judged by; the first where nothing is said. ``roc_auc``: of two classes."""
LOWER = ("rmse", "mae")
"""The metrics of which less is better."""
MOST = 1_000
"""Candidates of one search."""


def check_task(task: object) -> Task:
    """UsageError for what cannot be a task."""
    if task not in METRICS:
        raise UsageError(
            f"task={task!r} is not known", hint="'regression' for numbers, 'classification' for classes."
        )
    return task  # type: ignore[return-value]


def check_metric(metric: str | None, task: Task) -> str:
    """The metric by which candidates are compared; UsageError."""
    if metric is not None and metric not in METRICS[task]:
        raise UsageError(
            f"metric={metric!r} does not go with task={task!r}",
            hint=sentence(did_you_mean(str(metric), METRICS[task])),
        )
    return metric or METRICS[task][0]


def check_search(search: Mapping[str, Any] | None, trials: int | None) -> dict[str, list[Any]]:
    """Values to try by parameter; UsageError."""
    found: dict[str, list[Any]] = {}
    for name, values in (search or {}).items():
        if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
            raise UsageError(
                f"search= has {name!r}: {values!r}, not a list of values to try",
                hint=f"For example search={{{name!r}: [{values!r}]}}.",
            )
        found[name] = list(values)
        if not found[name]:
            raise UsageError(f"search= has no value for {name!r}", hint="At least one, or leave it out.")
    if trials is not None and (not isinstance(trials, int) or trials < 1 or not found):
        raise UsageError(
            f"trials={trials!r} is not how many candidates of search= to try",
            hint="A number from 1 on, beside search={'max_depth': [3, 6, 9], ...}.",
        )
    size = math.prod(len(values) for values in found.values())
    if min(trials or size, size) > MOST:
        raise UsageError(
            f"search= has {size:,} candidates; a run tries at most {MOST:,}",
            hint="trials=50 tries 50 of them, drawn at random.",
        )
    return found


def candidates(search: Mapping[str, Sequence[Any]], trials: int | None, seed: int) -> list[dict[str, Any]]:
    """What to try: every combination, or ``trials`` of them, drawn by ``seed``. None without a search."""
    if not search:
        return []
    every = [dict(zip(search, values, strict=True)) for values in itertools.product(*search.values())]
    if trials is None or trials >= len(every):
        return every
    return random.Random(seed).sample(every, trials)  # noqa: S311 - no secret


def best_of(scores: Sequence[float], metric: str) -> int:
    """Which candidate is the best; the first of equals. One whose score is not a number never is."""
    sign = 1 if metric in LOWER else -1
    return min(range(len(scores)), key=lambda i: math.inf if math.isnan(scores[i]) else sign * scores[i])


def held_out(rows: pd.DataFrame, share: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are for the test. A row's values say so: the same row always is on the same side."""
    hashed = pd.util.hash_pandas_object(rows, index=False).to_numpy()
    mixed = pd.util.hash_array(hashed + np.uint64(seed))
    held: np.ndarray[Any, np.dtype[np.bool_]] = mixed < np.uint64(int(share * 2.0**63) * 2)
    return held
