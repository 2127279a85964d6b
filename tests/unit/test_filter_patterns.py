"""Patterns in text filters mean what they mean in SQL, or are refused."""

from __future__ import annotations

import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField, StringType

from shoal.tables.errors import FilterError
from shoal.tables.reading.filters import as_expression

SCHEMA = Schema(NestedField(1, "s", StringType(), required=False))


@pytest.mark.parametrize("pattern", ["a_%", "a_", r"a\_%", r"a\\%", "%a", "a%b", "_"])
@pytest.mark.parametrize("word", ["like", "not like", "LIKE"])
def test_a_pattern_that_is_no_prefix_is_refused_and_not_taken_literally(word: str, pattern: str) -> None:
    with pytest.raises(FilterError, match="only the start of a text") as refused:
        as_expression(f"s = 'like' or s {word} '{pattern}'", SCHEMA, "a.b")
    assert "like 'abc%'" in str(refused.value.hint)


@pytest.mark.parametrize(
    "text", ["s like 'a%'", "s not like 'a%'", r"s like 'a\%'", "s like 'a'", "s = 'a_%'", "s = 'x like a_b'"]
)
def test_prefixes_and_equal_texts_are_read(text: str) -> None:
    assert as_expression(text, SCHEMA, "a.b")
