"""How ``shoal submit --detach`` says the same command once more."""

from __future__ import annotations

import pytest

from shoal.cli.commands.submit import _again


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("submit a.py --detach", "submit --name n --yes a.py"),
        ("submit a.py -y --detach -o json", "submit --name n --yes a.py"),
        ("submit --output=json a.py --name mine -ojson", "submit --yes a.py --name mine"),
        ("submit a.py --detach -- -o x --detach --yes", "submit --name n --yes a.py -- -o x --detach --yes"),
    ],
)  # fmt: skip
def test_the_command_in_the_background_is_named_agreed_and_answers_nobody(typed: str, said: str) -> None:
    assert _again(typed.split(), "n") == said.split()
