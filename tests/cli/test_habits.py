"""What people bring along: other terminals, other words, a file that is broken while a cluster runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

BROKEN = "workers: {min: 3}\ncolour: red\n"


def test_one_bad_file_takes_nothing_away_from_what_runs(small: Any) -> None:
    up = small("up", "small", "-w", "1", "--name", "runs", "--detach", "--yes")
    assert up.code == 0, up
    assert "without a client" not in up.err  # it is detached
    small.write("clusters/bad.yaml", BROKEN)
    quota, plan, bad, doctor = small.many([["quota"], ["plan", "small"], ["plan", "bad"], ["doctor"]])
    small.write("policies/users.yaml", "default: {tier: nosuch}\n")
    ls, why, logs, refused, down, ended = small.many(
        [["ls"], ["why", "runs"], ["logs", "runs"], ["quota"], ["down", "runs"], ["ls", "--all"]]
    )
    for answer in (ls, why, logs, quota, plan, down, ended):
        assert answer.code == 0, answer
    assert (refused.code, "policies/users.yaml:1: default.tier" in ls.err) == (2, True), (refused, ls)
    assert "clusters/bad.yaml:2: colour" in ls.err
    assert "runs" in ls.out
    assert bad.code == 2
    assert "clusters/bad.yaml:2: colour" in bad.err
    assert doctor.code == 4
    assert "clusters/bad.yaml:2: colour" in doctor.out
    assert "Ledger(" not in doctor.out


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.soak)])
def test_a_terminal_that_knows_less_than_unicode_is_served(shoal: Any, encoding: str) -> None:
    for command in (["quota"], ["plan", "small", "--workers", "2"], ["ls", "--all"], ["--help"]):
        answer = shoal(*command, PYTHONIOENCODING=encoding)
        assert answer.code == 0, answer
        assert "defect" not in answer.err
    assert "....." in shoal("quota", PYTHONIOENCODING="ascii").out  # an empty bar is a bar
    refused = shoal("plan", "größe", "-o", "json", PYTHONIOENCODING="ascii")
    assert refused.code == 2
    assert "größe" in json.loads(refused.out)["error"]["message"]


def test_words_from_elsewhere_are_answered_with_ours(shoal: Any) -> None:
    words = {"stop": "down", "rm": "down", "start": "up", "status": "ls", "ps": "ls", "run": "submit"}
    for answer, ours in zip(shoal.many([[word, "x"] for word in words]), words.values(), strict=True):
        assert answer.code == 2
        assert f"`shoal {ours}`" in answer.err


def test_sizes_and_times_as_people_write_them(shoal: Any) -> None:
    first, second = shoal.many(
        [
            ["plan", "small", "--memory", "2Gi", "--max-duration", "1h30m", "-o", "json"],
            ["plan", "small", "--memory", "2gb", "--max-duration", "30m", "-o", "json"],
        ]
    )
    assert json.loads(first.out)["groups"][0]["memory"] == 2 * 1024**3
    assert json.loads(first.out)["timeouts"]["max"] == 5400
    assert json.loads(second.out)["groups"][0]["memory"] == 2 * 10**9
    assert json.loads(second.out)["timeouts"]["max"] == 1800


def test_init_here_sends_nobody_elsewhere(bare: Any) -> None:
    here, there = bare.many([["init"], ["init", "my project"]])
    assert "Next: shoal doctor" in here.out
    assert "Next: cd 'my project'; shoal doctor" in there.out
