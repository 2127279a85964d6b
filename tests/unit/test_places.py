"""Which targets are one place: what is kept by place is found by all of them, and by no other."""

from __future__ import annotations

import pytest

from shoal.project.targets import Cloud, Target


def place(**of_target: object) -> str:
    return Target(**of_target).place  # type: ignore[arg-type]


def test_the_users_own_ledger_is_one_place_whatever_its_target_is_called() -> None:
    assert place(name="local", home="local") == place(name="mine", home="local") == ""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (
            {"home": "local", "store": "postgresql://ann:old@db/shoal"},
            {"store": "postgresql://ann:new@db/shoal"},
            True,
        ),
        ({"home": "local", "store": "postgresql://db/shoal"}, {"store": "postgresql://db/other"}, False),
        ({"home": "local", "store": "sqlite:////a.db"}, {"store": "sqlite:////b.db"}, False),
        ({"home": "kubernetes"}, {"name": "renamed"}, True),
        ({"home": "kubernetes"}, {"kubernetes": Cloud()}, True),
        ({"home": "kubernetes"}, {"kubernetes": Cloud(namespace="shoal-ann")}, False),
        ({"home": "kubernetes"}, {"kubernetes": Cloud(context="other")}, False),
        ({"home": "kubernetes"}, {"home": "local"}, False),
    ],
)
def test_a_place_is_a_store_or_a_namespace(
    one: dict[str, object], other: dict[str, object], same: bool
) -> None:
    one = {"name": "one"} | one
    assert (place(**one) == place(**one | other)) is same


def test_a_place_tells_no_password_and_is_one_name_of_a_folder() -> None:
    named = place(name="team", home="local", store="postgresql://ann:secret@db/shoal")
    assert named.isalnum()
    assert "secret" not in named
