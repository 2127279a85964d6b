"""What a mistake in a filter is told as: where it is, what was found, what could stand there, and how it is written.

PyIceberg's parser tells of each by 2,500 characters of its grammar.
"""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.expressions.parser import parse
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BooleanType,
    DateType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

import shoal
from shoal.tables import errors
from shoal.tables.reading.filters import as_expression
from shoal.tables.reading.misread import find_mistake

SCHEMA = Schema(
    NestedField(1, "id", LongType()),
    NestedField(2, "s", StringType()),
    NestedField(3, "ts", TimestampType()),
    NestedField(4, "z", TimestamptzType()),
    NestedField(5, "d", DateType()),
    NestedField(6, "b", BooleanType()),
    NestedField(7, "l", ListType(8, LongType())),
    NestedField(9, "st", StructType(NestedField(10, "a", LongType()))),
)


def refusal(filters: Any) -> errors.FilterError:
    with pytest.raises(errors.FilterError) as caught:
        as_expression(filters, SCHEMA, "the table n.t")
    assert len(str(caught.value)) < 300
    assert caught.value.hint
    assert str(caught.value).count(caught.value.hint) == 1, "the hint is said once"
    return caught.value


@pytest.mark.parametrize(
    ("text", "at", "found", "expected", "hint"),
    [
        ("", 1, "the end", "a column", "as in SQL"),
        ("id >", 5, "the end", "a value", "as in SQL"),
        ("id", 3, "the end", "a comparison", "as in SQL"),
        ("id > 1 s", 8, "'s'", '"and", "or" or the end', "as in SQL"),
        ("(id > 1", 8, "the end", '"and", "or" or ")"', "as in SQL"),
        ("id > 1 or or s = 'a'", 11, "'or'", "a column", "as in SQL"),
        ("s = 'a", 5, '"\'a"', "a text that ends", "single quote"),
        ('s = "a"', 5, "'\"a\"'", "a value", "'a'"),
        ("s = a", 5, "'a'", "a value", "single quotes"),
        ("id = null", 6, "'null'", "a value", "is null"),
        ("id is nul", 7, "'nul'", '"null"', "as in SQL"),
        ("id in 1", 7, "'1'", "values in parentheses", "as in SQL"),
        ("id in (1, 2.5)", 11, "'2.5'", "a value written as the first", "(1.0, 2.5)"),
        ("id in (1,)", 10, "')'", "a value", "as in SQL"),
        ("id between 1", 13, "the end", '"and"', "as in SQL"),
        ("id = 1e3", 6, "'1e3'", "a value", "1000"),
        ("upper(s) = 'A'", 6, "'('", "a comparison", "do not support functions"),
        ("ts > timestamp '2026-01-01' or ts > now()", 37, "'now'", "a value", "single quotes"),
        ("ts > interval '1 day'", 6, "'interval'", "a value", "'2026-01-02 00:00:00'"),
        ("select * from t", 1, "'select'", "a column", "where"),
    ],
)
def test_a_mistake_is_told_in_one_line(text: str, at: int, found: str, expected: str, hint: str) -> None:
    error = refusal(text)
    assert error.values["at"] == at
    assert f"at character {at}: found {found}, expected {expected}" in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("filters", "message", "hint"),
    [
        ("ts = '2026-01-01T02:00:00Z'", "which is timestamp", "ts = '2026-01-01T02:00:00'"),
        ("ts = '2026-02-31'", "'2026-02-31' is not a value of 'ts'", "ts = '2026-01-31T09:30:00'"),
        ("z = '2026-01-01 02:00:00'", "which is timestamptz", "z = '2026-01-01T02:00:00+00:00'"),
        ("z in ('2026-01-01')", "which is timestamptz", "z = '2026-01-01T00:00:00+00:00'"),
        ("d = '2026-01-01T00:00:00'", "which is date", "d = '2026-01-01'"),
        ("d = 'soon'", "which is date", "d = '2026-01-31'"),
        ([("z", ">", dt.date(2026, 1, 2))], "'2026-01-02' is not a value", "z = '2026-01-02T00:00:00+00:00'"),
        ("b = 1", "1 is not a value of 'b', which is boolean", "b = true"),
        ("st.a = 'x'", "'x' is not a value of 'st.a', which is long", "st.a = 40"),
        ("l = 1", "compares with nothing", "by its path"),
        ("st = 1", "compares with nothing", "by its path"),
    ],
)
def test_a_value_that_does_not_fit_comes_with_one_that_would(filters: Any, message: str, hint: str) -> None:
    error = refusal(filters)
    assert message in error.message
    assert hint in error.hint
    if isinstance(filters, str) and "like this: " in error.hint:
        as_expression(error.hint.split("like this: ")[1], SCHEMA, "the table n.t")


@pytest.mark.parametrize(
    ("filters", "same"),
    [
        ("ts > '2026-01-02'", "ts > '2026-01-02T00:00:00'"),
        ("ts > date '2026-01-02'", "ts > '2026-01-02T00:00:00'"),
        ("ts between '2026-01-02 03:04' and '2026-01-02 03:04:05.25'",
         "ts between '2026-01-02T03:04:00' and '2026-01-02T03:04:05.250000'"),
        ("ts in (TIMESTAMP '2026-01-02 03:04:05')", "ts in ('2026-01-02T03:04:05')"),
        ("z <= '2026-01-02 03:04:05+01:00'", "z <= '2026-01-02T02:04:05+00:00'"),
        ("z = '2026-01-02T03:04:05Z'", "z = '2026-01-02T03:04:05+00:00'"),
        ("d = date '2026-01-02' and s = 'date ''x'''", "d = '2026-01-02' and s = 'date ''x'''"),
        ([("ts", ">", dt.date(2026, 1, 2))], "ts > '2026-01-02T00:00:00'"),
    ],
)  # fmt: skip
def test_a_time_as_people_write_it_is_that_time(filters: Any, same: str) -> None:
    assert as_expression(filters, SCHEMA, "n.t") == as_expression(same, SCHEMA, "n.t")


WORDS = ["id", "s", "and", "or", "not", "is", "null", "nan", "in", "like", "between", "true", "(", ")", ","]
WORDS += ["1", "2.5", "'a'", "'b%'", "=", "<=", "<>", "st.a", '"s"', "select", "1e3", ";"]
KEYWORDS = {"and", "or", "not", "is", "null", "nan", "in", "like", "between", "true"}
RIGHT = ["id = 1", "not ( id > 1 or s like 'a%' )", "s in ( 'a' , 'b' ) and 3 < id", "id between 1 and 2"]
RIGHT += [
    "id is not null or st.a not in ( 1 , 2 )",
    "true",
    "s not like 'x%' and id is nan",
    "not not id <> -1",
]


def test_where_the_parser_refuses_there_is_a_mistake_and_nowhere_else() -> None:
    """Filters with one word too many, too few or another, from a fixed seed."""
    dice = random.Random(20260101)
    refused = 0
    for _ in range(600):
        words = dice.choice(RIGHT).split()
        at = dice.randrange(len(words))
        match dice.choice(("add", "drop", "change", "leave")):
            case "add":
                words.insert(at, dice.choice(WORDS))
            case "drop":
                del words[at]
            case "change":
                words[at] = dice.choice(WORDS)
        text = " ".join(words)
        try:
            parse(text)
        except Exception:
            refused += 1
            mistake = find_mistake(text)
            assert mistake is not None, text
            assert 1 <= mistake.at <= len(text) + 1
        else:
            mistake = find_mistake(text)
            # The parser takes a column for what it is by what follows: "in = 1" is one too.
            assert mistake is None or mistake.found.strip("'") in KEYWORDS, text
    assert 200 < refused < 550


def test_a_null_key_names_its_own_column(name: str) -> None:
    """The hint spoke of a column ``key`` that nobody had."""
    shoal.write_table(pa.table({"id": [1], "s": ["a"]}), name)
    bad = pa.table({"id": [1], "s": pa.array([None], pa.string())})
    with pytest.raises(errors.DuplicateKeysError) as caught:
        shoal.write_table(bad, name, mode="upsert", keys=["id", "s"])
    assert caught.value.hint == "Leave those rows out: df[df['s'].notnull()]."
