"""How an adaptive cluster grows and shrinks, as a table of moments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.engines.limits import ENGINE
from shoal.head.adapt import Adapt


def follow(
    looks: list[tuple[float, int, int | None]], minimum: int = 2, maximum: int = 10
) -> list[int | None]:
    adapt, said = Adapt(minimum, maximum), []
    for now, have, desired in looks:
        adapt, target = adapt.seen(have, desired, now)
        said.append(target)
    return said


def test_it_grows_at_once_and_no_further_than_its_maximum() -> None:
    assert follow([(0, 2, 5)]) == [5]
    assert follow([(0, 2, 50)]) == [10]


def test_a_refusal_is_asked_again_only_after_a_while() -> None:
    looks = [(0.0, 2, 5), (1.0, 2, 5), (ENGINE.ask_every, 2, 5)]
    assert follow(looks) == [5, None, 5]


def test_it_shrinks_when_fewer_were_enough_for_long_to_the_most_that_was_wanted_meanwhile() -> None:
    looks = [(0.0, 8, 3), (10.0, 8, 5), (20.0, 8, 2), (ENGINE.shrink_after, 8, 2)]
    assert follow(looks) == [None, None, None, 5]


def test_a_moment_of_full_use_starts_the_patience_anew() -> None:
    looks = [(0.0, 8, 2), (20.0, 8, 8), (ENGINE.shrink_after, 8, 2), (ENGINE.shrink_after + 20, 8, 2)]
    assert follow(looks) == [None, None, None, None]


def test_it_never_shrinks_below_its_minimum_nor_on_no_answer() -> None:
    assert follow([(0.0, 4, 0), (ENGINE.shrink_after, 4, 0)]) == [None, 2]
    assert follow([(0.0, 4, 0), (ENGINE.shrink_after, 4, None), (ENGINE.shrink_after + 1, 4, 0)]) == [
        None,
        None,
        None,
    ]


@given(st.lists(st.tuples(st.integers(2, 10), st.one_of(st.none(), st.integers(0, 100))), max_size=80))
def test_whatever_is_wanted_it_stays_in_its_range(looks: list[tuple[int, int | None]]) -> None:
    said = follow([(float(number), have, desired) for number, (have, desired) in enumerate(looks)])
    assert all(target is None or 2 <= target <= 10 for target in said)
