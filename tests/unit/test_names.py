"""One rule of names: a person pastes them into a shell, and Kubernetes makes objects of them."""

from __future__ import annotations

import shlex

import pytest

from shoal.errors import UsageError
from shoal.model.names import LONGEST, checked, command, suggested


@pytest.mark.parametrize("name", ["a", "etl-2", "2026-report", "x" * LONGEST])
def test_a_label_is_a_name(name: str) -> None:
    assert checked(name) == name


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("my cluster", "my-cluster"),
        ("-x", "x"),
        ("", ""),
        ("a/b", "a-b"),
        ("größe", "grosse"),
        ("../../etc", "etc"),
        ("Nightly", "nightly"),
        ("a_b", "a-b"),
        ("x-", "x"),
        ("x" * 41, "x" * 40),
        ("a\n", "a"),
        ("日本", ""),
    ],
)
def test_what_is_no_label_is_refused_with_a_name_that_is(name: str, instead: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked(name)
    assert suggested(name) == instead
    if instead:
        assert repr(instead) in caught.value.hint
        assert checked(instead) == instead


@pytest.mark.parametrize("name", ["my cluster", "-x", "a'b", "$(id)", "größe"])
def test_a_hint_with_an_old_name_can_be_pasted(name: str) -> None:
    words = shlex.split(command("down", name))
    assert words[-1] == name
    assert not name.startswith("-") or words[-2] == "--"
