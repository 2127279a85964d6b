"""Suites of Great Expectations as rules; what it found of the same rows was recorded with its version 1.24.1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import shoal
from shoal.tables.errors import QualityError, RuleError, SkippedExpectationWarning

ROWS = pd.DataFrame(
    {
        "id": [1, 2, 3, 4, 5],
        "carrier": ["AA", "ZZ", None, "O'Hare", "BB"],
        "delay": [5.0, -61.0, 3000.5, None, -60.0],
        "gone": pd.array([None, None, "x", None, "y"], dtype="string"),
    }
).convert_dtypes()


def one(kind: str, **kwargs: Any) -> dict[str, Any]:
    """As version 1 saves it."""
    return {"type": f"expect_column_values_to_{kind}", "kwargs": kwargs, "meta": {}, "severity": "critical"}


JUDGED: list[tuple[dict[str, Any], str, list[int]]] = [
    (one("not_be_null", column="carrier"), "carrier: not null", [3]),
    (one("be_in_set", column="carrier", value_set=["AA", "O'Hare"]), "carrier: in set", [2, 5]),
    (one("not_be_in_set", column="carrier", value_set=["ZZ"]), "carrier: not in set", [2]),
    (
        one("be_between", column="delay", min_value=-60.0, max_value=3000.5, strict_max=True),
        "delay: between",
        [2, 3],
    ),
    (one("be_between", column="id", min_value=2.0), "id: between", [1]),
    (one("be_null", column="gone"), "gone: null", [3, 5]),
]
OTHERS = [
    one("be_unique", column="id"),
    one("match_regex", column="carrier", regex="^A"),
    one("not_be_null", column="carrier", mostly=0.9),
    one("not_be_null", column="carrier", row_condition="id > 1"),
    one("be_between", column="delay", min_value={"$PARAMETER": "least"}),
    one("be_between", column="delay"),
    one("be_in_set", column="carrier", value_set=[]),
    one("not_be_null"),
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}},
    {"kwargs": {}},
    "nonsense",
]


def suite(*expectations: Any) -> dict[str, Any]:
    return {"name": "orders", "expectations": list(expectations), "meta": {}, "notes": None}


def test_rows_are_judged_as_great_expectations_judges_them(tmp_path: Path) -> None:
    file = tmp_path / "suite.json"
    file.write_text(json.dumps(suite(*(each for each, _, _ in JUDGED))))
    rules = shoal.rules_from_suite(file)
    assert list(rules) == [name for _, name, _ in JUDGED]
    report = shoal.check_rows(ROWS, rules, on_failure="warn")
    for _, name, failing in JUDGED:
        assert report.failing(name).column("id").to_pylist() == failing, name
    assert shoal.rules_from_suite(str(file)) == rules


def test_a_write_is_held_to_a_suite(lake: Any, name: str) -> None:
    rules = shoal.rules_from_suite(suite(JUDGED[0][0]))
    with pytest.raises(QualityError, match="carrier: not null"):
        shoal.write_table(ROWS, name, expect=rules)


def test_the_older_spelling_is_read() -> None:
    """Of versions before 1."""
    old = {
        "expectation_type": "expect_column_values_to_not_be_null",
        "kwargs": {"column": "a", "mostly": 1.0},
    }
    assert shoal.rules_from_suite(suite(old)) == {"a: not null": '"a" is not null'}


def test_two_expectations_of_one_kind_both_hold() -> None:
    both = suite(one("be_between", column="a", min_value=0), one("be_between", column="a", max_value=1e-7))
    assert shoal.rules_from_suite(both) == {"a: between": '"a" >= 0', "a: between (2)": '"a" <= 0.0000001'}


def test_a_null_in_a_set_is_no_value() -> None:
    """In SQL it would make `not in` unknown for every row, so that nothing failed."""
    rules = shoal.rules_from_suite(suite(one("not_be_in_set", column="carrier", value_set=["ZZ", None])))
    report = shoal.check_rows(ROWS, rules, on_failure="warn")
    assert report.failing("carrier: not in set").column("id").to_pylist() == [2]


def test_what_is_no_condition_on_one_row_is_refused_all_at_once() -> None:
    with pytest.raises(RuleError, match=f"{len(OTHERS)} expectations of {len(OTHERS) + 1}") as told:
        shoal.rules_from_suite(suite(JUDGED[0][0], *OTHERS))
    for said in (
        "be_unique of id",
        "patterns",
        "mostly",
        "row_condition",
        "PARAMETER",
        "no bound",
        "value_set",
    ):
        assert said in str(told.value)
    assert "skip=True" in told.value.hint


def test_or_left_out_with_a_warning_that_names_each() -> None:
    with pytest.warns(SkippedExpectationWarning, match="be_unique of id") as warned:
        rules = shoal.rules_from_suite(suite(JUDGED[0][0], *OTHERS), skip=True)
    assert list(rules) == ["carrier: not null"]
    assert str(warned[0].message).count("expectation ") == len(OTHERS)
    assert warned[0].filename == __file__


@pytest.mark.parametrize("wrong", ["/no/such/file.json", {"name": "x"}, {"expectations": {}}, [], suite()])
def test_what_is_no_suite_is_told(wrong: Any) -> None:
    with pytest.raises(RuleError) as told:
        shoal.rules_from_suite(wrong)
    assert "Great Expectations" in told.value.hint
