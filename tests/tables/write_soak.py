"""The part of docs/soak.md that is about tables, from what ``make soak-tables`` measured.

``python tests/tables/write_soak.py JUNIT_XML...`` writes soak.json beside this file (``make soak`` puts it into the
page again when the rest of it is rewritten) and the page's part between the marks.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

RESULT = Path(__file__).with_name("soak.json")
PAGE = Path(__file__).parents[2] / "docs" / "soak.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
COUNTED = ("kills", "acknowledged", "rows", "lost", "doubled or not asked for", "files left")


def measured(junits: Sequence[str]) -> dict[str, Any]:
    """What a run measured: the machine, the time, and each test with what it counted.

    In more than one part: what a later part ran again counts.
    """
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    tests: dict[tuple[str, str], dict[str, Any]] = {}
    for case in (case for junit in junits for case in ElementTree.parse(junit).iter("testcase")):
        states = [s for s in ("failure", "error", "skipped") if case.find(s) is not None]
        counts = {p.get("name"): p.get("value") for p in case.iter("property")}
        file = (case.get("classname") or "").rsplit(".", 1)[-1].removeprefix("test_")
        name = (case.get("name") or "").removeprefix("test_")
        tests[file, name] = {
            "file": file,
            "test": name,
            "seconds": round(float(case.get("time") or 0), 1),
            "result": states[0] if states else "passed",
            **{counted: int(counts[counted]) for counted in COUNTED if counted in counts},
        }
    return {
        "commit": commit.stdout.strip(),
        "time": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "scale": os.environ.get("SHOAL_TPCH_SCALE", "0.02"),
        "tests": list(tests.values()),
    }


def section(result: dict[str, Any]) -> str:
    """The page's part."""
    tests = result["tests"]
    killed = [t for t in tests if "kills" in t]
    total = {name: sum(t.get(name, 0) for t in killed) for name in COUNTED}
    bad = [t for t in tests if t["result"] != "passed"]
    lines = [
        BEGIN,
        "## Tables",
        "",
        f"`make soak-tables`, commit {result['commit']}, {result['time']}; {result['machine']}; "
        f"{sum(t['seconds'] for t in tests) / 60:.0f} minutes, {len(tests)} tests, {len(bad)} not passed.",
        "",
        f"**{total['kills']} kills and lost answers; of {total['rows']} rows acknowledged, {total['lost']} lost, "
        f"{total['doubled or not asked for']} doubled, {total['files left']} files left over** (data files, "
        "manifests and metadata files that the table does not refer to). The log of what was acknowledged is kept "
        "outside of the tables.",
        "",
        "| Killed at | Times | Rows | Lost | Doubled | Files left | Time | Result |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for test in killed:
        cells = [
            test["test"].removeprefix("killed_and_run_again").strip("[]"),
            *(test.get(n, "") for n in ("kills", "rows", *COUNTED[3:])),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} | {test['seconds']} s | {test['result']} |")
    lines += ["", "| Other tests | Number | Time | Not passed |", "|---|---|---|---|"]
    others = [t for t in tests if "kills" not in t]
    for file in dict.fromkeys(t["file"] for t in others):
        mine = [t for t in others if t["file"] == file]
        words = {"tpch": f"TPC-H at scale {result['scale']}, Dask against Spark"}.get(
            file, file.replace("_", " ")
        )
        wrong = ", ".join(t["test"] for t in mine if t["result"] != "passed") or "none"
        lines.append(f"| {words} | {len(mine)} | {sum(t['seconds'] for t in mine):.0f} s | {wrong} |")
    return "\n".join([*lines, "", END])


def put(page: str, part: str) -> str:
    """The page with this part in place of the one that it had, or at its end."""
    if BEGIN in page:
        return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: part, page, flags=re.DOTALL)
    return f"{page.rstrip()}\n\n{part}\n".lstrip()


def main() -> None:
    if len(sys.argv) > 1:
        RESULT.write_text(json.dumps(measured(sys.argv[1:]), indent=1) + "\n")
    if not RESULT.exists():
        return
    result = json.loads(RESULT.read_text())
    PAGE.write_text(put(PAGE.read_text() if PAGE.exists() else "# Soak\n", section(result)))
    print(f"{PAGE}: {len(result['tests'])} tests of tables")


if __name__ == "__main__":
    main()
