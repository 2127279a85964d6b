"""Values in the place of parameters: what Spark makes of them is in tests/homes/test_spark_cluster.py."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from shoal.client.binding import bind, literal
from shoal.errors import UsageError


def test_only_parameters_are_replaced() -> None:
    query = """select ':a', ":a", `:a`, x::date, r'\\', :a, t[1:2] -- :a
    /* :a
    */ from t where b =:a and c = "it\\":a" """
    assert bind(query, {"a": 7, "unused": 1}).count("(7)") == 2
    assert bind("select ?, '?'", [1]) == "select (1), '?'"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "NULL"),
        (True, "TRUE"),
        (-3, "(-3)"),
        (2**70, f"({2**70}BD)"),
        (1e300, "(1e+300D)"),
        (float("nan"), "double('nan')"),
        (Decimal("-1.50"), "(-1.50BD)"),
        ("Zürich", "'Zürich'"),
        ("' or 1=1 --", "decode(X'27206f7220313d31202d2d', 'UTF-8')"),
        ("\\", "decode(X'5c', 'UTF-8')"),
        (b"\x00\xff", "X'00ff'"),
        (dt.date(2026, 11, 30), "DATE'2026-11-30'"),
        (dt.datetime(2026, 11, 30, 1, 2, tzinfo=dt.UTC), "TIMESTAMP'2026-11-30 01:02:00+00:00'"),
        (["a", None], "array('a', NULL)"),
    ],
)
def test_a_value_is_a_literal_and_nothing_more(value: object, said: str) -> None:
    assert literal(value, "x") == said


def test_what_cannot_be_bound_is_told() -> None:
    with pytest.raises(UsageError, match=":day, which is given no value"):
        bind("select :day", {"date": 1})
    with pytest.raises(UsageError, match="of type object"):
        bind("select :a", {"a": object()})
    for values in ([1], [1, 2, 3]):
        with pytest.raises(UsageError, match="2 placeholders"):
            bind("select ?, ?", values)
