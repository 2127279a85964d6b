"""The lanes and the budget of the tests: each folder has its minutes, and what shares a server stays together."""

from __future__ import annotations

from collections.abc import Sequence

import lanes
import pytest
import whole


def test_each_folder_with_tests_has_minutes_and_no_other() -> None:
    with_tests = {file.parent.name for file in lanes.TESTS.glob("*/test_*.py")}
    assert set(lanes.budget()["minutes"]) == with_tests
    assert set(lanes.budget()["groups"]) <= with_tests


def test_a_group_stays_together_and_other_files_go_by_themselves() -> None:
    groups = ["tables", "homes/test_queue.py"]
    assert lanes.group_of("tests/tables/test_docs.py::test_x", groups) == "tables"
    assert lanes.group_of("tests/homes/test_queue.py::test_x[a::b]", groups) == "homes/test_queue.py"
    assert lanes.group_of("tests/homes/test_ahead.py::test_x", groups) == "homes/test_ahead.py"


def test_what_takes_more_than_its_minutes_is_told_loudly() -> None:
    lines = lanes.told({"unit": 30, "new": 6}, {"unit": 1, "cli": 2}, took=61, limit=60)
    assert lines == [
        "cli             0.0 of   2.0",
        "new             0.1 of   0.0   OVER ITS BUDGET",
        "unit            0.5 of   1.0",
        "one by one      0.6 of   3.0",
        "in lanes       61.0 of  60.0   OVER ITS BUDGET",
    ]


@pytest.mark.parametrize(("seconds", "minutes"), [(0.2, 64), (0.5, 64), (0.55, 70.4), (2.0, 80)])
def test_a_slower_machine_may_take_longer_but_not_for_ever(seconds: float, minutes: float) -> None:
    assert lanes.may_take({"minutes": 64, "piece_of_work": 0.5}, seconds) == pytest.approx(minutes)


def test_the_piece_of_work_takes_cpu_time() -> None:
    assert 0.05 < lanes.piece_of_work() < 10


@pytest.mark.parametrize(
    ("outcomes", "code", "named"),
    [
        ([(0, [])], 0, []),
        ([(1, ["a", "b"]), (0, [])], 0, ["a, b", "a, b"]),
        ([(1, ["a", "b"]), (1, ["b"])], 1, ["a, b", "a"]),
        ([(1, list("abcdef"))], 1, []),  # too many for chance
        ([(1, [])], 1, []),
        ([(lanes.OVER_BUDGET, ["a"])], lanes.OVER_BUDGET, []),
        ([(2, ["a"])], 2, []),  # interrupted: it says nothing of the tests that did not run
    ],
)
def test_what_fails_once_is_run_again_and_named(
    outcomes: list[tuple[int, list[str]]], code: int, named: list[str]
) -> None:
    asked: list[Sequence[str]] = []
    said: list[str] = []

    def play(arguments: Sequence[str]) -> tuple[int, list[str]]:
        asked.append(arguments)
        return outcomes[len(asked) - 1]

    assert whole.run(play, ["all"], said.append) == code
    assert len(asked) == len(outcomes)
    assert [line.partition(": ")[2] for line in said] == named
