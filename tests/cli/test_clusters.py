"""The commands on real clusters: a person's day, a script's run, a hand on Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

SCRIPT = """
import os, sys
import shoal

def main():
    with shoal.dask("small") as cluster:
        print(cluster.name, cluster.client.submit(sum, [1, 2, 3]).result(), *sys.argv[1:])
    sys.exit(int(os.environ.get("LEAVE_WITH", "0")))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def nightly(shoal: Any) -> Iterator[dict[str, Any]]:
    """A Dask cluster of one worker that several tests look at."""
    answer = shoal("up", "small", "-w", "1", "--name", "nightly", "--detach", "--yes", "-o", "json")
    assert answer.code == 0, answer
    yield answer.json
    shoal.quick("down", "nightly")


def test_up_answers_when_it_is_ready(nightly: dict[str, Any]) -> None:
    assert nightly["state"] == "Ready"
    assert nightly["reason"] == "Serving"
    assert nightly["workers"] == nightly["workers_planned"] == 1


def test_ls_tells_whose_it_is_why_since_when_and_when_it_ends(
    shoal: Any, nightly: dict[str, Any], eventually: Callable[..., Any]
) -> None:
    def listed() -> dict[str, Any] | None:
        row = next(row for row in shoal.quick("ls", "-o", "json").json if row["name"] == "nightly")
        return row if row["status"]["ends_reason"] else None

    row = eventually(listed, 10, "the head has looked around once since it is Ready")
    for key in ("name", "owner", "engine", "template", "state", "reason", "since", "workers"):
        assert row[key], key
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["since"])
    assert row["owner"] == "alice"
    # Detached: nothing ends it for want of a client, only idleness does.
    assert row["status"]["ends_reason"] == "Idle"
    assert 0 < row["status"]["ends_in"] <= 300
    text = shoal.quick("ls").out
    assert re.search(r"nightly\s+alice\s+dask\s+small\s+Ready", text)


def test_others_see_it_and_cannot_end_it_by_name(shoal: Any, nightly: dict[str, Any]) -> None:
    assert [row["owner"] for row in shoal.quick("ls", "-o", "json", SHOAL_USER="bob").json] == ["alice"]
    assert shoal.quick("ls", "--mine", "-o", "json", SHOAL_USER="bob").json == []
    assert shoal.quick("down", "nightly", SHOAL_USER="bob").code == 2


def test_the_same_name_gives_the_same_cluster(shoal: Any, nightly: dict[str, Any]) -> None:
    again = shoal("up", "small", "--name", "nightly", "--yes", "-o", "json")
    assert again.json["id"] == nightly["id"]
    other = shoal("up", "small", "--engine", "spark", "--name", "nightly", "--yes")
    assert other.code == 2
    assert "you have a live cluster named 'nightly'" in other.err


def test_a_name_in_use_is_no_way_to_another_size_and_scale_is(shoal: Any, nightly: dict[str, Any]) -> None:
    refused = shoal("up", "small", "-w", "2", "--name", "nightly", "--yes")
    assert refused.code == 2
    assert re.search(r"workers +2 +1\n", refused.err)
    assert "shoal scale nightly 2" in refused.err
    assert shoal.quick("scale", "nightly", "2", "-o", "json").json["workers"] == 2
    assert "nightly has 1 worker" in shoal.quick("scale", "nightly", "1").out
    assert shoal.quick("scale", "nightly", "9").code == 3
    assert shoal.quick("scale", "nightly", "0").code == 2


def test_a_script_submitted_to_a_live_cluster_leaves_it_running(shoal: Any, nightly: dict[str, Any]) -> None:
    shoal.write("clean.py", SCRIPT)
    answer = shoal("submit", "clean.py", "-t", "small", "-w", "1", "--name", "nightly")
    assert (answer.code, answer.out) == (0, "nightly 6\n"), answer
    assert "attached to it, and it keeps running" in answer.err
    assert nightly["id"] in {row["id"] for row in shoal.quick("ls", "-o", "json").json}


def test_names_that_are_nearly_right_are_put_right(shoal: Any, nightly: dict[str, Any]) -> None:
    for command in ("why", "logs", "down"):
        answer = shoal.quick(command, "nihgtly")
        assert answer.code == 2
        assert "Did you mean nightly?" in answer.err


def test_why_walks_to_health(shoal: Any, nightly: dict[str, Any]) -> None:
    view = shoal.quick("why", "nightly", "-o", "json").json
    assert [step["stage"] for step in view["steps"]] == [
        "policy", "quota", "capacity", "image", "start-up", "health",
    ]  # fmt: skip
    assert [step["outcome"] for step in view["steps"]] == ["passed"] * 5 + ["now"]
    assert view["history"][0]["state"] == "Admitted"
    assert view["history"][-1]["state"] == "Ready"
    assert "1 of 1 worker ready" in shoal.quick("why", "nightly").out


def test_why_tells_that_a_budget_is_nearly_spent(shoal: Any, nightly: dict[str, Any]) -> None:
    assert shoal.quick("why", "nightly", "-o", "json").json["budgets"] == []
    everybody = shoal.write("policies/everybody.yaml", "budget: {monthly: 0.001 core-hours}\n")
    try:
        (told,) = shoal.quick("why", "nightly", "-o", "json").json["budgets"]
        assert "of the budget of everybody of 0.001 core-hours for" in told
        assert told.partition("%")[2] in shoal.quick("why", "nightly").out  # more is spent by now
    finally:
        everybody.unlink()


def test_logs_are_the_heads(shoal: Any, nightly: dict[str, Any]) -> None:
    assert "the head is running" in shoal.quick("logs", "nightly", "-n", "2000").out
    assert len(shoal.quick("logs", "nightly", "-n", "3", "-o", "json").json["lines"]) == 3


def test_extend_gives_so_much_more_or_says_what_the_tier_gives(shoal: Any, nightly: dict[str, Any]) -> None:
    assert "maximum lifetime is now 2 h (was 1 h);" in shoal.quick("extend", "nightly", "+1h").out
    shorter = "is now 1 h 30 min, shorter than the 2 h before (+1 h 30 min adds to it);"
    assert shorter in shoal.quick("extend", "nightly", "90 min").out
    too_short = shoal.quick("extend", "nightly", "0.001 s")
    assert too_short.code == 2
    assert "nightly has lived" in too_short.err
    assert "shoal extend nightly +" in too_short.err
    refused = shoal.quick("extend", "nightly", "+3h")
    assert refused.code == 3
    assert "the limit per cluster is 4 h of lifetime: tier standard" in refused.err
    for less in (["-1", "h"], ["-1h"], ["-1 h"]):
        negative = shoal.quick("extend", "nightly", *less)
        assert (negative.code, "a lifetime cannot be negative" in negative.err) == (2, True)


def test_quota_tells_what_waits_apart_from_what_is_held(shoal: Any, nightly: dict[str, Any]) -> None:
    shoal("up", "small", "-w", "1", "--name", "second", "--detach", "--yes")
    queued = shoal(
        "up",
        "small",
        "-w",
        "2",
        "--name",
        "third",
        "--detach",
        "--queue",
        "--priority",
        "1",
        "--yes",
        "-o",
        "json",
    ).json
    try:
        assert queued["state"] == "Queued"
        assert queued["place"] == 1
        assert queued["latest_start"] is not None
        memory = next(
            row for row in shoal.quick("quota", "-o", "json").json["totals"] if row["what"] == "memory"
        )
        assert (memory["held"], memory["queued"], memory["free"]) == (2 * 10**9, 2 * 10**9, 4 * 10**9)
        assert "2 GB queued" in shoal.quick("quota").out
        assert re.search(r"starts by \d\d", " ".join(shoal.quick("ls", COLUMNS="250").out.split()))
        why = " ".join(shoal.quick("why", "third", COLUMNS="250").out.split())
        # With its date where that is tomorrow.
        assert re.search(r"starts by (\d{4}-\d\d-\d\d )?\d\d:\d\d at the latest", why)
    finally:
        shoal.quick("down", "second", "third", "--yes")


def test_quota_tells_what_is_held_and_by_whom(shoal: Any, nightly: dict[str, Any]) -> None:
    view = shoal.quick("quota", "-o", "json").json
    held = {row["what"]: row["held"] for row in view["totals"]}
    assert held["clusters"] == 1
    assert held["memory"] == 1_000_000_000
    assert [row["name"] for row in view["clusters"]] == ["nightly"]
    assert "nightly" in shoal.quick("quota").out


def test_top_tells_what_is_used(shoal: Any, nightly: dict[str, Any]) -> None:
    text = shoal.quick("top", "--once").out
    assert re.search(r"nightly\s+Ready\s+1/1", text)
    assert "500 MB" in text
    assert shoal.quick("top", "-o", "json").json[0]["status"]["memory"] > 0


def test_a_report_has_times_and_a_picture(shoal: Any, nightly: dict[str, Any]) -> None:
    view = shoal.quick("report", "nightly", "--html", "nightly.html", "-o", "json").json
    assert view["phases"]["Starting"] > 0
    assert view["price"] is None
    page = (shoal.folder / "nightly.html").read_text()
    assert "<svg" in page
    assert "nightly" in page
    assert shoal.quick("report", "nightly", "--html", "no/such/folder.html").code == 4


def test_a_refusal_names_the_holder_and_ways_on_that_work(shoal: Any, nightly: dict[str, Any]) -> None:
    with_two = shoal("up", "small", "-w", "2", "--name", "two", "--detach", "--yes")
    assert with_two.code == 0, with_two
    refused = shoal("up", "small", "-w", "3", "--name", "three", "--yes")
    assert refused.code == 3
    assert "you hold" in refused.err
    assert "nightly" in refused.err
    ways = re.findall(r"shoal down ([\w -]+)", refused.err)
    assert ways
    assert shoal.quick("plan", "small", "-w", "3", "-o", "json").json["admission"]["fits"] is False
    assert shoal.quick("why", "three", "-o", "json").json["state"] == "Refused"
    assert shoal.quick("down", *ways[0].split()).code == 0
    assert shoal.quick("down", "two").code in (0, 2)
    shoal("up", "small", "-w", "1", "--name", "nightly", "--detach", "--yes")


def test_down_waits_and_says_what_it_took(shoal: Any) -> None:
    up = shoal("up", "small", "-w", "1", "--name", "brief", "--yes", "-o", "json").json
    assert up["id"] in shoal.marked().values()
    assert shoal.quick("down", "brief", "--dry-run", "-o", "json").json[0]["state"] == "Ready"
    answer = shoal.quick("down", "brief", "-o", "json").json
    assert answer[0]["state"] == "Stopped"
    assert answer[0]["reason"] == "StoppedByUser"
    assert answer[0]["report"]["price"] is None
    assert answer[0]["report"]["worker_hours"] > 0
    assert up["id"] not in shoal.marked().values()
    assert shoal.quick("down", "brief").code == 2
    assert "StoppedByUser" in shoal.quick("why", "brief").out
    assert "brief" in shoal.quick("logs", "brief", "-o", "json").out


def test_a_script_gets_the_cluster_and_its_exit_code_is_passed_on(shoal: Any) -> None:
    shoal.write("clean.py", SCRIPT)
    answer = shoal(
        "submit", "clean.py", "-t", "small", "-w", "1", "--name", "job", "--", "--month", "3", LEAVE_WITH="7"
    )
    assert answer.code == 7, answer
    assert answer.out == "job 6 --month 3\n"
    assert "worker-hours" in answer.err
    assert "job" not in {row["name"] for row in shoal.quick("ls", "-o", "json").json}


def test_a_script_with_json_answers_apart_from_what_the_script_prints(shoal: Any) -> None:
    shoal.write("clean.py", SCRIPT)
    answer = shoal(
        "submit", "clean.py", "-t", "small", "-w", "1", "--name", "told", "-o", "json", LEAVE_WITH="7"
    )
    assert answer.code == 7, answer
    assert "told 6" in answer.err
    view = answer.json
    assert list(view)[-2:] == ["report", "exit_code"]
    assert (view["name"], view["state"], view["exit_code"]) == ("told", "Stopped", 7)
    assert view["report"]["worker_hours"] > 0


def test_a_function_of_a_file_can_be_submitted_and_detached(
    shoal: Any, eventually: Callable[..., Any]
) -> None:
    shoal.write("clean.py", SCRIPT)
    answer = shoal(
        *("submit", "clean.py:main", "-t", "small", "-w", "1", "--name", "later", "--detach", "-o", "json")
    )
    assert answer.code == 0, answer
    assert list(answer.json) == ["name", "pid", "log"]
    log = Path(answer.json["log"])
    eventually(lambda: "later 6" in log.read_text(), 60, "the script printed")
    eventually(
        lambda: "later" not in {r["name"] for r in shoal.quick("ls", "-o", "json").json}, 30, "it ended"
    )


@pytest.mark.parametrize("phase", ["Starting", "Ready"])
def test_ctrl_c_ends_what_submit_started(shoal: Any, phase: str, eventually: Callable[..., Any]) -> None:
    shoal.write("endless.py", "import time\nprint('on it', flush=True)\ntime.sleep(600)\n")
    before = set(shoal.marked().values())
    process = shoal.start("submit", "endless.py", "-t", "small", "-w", "1", "--name", f"c-{phase.lower()}")
    if phase == "Ready":
        assert process.stdout.readline() == "on it\n"
    else:  # it is over sooner than another command could look
        assert any(": Starting (" in line for line in process.stderr)
    children = list(psutil.Process(process.pid).children())
    for each in [
        process.pid,
        *(child.pid for child in children if "endless.py" in " ".join(child.cmdline())),
    ]:
        os.kill(each, signal.SIGINT)  # as a terminal does: to the whole foreground group
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted" in err
    eventually(lambda: not set(shoal.marked().values()) - before, 10, "its processes ended")


@pytest.mark.spark
@pytest.mark.slow
def test_validate_proves_both_engines_and_leaves_nothing(shoal: Any) -> None:
    shoal.quick("down", "--all", "--yes")
    answer = shoal("validate", "-t", "small", "-o", "json", timeout=300)
    assert answer.code == 0, answer.out
    checks = {check["check"]: check["result"] for check in answer.json["checks"]}
    for engine in ("dask", "spark"):
        for proof in ("started", "session", "workers", "compute", "tables", "ended"):
            assert checks[f"{engine}: {proof}"] == "ok"
    assert shoal.quick("ls", "-o", "json").json == []


@pytest.mark.spark
@pytest.mark.slow
def test_a_spark_script_gets_the_submitted_session(shoal: Any) -> None:
    shoal.write(
        "report.py",
        """
        import shoal
        with shoal.spark("small") as spark:
            print(spark.name, spark.sql("select 40 + 2 as n").collect()[0].n)
        """,
    )
    answer = shoal(
        "submit", "report.py", "-t", "small", "-e", "spark", "-w", "1", "--name", "sql", timeout=240
    )
    assert answer.code == 0, answer
    assert answer.out == "sql 42\n"
