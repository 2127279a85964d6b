"""What a training tries, and how it is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from shoal.errors import UsageError
from shoal.flows.trials import best_of, candidates, check_metric, check_search, held_out

SEARCH = {"depth": [1, 2, 3], "rate": [0.1, 0.3]}


def test_every_combination_is_tried_or_some_that_the_seed_draws() -> None:
    every = candidates(SEARCH, None, 0)
    assert len(every) == 6
    assert {"depth": 3, "rate": 0.1} in every
    drawn = candidates(SEARCH, 4, 7)
    assert drawn == candidates(SEARCH, 4, 7) != candidates(SEARCH, 4, 8)
    assert len({tuple(each.items()) for each in drawn}) == 4
    assert candidates(SEARCH, 99, 0) == every
    assert candidates({}, None, 0) == []


@pytest.mark.parametrize(
    ("search", "trials"),
    [
        ({"a": 3}, None),
        ({"a": "abc"}, None),
        ({"a": []}, None),
        (None, 5),
        (SEARCH, 0),
        ({"a": range(2000)}, None),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(search: Any, trials: Any) -> None:
    with pytest.raises(UsageError):
        check_search(search, trials)
    assert check_search({"a": range(2000)}, 5)


def test_the_best_candidate_is_the_first_of_the_best_and_never_one_without_a_score() -> None:
    scores = [float("nan"), 0.5, 0.2, 0.2, 0.9]
    assert best_of(scores, "rmse") == 2
    assert best_of(scores, "r2") == 4
    assert check_metric(None, "classification") == "accuracy"
    with pytest.raises(UsageError, match="does not go with"):
        check_metric("rmse", "classification")


def test_a_row_is_on_the_same_side_wherever_it_lies() -> None:
    rows = pd.DataFrame({"a": np.arange(10_000.0), "kind": ["x", None] * 5000})
    held = held_out(rows, 0.2, 1)
    assert 0.18 < held.mean() < 0.22
    moved = rows.sample(frac=1, random_state=1)
    assert (held_out(moved, 0.2, 1) == held[moved.index]).all()
    assert (held_out(rows, 0.2, 2) != held).any()
    both = held_out(rows[held], 0.2, 2).mean()
    assert 0.15 < both < 0.25, "another seed draws independently"
