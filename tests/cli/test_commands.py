"""What needs no cluster: help, bad input, broken places, narrow terminals, closed pipes."""

from __future__ import annotations

import ast
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMANDS = (
    "init", "demo", "plan", "up", "ls", "logs", "why", "down", "quota", "submit", "wait", "validate", "doctor",
    "top", "dashboard", "report", "advise", "extend", "scale", "usage", "cost", "tables",
)  # fmt: skip
HEAVY = (
    "distributed",
    "dask",
    "sqlalchemy",
    "pandas",
    "numpy",
    "pyarrow",
    "pyiceberg",
    "pyspark",
    "prefect",
    "bokeh",
)


def test_help_lists_the_commands_and_tells_states_and_exit_codes(shoal: Any) -> None:
    answer = shoal("--help")
    assert answer.code == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command}\s", answer.out, re.MULTILINE), command
    for word in ("Queued", "Refused", "Exit codes", "130"):
        assert word in answer.out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples(shoal: Any, command: str) -> None:
    answer = shoal.quick(command, "--help")
    assert answer.code == 0
    assert "Examples:" in answer.out
    assert f"shoal {command}" in answer.out


def test_python_m_shoal_is_the_same_command(shoal: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shoal", "--version"],
        cwd=shoal.folder,
        env=shoal.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"shoal \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pln"], "plan"),
        (["images", "build", "nonsense"], "no image nonsense"),
        (["plan", "--dta", "1 GB"], "--data"),
        (["plan", "smal"], "Did you mean 'small'"),
        (["plan", "small", "--target", "locl"], "Did you mean 'local'"),
        (["plan", "small", "--memory", "14"], "has no unit"),
        (["plan", "small", "--data", "0 GB"], "not above 0"),
        (["plan", "small", "--data=-1 GB"], "negative"),
        (["plan", "small", "--workers", "many"], "Write 3, or '2-10'"),
        (["plan", "small", "--workers", "0"], "Write 1 or more"),
        (["plan", "small", "--spot", "200%"], "between 0% and 100%"),
        (["plan", "small", "--engine", "flink"], "dask"),
        (["plan", "small", "-o", "yaml"], "json"),
        (["plan", "small", "--project", "/nowhere"], "no shoal.yaml"),
        (["up", "nosuch"], "no template"),
        (["why", "nosuch"], "no cluster"),
        (["why"], "NAME"),
        (["logs", "nosuch"], "no cluster"),
        (["logs", "x", "-n", "0"], "--lines"),
        (["down"], "name the clusters"),
        (["down", "nosuch"], "no live cluster"),
        (["down", "x", "--all"], "or --all"),
        (["submit"], "SCRIPT"),
        (["submit", "nosuch.py"], "there is no file"),
        (["init", "shoal.yaml"], "is not a folder"),
        (["quota", "--user", ""], "user"),
        (["validate", "--engine", "flink"], "dask"),
        (["ls", "extra"], "extra"),
        (["report", "nosuch"], "no cluster"),
        (["advise", "smal"], "Did you mean 'small'"),
        (["top", "--every", "0"], "--every"),
        (["up", "small", "--priority", "11"], "--priority"),
        (["extend", "nosuch", "+1h"], "no live cluster"),
        (["scale", "nosuch", "2"], "no live cluster"),
    ],
)
def test_nonsense_is_told_in_a_sentence_and_exits_2(shoal: Any, arguments: list[str], said: str) -> None:
    answer = shoal.quick(*arguments)
    assert answer.code == 2, answer
    assert said in answer.err
    assert answer.out == ""


def test_an_error_is_json_for_whoever_asked_for_json(shoal: Any) -> None:
    answer = shoal.quick("plan", "smal", "-o", "json")
    assert answer.code == 2
    error = answer.json["error"]
    assert error["type"] == "NotFoundError"
    assert error["code"] == 2
    assert "Did you mean 'small'" in error["hint"]


def test_what_a_limit_refuses_exits_3_and_names_the_limit_and_its_line(shoal: Any) -> None:
    answer = shoal("up", "small", "--workers", "4", "--yes")
    assert answer.code == 3
    assert "requests 4 workers; the limit per cluster is 3 workers" in answer.err
    assert "policies/tiers.yaml:2" in answer.err
    urgent = shoal("up", "small", "--priority", "3", "--queue", "--yes")
    assert urgent.code == 3
    assert "requests priority 3; the limit is priority 2: tier standard (policies/tiers.yaml:3)" in urgent.err


def test_plan_says_sizes_reasons_and_quota_before_and_after(shoal: Any) -> None:
    text = shoal.quick("plan", "small", "--workers", "2")
    assert text.code == 0
    assert "as requested" in text.out
    assert "Fits" in text.out
    view = shoal.quick("plan", "small", "--workers", "2", "-o", "json").json
    memory = next(row for row in view["admission"]["quota"] if row["what"] == "memory")
    assert memory["after"] - memory["held"] == 2_000_000_000
    assert view["admission"]["fits"] is True
    assert view["price_per_hour"] is None
    assert "0.00" not in text.out


def test_a_target_with_prices_shows_them_and_asks_before_it_spends(shoal: Any) -> None:
    view = shoal.quick("plan", "small", "--target", "priced", "-o", "json").json
    assert re.fullmatch(r"0\.\d+ USD", view["price_per_hour"])
    answer = shoal("up", "small", "--target", "priced")
    assert answer.code == 2
    assert "USD per hour" in answer.err
    assert "--yes" in answer.err
    assert shoal.quick("ls", "-o", "json").json == []


def test_dry_run_starts_nothing(shoal: Any) -> None:
    before = shoal.quick("ls", "--all", "-o", "json").json
    assert shoal("up", "small", "--dry-run", "-o", "json").json["admission"]["fits"] is True
    (shoal.folder / "idle.py").write_text("raise SystemExit(9)")
    assert shoal("submit", "idle.py", "-t", "small", "--dry-run").code == 0
    assert shoal.quick("ls", "--all", "-o", "json").json == before


@pytest.mark.parametrize("command", [["plan", "small"], ["ls"]])
def test_what_is_asked_often_imports_no_engine(shoal: Any, command: list[str]) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from shoal.cli.app import run; code = run(sys.argv[1:]);"
            "print(sorted(sys.modules), file=sys.stderr);"
            "sys.exit(code)",
            *command,
        ],
        cwd=shoal.folder,
        env=shoal.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)
    assert not loaded & {"shoal.client.handles", "asyncio"}, "it opens nothing"


def test_without_a_project_the_shipped_one_counts(bare: Any) -> None:
    answer = bare.quick("plan", "etl", "-o", "json")
    assert answer.code == 0
    assert answer.json["template"] == "etl"
    assert bare.quick("ls", "-o", "json").json == []
    assert "No clusters are running" in bare.quick("ls").err


def test_a_ledger_of_a_newer_version_is_left_alone(bare: Any) -> None:
    assert bare.quick("ls").code == 0
    file = Path(bare.environment["SHOAL_DATA"]) / "ledger.db"
    with sqlite3.connect(file) as database:
        database.execute("update shoal_meta set value = '99' where key = 'version'")
    database.close()
    before = file.read_bytes()
    for command in (["ls"], ["up", "etl"], ["quota"]):
        answer = bare.quick(*command)
        assert answer.code == 4, answer
        assert "newer Shoal" in answer.err
    plan = bare.quick("plan", "etl")
    assert (plan.code, "Could not check quota" in plan.out) == (0, True), plan
    assert file.read_bytes() == before


def test_folders_that_cannot_be_written_are_told(bare: Any) -> None:
    blocker = bare.folder / "file"
    blocker.write_text("")
    answer = bare("up", "etl", SHOAL_DATA=str(blocker / "below"))
    assert answer.code == 4
    assert "cannot write in" in answer.err
    assert "SHOAL_DATA" in answer.err
    answer = bare.quick("doctor", "-o", "json", SHOAL_DATA=str(blocker / "below"))
    assert answer.code == 4
    failed = [check for check in answer.json["checks"] if check["result"] == "failed"]
    assert {"data folder", "ledger"} <= {check["check"] for check in failed}


def test_doctor_names_a_fix_for_whatever_it_finds(bare: Any) -> None:
    empty = bare.folder / "empty"
    empty.mkdir()
    answer = bare.quick("doctor", "-o", "json", PATH=str(empty), JAVA_HOME="")
    assert answer.code == 4
    checks = {check["check"]: check for check in answer.json["checks"]}
    assert checks["Java"]["result"] == "failed"
    assert "openjdk-17" in checks["Java"]["fix"]
    assert (checks["dashboard"]["result"], checks["dashboard"]["said"].split()[0]) == ("ok", "bokeh")
    assert all(check["fix"] for check in checks.values() if check["result"] != "ok")
    assert list(checks["Java"]) == ["check", "result", "said", "fix", "seconds", "mend"]


def test_init_makes_a_project_that_works_and_overwrites_nothing(bare: Any) -> None:
    mine = bare.write("shoal.yaml", "default_target: local\ntargets: {local: {home: local}}\n")
    kept = mine.read_text()
    view = bare.quick("init", "-o", "json").json
    assert "shoal.yaml" in view["kept"]
    assert "clusters/etl.yaml" in view["made"]
    assert mine.read_text() == kept
    assert bare.quick("plan", "etl").code == 0
    again = bare.quick("init", "-o", "json").json
    assert again["made"] == []
    assert bare.quick("init", "other/place").code == 0
    assert bare.quick("plan", "etl", "--project", "other/place").code == 0


def test_init_that_cannot_finish_leaves_nothing(bare: Any) -> None:
    (bare.folder / "new").mkdir()
    (bare.folder / "new" / "policies").write_text("in the way")
    answer = bare.quick("init", "new")
    assert answer.code == 4
    assert "nothing was created" in answer.err
    assert [path.name for path in (bare.folder / "new").iterdir()] == ["policies"]


def test_the_shell_completes_commands_and_templates(shoal: Any) -> None:
    def complete(words: str) -> str:
        done = subprocess.run(
            [shoal.command],
            cwd=shoal.folder,
            env=shoal.environment
            | {"_SHOAL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.stdout

    assert "validate" in complete("shoal va")
    assert "small" in complete("shoal plan sm")
    assert "--workers" in complete("shoal plan --wor")


def test_a_shipped_template_is_not_written_to(bare: Any) -> None:
    view = bare.quick("advise", "etl", "-o", "json").json
    assert view["memory"] is None
    assert view["runs"] == 0
    assert list(view) == [
        "template", "memory", "now", "peak", "runs", "estimate", "why", "left_out", "price", "applied",
    ]  # fmt: skip
    assert "0 clean runs" in bare.quick("advise", "etl").out
