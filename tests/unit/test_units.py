"""Amounts keep their meaning through text and back, and never guess a unit."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import UnitError
from shoal.project.settings import parse_rate, parse_share
from shoal.units import Bytes, Money, Seconds


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("14 GB", 14 * 1000**3),
        ("14GiB", 14 * 1024**3),
        ("1.5 TB", 1_500_000_000_000),
        ("0 B", 0),
        (".5 kB", 500),
        # As people write them: G is 10^9, Gi is 2^30.
        ("8G", 8 * 1000**3),
        ("8Gi", 8 * 1024**3),
        ("8gb", 8 * 1000**3),
        ("8gib", 8 * 1024**3),
        ("512M", 512 * 1000**2),
        ("2 tb", 2 * 1000**4),
        ("4 KB", 4000),
    ],
)
def test_a_size_is_read_by_its_unit(text: str, bytes_: int) -> None:
    assert Bytes.parse(text) == bytes_


@pytest.mark.parametrize(
    "text", ["14", 14, 14.0, "14 Gx", "500m", "-1 GB", "GB", "", "1 GB 2 GB", "nan GB", None]
)
def test_a_size_without_a_clear_unit_is_refused(text: object) -> None:
    with pytest.raises(UnitError) as caught:
        Bytes.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("2 hours", 7200),
        ("1 Hour", 3600),
        ("2h30m", 9000),
        ("1 h 30 min", 5400),
        ("90sec", 90),
        ("1 day", 86400),
        ("500 ms", 0.5),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert Seconds.parse(text) == seconds


@pytest.mark.parametrize("text", ["4", 4, "4 hourz", "-4 h", "h", "4 h 30", "4 h -3 min", ""])
def test_a_duration_without_a_clear_unit_is_refused(text: object) -> None:
    with pytest.raises(UnitError):
        Seconds.parse(text)


@given(st.integers(1, 999), st.sampled_from(["kB", "MB", "GB", "TB"]))
def test_a_round_size_survives_text(number: int, unit: str) -> None:
    size = Bytes.parse(f"{number} {unit}")
    assert str(size) == f"{number} {unit}"
    assert Bytes.parse(str(size)) == size


@given(st.integers(0, 10**15))
def test_any_size_is_shown_within_five_percent(number: int) -> None:
    assert abs(Bytes.parse(str(Bytes(number))) - number) <= number * 0.05


@given(st.integers(1, 10**7))
def test_whole_seconds_survive_text(number: int) -> None:
    assert Seconds.parse(str(Seconds(number))) == number


@given(st.decimals(0, 10**6, places=2))
def test_money_survives_text(amount: object) -> None:
    money = Money.parse(f"{amount} USD")
    assert Money.parse(str(money)) == money


@pytest.mark.parametrize(
    ("value", "share"), [("50%", 0.5), (0.5, 0.5), (1, 1.0), ("0 %", 0.0), ("12.5%", 0.125)]
)
def test_a_share_is_a_percentage_or_a_number_up_to_one(value: object, share: float) -> None:
    assert parse_share(value) == share


@pytest.mark.parametrize("value", [50, "50", "101%", -0.1, True, "half", None])
def test_a_share_that_could_mean_two_things_is_refused(value: object) -> None:
    with pytest.raises(UnitError):
        parse_share(value)


def test_a_rate_is_bytes_per_second() -> None:
    assert parse_rate("40 MB/s") == 40_000_000
    with pytest.raises(UnitError):
        parse_rate("40 MB")


def test_an_error_keeps_its_values_through_pickle() -> None:
    error = UnitError("no unit", hint="write one", value=14)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.values) == (UnitError, "no unit\nwrite one", {"value": 14})
