"""Scripts in the background: how they exited and what they wrote is there for whoever asks later."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

FAILS = """
import shoal
with shoal.dask("small") as cluster:
    print("three is", cluster.client.submit(sum, [1, 2]).result())
raise SystemExit(7)
"""


@pytest.fixture(scope="module")
def bad(shoal: Any) -> str:
    """A detached script that failed with 7, after its end."""
    shoal.write("fail.py", FAILS)
    begun = shoal("submit", "fail.py", "-t", "small", "-w", "1", "--detach", "--name", "bad")
    assert begun.code == 0, begun
    assert "shoal wait bad" in begun.out
    waited = shoal.quick("wait", "bad", "--timeout", "90 s")
    assert waited.code == 7, waited
    assert "exit code 7" in waited.out
    return "bad"


def test_the_exit_code_of_a_detached_script_is_wherever_its_end_is_told(shoal: Any, bad: str) -> None:
    row = next(row for row in shoal.quick("ls", "--all", "-o", "json").json if row["name"] == bad)
    assert (row["state"], row["result"], row["exit_code"]) == ("Stopped", "failed", 7)
    why = shoal.quick("why", bad, "-o", "json").json
    assert why["exit_code"] == 7
    last = why["steps"][-1]
    assert (last["outcome"], last["fix"]) == ("failed", f"shoal logs {bad}")
    assert shoal.quick("report", bad, "-o", "json").json["exit_code"] == 7
    for command in (["ls", "--all"], ["why", bad], ["report", bad]):
        assert "script failed: exit code 7" in " ".join(shoal.quick(*command, COLUMNS="200").out.split())
    waited = shoal.quick("wait", bad, "-o", "json")
    assert (waited.code, waited.json["exit_code"], waited.json["result"]) == (7, 7, "failed")


def test_a_failed_script_is_no_clean_run_to_advise_from(shoal: Any, bad: str) -> None:
    left_out = shoal.quick("advise", "small", "-o", "json").json["left_out"]
    assert f"{bad}: its script failed (exit code 7)" in left_out


def test_logs_are_the_scripts_output_and_the_engines_for_who_asks(shoal: Any, bad: str) -> None:
    text = shoal.quick("logs", bad).out
    assert "three is 3" in text
    assert "distributed.scheduler" not in text
    told = shoal.quick("logs", bad, "-o", "json").json
    assert (told["source"], told["name"]) == ("script", bad)
    assert "three is 3" in told["lines"]
    engine = shoal.quick("logs", bad, "--head", "--level", "info").out
    assert "distributed.scheduler - INFO" in engine
    assert "three is 3" not in engine
    assert "distributed.scheduler" not in shoal.quick("logs", bad, "--workers", "--level", "info").out
    quiet = shoal.quick("logs", bad, "--level", "warning")
    assert "distributed.scheduler - INFO" not in quiet.out
    assert "the head is running" in quiet.out
    assert f"shoal logs {bad} --level info" in quiet.err


def test_logs_follow_a_script_to_its_end(shoal: Any) -> None:
    shoal.write(
        "slow.py",
        """
        import time
        for number in range(6):
            print("step", number, flush=True)
            time.sleep(0.5)
        """,
    )
    shoal("submit", "slow.py", "-t", "small", "-w", "1", "--detach", "--name", "slow")
    again = shoal("submit", "slow.py", "-t", "small", "-w", "1", "--detach", "--name", "slow")
    assert again.code == 2
    assert "a script named 'slow' is running" in again.err
    followed = shoal("logs", "slow", "--follow")
    assert [line for line in followed.out.splitlines() if line.startswith("step")] == [
        f"step {number}" for number in range(6)
    ]
    waited = shoal.quick("wait", "slow")
    assert waited.code == 0, waited
    view = next(row for row in shoal.quick("ls", "--all", "-o", "json").json if row["name"] == "slow")
    assert view["result"] == "succeeded"


def test_a_script_that_never_got_a_cluster_is_waited_for_and_its_refusal_is_read(shoal: Any) -> None:
    shoal.write("never.py", "print('never')\n")
    for name in ("stays", "stays-too"):
        shoal("up", "small", "-w", "1", "--name", name, "--detach", "--yes")
    begun = shoal("submit", "never.py", "-t", "small", "-w", "1", "--detach", "--name", "never")
    assert begun.code == 0, begun
    waited = shoal.quick("wait", "never", "--timeout", "60 s")
    assert waited.code == 3, waited
    assert "you hold 2 of 2" in shoal.quick("logs", "never").out
    shoal.quick("down", "stays-too")
    late = shoal.quick("wait", "stays", "--timeout", "1 s")
    assert late.code == 4
    assert "has not ended after 1 s" in late.err
    shoal.quick("down", "stays")
    assert shoal.quick("wait", "stays").code == 0
    assert shoal.quick("wait", "nosuch").code == 2


def test_a_name_that_cannot_be_pasted_is_refused_before_anything_starts(shoal: Any) -> None:
    shoal.write("never.py", "print('never')\n")
    names = ["my cluster", "-x", "", "a/b", "Größe", "x" * 41]
    commands = (["up", "small"], ["submit", "never.py", "-t", "small", "--detach"])
    calls = [[*command, f"--name={name}", "--yes"] for name in names for command in commands]
    for answer in shoal.many(calls):
        assert answer.code == 2, answer
        assert answer.err.startswith("Error: '"), "nothing is shown of what cannot be"
        assert "cannot be a cluster's name" in answer.err
    assert not set(names) & {row["name"] for row in shoal.quick("ls", "--all", "-o", "json").json}


def test_a_script_of_any_name_gets_a_cluster_with_a_name(shoal: Any) -> None:
    shoal.write("Clean_Up 2.py", "print('done')\n")
    answer = shoal("submit", "Clean_Up 2.py", "-t", "small", "-w", "1", "-o", "json")
    assert answer.code == 0, answer
    assert answer.json["name"].startswith("clean-up-2-")
    assert answer.json["result"] == "succeeded"


def test_a_script_that_was_killed_is_no_success(shoal: Any, eventually: Callable[..., Any]) -> None:
    shoal.write("endless.py", "import time\nprint('on it', flush=True)\ntime.sleep(600)\n")
    begun = shoal(
        "submit", "endless.py", "-t", "small", "-w", "1", "--detach", "--name", "killed", "-o", "json"
    ).json
    eventually(lambda: "on it" in shoal.quick("logs", "killed").out, 60, "it runs")
    os.kill(begun["pid"], signal.SIGTERM)
    shoal.quick("down", "killed")
    waited = shoal.quick("wait", "killed", "--timeout", "60 s")
    assert waited.code not in (0, 2), waited


def test_a_script_is_of_the_place_where_its_cluster_lives(shoal: Any, eventually: Callable[..., Any]) -> None:
    """`shoal down NAME --target elsewhere` ended a script of that name, wherever its cluster was."""
    shoal.write("endless.py", "import time\nprint('on it', flush=True)\ntime.sleep(600)\n")
    (shoal.folder / "elsewhere").mkdir()
    shoal.write(
        "elsewhere/shoal.yaml",
        f"default_target: team\ntargets: {{team: {{home: local, store: 'sqlite:///{shoal.folder}/team.db'}}}}\n",
    )
    shoal("submit", "endless.py", "-t", "small", "-w", "1", "--detach", "--name", "here")
    eventually(lambda: "on it" in shoal.quick("logs", "here").out, 60, "it runs")
    for command in ("down", "wait", "logs"):
        answer = shoal.quick(command, "here", "--project", "elsewhere")
        assert answer.code == 2, answer
        assert "cluster named 'here'" in answer.err
    assert shoal.quick("wait", "here", "--timeout", "1 s").code == 4, "it goes on"
    assert shoal.quick("down", "here").code == 0
    assert shoal.quick("wait", "here", "--timeout", "60 s").code == 143


WRONG = """
import shoal

def parse(text):
    return int(text)

def main():
    with shoal.dask("small") as cluster:
        cluster.client.submit(parse, "twelve").result()

if __name__ == "__main__":
    main()
"""


def test_an_error_in_a_script_shows_the_scripts_own_frames(shoal: Any) -> None:
    shoal.write("wrong.py", WRONG)
    short = shoal("submit", "wrong.py", "-t", "small", "-w", "1", "--name", "wrong")
    assert short.code == 1, short
    text = short.err[short.err.index("Traceback") :]
    assert "ValueError: invalid literal for int() with base 10: 'twelve'" in text
    assert [line.split(", ")[-1] for line in text.splitlines() if line.startswith("  File ")] == [
        "in <module>",
        "in main",
        "in parse",
    ]
    assert "of Shoal and its engines left out; SHOAL_LOG=debug shows all" in text
    called = shoal("submit", "wrong.py:main", "-t", "small", "-w", "1", "--name", "wrong")
    assert called.code == 1, called
    files = [line for line in called.err.splitlines() if line.startswith("  File ")]
    assert [line.split(", ")[-1] for line in files] == ["in main", "in parse"]
    whole = shoal("submit", "wrong.py", "-t", "small", "-w", "1", "--name", "wrong", SHOAL_LOG="debug")
    assert whole.code == 1
    assert "distributed" in whole.err[whole.err.index("Traceback") :]
    assert "left out" not in whole.err
