"""What the command refuses is told in our words, not in those of the libraries that read it."""

from __future__ import annotations

from typing import Any

USAGE, REFUSED = 2, 3


def test_what_is_wrong_is_told_in_our_words(bare: Any) -> None:
    """Not in those of the libraries that read it, and with what would be right."""
    bare.write(
        "shoal.yaml", "default_target: local\ntargets:\n  local: {home: local, machine: {memory: 2 GB}}\n"
    )
    for call, code, told in (
        (
            ("up", "etl", "--engine", "sparkk"),
            USAGE,
            "'--engine' / '-e': 'sparkk' is not one of 'dask', 'spark'",
        ),
        (("scale", "one", "nine"), USAGE, "'WORKERS': It is not a whole number."),
        (
            ("up", "etl", "--workers", "1"),
            REFUSED,
            "of memory; the machine has 2 GB of memory: machine: of the target",
        ),
    ):
        answer = bare.quick(*call)
        assert answer.code == code, answer
        assert told in " ".join(answer.err.split())
    answer = bare.quick("ls", SHOAL_PROJECT="/nope")
    assert answer.code == USAGE
    assert "There is no shoal.yaml in /nope (from SHOAL_PROJECT)" in answer.err
    bare.write("shoal.yaml", "default_target: local\ntargets:\n  local: {home: local, machine: atuo}\n")
    answer = bare.quick("plan", "etl")
    assert answer.code == USAGE
    assert "'atuo' is not a machine; write auto, or a mapping with the keys cores, memory, gpus" in answer.err
