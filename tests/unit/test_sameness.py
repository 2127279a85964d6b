"""When two trainings are the same: never by a name or a text that other things have, too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer

from shoal.flows.errors import ScriptError
from shoal.flows.sameness import run_key
from shoal.flows.script import function

RATE = 1


def key(value: object) -> str:
    return run_key("delays", "nyc.flights", 5, {"features": value})


def early(part: Any, hours: Any = 1) -> Any:
    return part[part.hour < hours]


def late(part: Any, hours: int = 1) -> Any:
    return part[part.hour > hours]


def bound(hours: int) -> Callable[..., Any]:
    return lambda part: part[part.hour > hours]


def wrapped(inner: Callable[..., Any]) -> Callable[..., Any]:
    return lambda part: inner(part)


class Shift:
    """A callable that has a state."""

    def __init__(self, hours: int) -> None:
        self.hours = hours

    def __call__(self, part: Any) -> Any:
        return part + self.hours


class Scaled(BaseEstimator):  # type: ignore[misc]
    """A part of a pipeline."""

    def __init__(self, by: int = 1) -> None:
        self.by = by


def pipeline(bins: int, of: int = 1) -> Any:
    parts = [FunctionTransformer(early) for _ in range(6)]
    return make_pipeline(*parts, KBinsDiscretizer(n_bins=bins), Scaled(of), LinearRegression())


PAIRS: dict[str, Callable[[int], Any]] = {
    "another function of the same module": lambda which: (early, late)[which],
    "values that are bound": lambda which: partial(early, hours=1 + which),
    "functions that values are bound to": lambda which: partial((early, late)[which], hours=1),
    "bound inside of what is bound": lambda which: partial(wrapped(partial(early, hours=which))),
    "variables of a function around it": bound,
    "functions of a function around it": lambda which: wrapped((early, late)[which]),
    "a callable's state": Shift,
    "a method's object": lambda which: Shift(which).__call__,
    "what scikit-learn's text of a long pipeline leaves out": lambda which: pipeline(9 + 90 * which),
    "parameters of a part of the user's own": lambda which: pipeline(9, which),
    "functions in an estimator": lambda which: FunctionTransformer((early, late)[which]),
    "values of a function in an estimator": lambda which: FunctionTransformer(
        early, kw_args={"hours": which}
    ),
    "an objective": lambda which: {"objective": (early, late)[which]},
    "long lists of numbers": lambda which: {"C": np.arange(2000.0) != 1000 * which},
    "tables": lambda which: partial(early, hours=pd.DataFrame({"code": ["a"] * 999 + [f"b{which}"]})),
    "numbers and truths": lambda which: (1, True)[which],
    "estimators among the candidates": lambda which: {"clf": [LinearRegression(), pipeline(9 + 90 * which)]},
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_what_gives_another_model_has_another_key_and_what_is_made_anew_the_same(
    pair: Callable[[int], Any],
) -> None:
    assert key(pair(0)) == key(pair(0))
    assert key(pair(0)) != key(pair(1))


MODELS = """
import helpers
from sklearn.base import BaseEstimator

LIMIT = {limit}

class Own(BaseEstimator):
    def fit(self, rows, goal):
        return {fit}

def features(part):
    return helpers.changed(part[part.hour < LIMIT])

def later(part):
    from helpers import changed
    return changed(part)

def make():
    return Own()
"""


def test_code_that_the_user_edits_is_told_whether_it_is_in_the_file_its_class_or_a_file_that_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def keys(limit: int = 3, fit: str = "self", helper: str = "part") -> tuple[str, ...]:
        (tmp_path / "models.py").write_text(MODELS.format(limit=limit, fit=fit))
        (tmp_path / "helpers.py").write_text(f"def changed(part):\n    return {helper}\n")
        monkeypatch.delitem(sys.modules, "helpers", raising=False)
        made = [function(f"models.py:{name}", tmp_path) for name in ("features", "later", "make")]
        return (*map(key, made[:2]), key(made[2]()))

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    first = keys()
    assert keys() == first
    for edit in ({"limit": 4}, {"fit": "None"}):
        assert not set(keys(**edit)) & set(first)
    assert not set(keys(helper="part.copy()")[:2]) & set(first)
    monkeypatch.delitem(sys.modules, "helpers")


def test_a_value_of_the_module_counts_as_it_is_when_the_function_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rated(part: Any) -> Any:
        return part * RATE

    first = key(rated)
    monkeypatch.setitem(globals(), "RATE", 2)
    assert key(rated) != first


def test_what_cannot_be_compared_is_refused_by_its_name_and_not_taken_for_the_same(tmp_path: Path) -> None:
    def lines() -> Iterator[int]:
        yield 1

    opened = lines()
    with pytest.raises(ScriptError, match=r"features= cannot be compared .* holds a generator \(opened\)"):
        key(lambda part: opened)
    with (
        (tmp_path / "codes.csv").open("w") as file,
        pytest.raises(ScriptError, match=r"a TextIOWrapper \(hours\)"),
    ):
        key(partial(early, hours=file))


OTHER_PROCESS = """
import datetime, enum, re, logging
from functools import partial
import numpy as np, pandas as pd, xgboost
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import make_pipeline
from shoal.flows.sameness import run_key

log = logging.getLogger("delays")

class Own(BaseEstimator):
    def __init__(self, names=frozenset("abcdef")):
        self.names = names
    def fit(self, rows, goal, sample_weight=None):
        return self if goal in {"a", "b", "c"} else Own()

def features(part, *, names={"a", "b", None}):
    log.info("a part")
    return [each for each in part if each in {"x", "y", "z"}]

def again(part):
    return again(features(part))

values = [
    partial(features, names={"u", "v", ("w", 1)}), again, lambda part: object(), Own,
    make_pipeline(Own(), RandomForestRegressor(random_state=np.random.RandomState(3))), xgboost.XGBRegressor(),
    pd.DataFrame({"a": [1, 2], "b": ["x", None], "at": pd.Timestamp(0, tz="UTC")}), re.compile("a+"), object(), print,
]
print(run_key("delays", "nyc.flights", 5, {"features": values}))
"""


def test_another_process_has_the_same_key(tmp_path: Path) -> None:
    said = []
    for seed in ("1", "2"):
        (tmp_path / "keys.py").write_text(OTHER_PROCESS)
        command = [sys.executable, "-W", "ignore", str(tmp_path / "keys.py")]
        said.append(subprocess.check_output(command, text=True, env=dict(os.environ, PYTHONHASHSEED=seed)))
    assert said[0] == said[1]
    assert said[0].startswith("delays/nyc.flights@5/")


def test_a_run_key_has_its_snapshot_and_all_settings() -> None:
    settings: dict[str, Any] = {"target": "a", "parameters": {"depth": 3}, "test": 0.2}
    made = run_key("delays", "nyc.flights", 5, settings)
    assert made == run_key("delays", "nyc.flights", 5, dict(reversed(settings.items())))
    others = {
        run_key("delays", "nyc.flights", 6, settings),
        run_key("delays", "nyc.flights", 5, {**settings, "test": 0.3}),
    }
    assert len(others | {made}) == 3
