"""Advice rests on three clean runs or more, and only ever gives back."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from shoal.planning.advice import HEADROOM, LEAST_RUNS, PastRun, advise
from shoal.project.yamlfile import replace_value
from shoal.units import Bytes, Money, Seconds

GB = 10**9
RUN = PastRun(
    name="nightly",
    failed=False,
    ready=Seconds(600),
    asked=Bytes(14 * GB),
    limit=Bytes(14 * GB),
    peak=Bytes(3 * GB),
    spilled=Bytes(0),
    restarts=0,
)


def test_three_clean_runs_give_an_advice_with_headroom() -> None:
    advice = advise("etl", [RUN, replace(RUN, peak=Bytes(2 * GB)), RUN])
    assert advice.memory == Bytes(6 * GB)
    assert advice.memory >= HEADROOM * 3 * GB
    assert advice.runs == LEAST_RUNS
    assert "3 clean runs" in advice.why


def test_two_runs_give_none() -> None:
    advice = advise("etl", [RUN, RUN])
    assert advice.memory is None
    assert "2 clean runs" in advice.why


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"restarts": 1}, "ran out of memory"),
        ({"spilled": Bytes(GB)}, "spilled"),
        ({"failed": True}, "failed"),
        ({"exit_code": 7}, "exit code 7"),
        ({"peak": Bytes(0)}, "no peak"),
        ({"ready": Seconds(1)}, "only 1 s"),
    ],
)
def test_a_run_with_a_fault_teaches_nothing(fault: dict[str, object], said: str) -> None:
    faulty = replace(RUN, **fault)  # type: ignore[arg-type]
    assert advise("etl", [RUN, RUN, faulty]).memory is None
    advice = advise("etl", [RUN, RUN, RUN, faulty])
    assert advice.memory == Bytes(6 * GB)
    assert said in advice.left_out[0]


def test_what_is_nearly_full_is_left_alone() -> None:
    assert advise("etl", [replace(RUN, peak=Bytes(8 * GB))] * 3).memory is None


def test_a_size_that_was_applied_is_not_advised_again() -> None:
    assert advise("etl", [RUN] * 3, now=Bytes(6 * GB)).memory is None


def test_the_price_is_told_only_where_prices_are_known() -> None:
    assert advise("etl", [RUN] * 3).price is None
    priced = replace(RUN, price=Money(Decimal("0.84")))
    assert advise("etl", [priced] * 3).price == Money(Decimal("0.36"))


def test_applying_changes_the_value_and_nothing_else() -> None:
    text = "# mine\nworkers: {min: 2, memory: 14 GB, cores: 4}   # why\nhead: {memory: 8 GB}\n"
    changed = replace_value(text, ("workers", "memory"), "6 GB")
    assert changed == text.replace("14 GB", "6 GB")
    with pytest.raises(KeyError):
        replace_value(text, ("workers", "colour"), "red")


def test_toys_teach_nothing_about_real_input() -> None:
    advice = advise("etl", [replace(RUN, peak=Bytes(65_000_000))] * 4)
    assert advice.memory is None
    assert "next to nothing (65 MB" in advice.why


def test_advice_is_bound_to_the_input_that_was_seen() -> None:
    assert "(input size unknown)" in advise("etl", [RUN] * 3).why
    seen = [replace(RUN, data=Bytes(size * GB)) for size in (2, 5, 3)]
    assert "with at most 5 GB of input" in advise("etl", seen).why
