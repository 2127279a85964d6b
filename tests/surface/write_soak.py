"""docs/soak.md, from what a soak run measured: ``python tests/surface/write_soak.py JUNIT_XML``."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

PAGE = Path(__file__).parents[2] / "docs" / "soak.md"


def main() -> None:
    cases = list(ElementTree.parse(sys.argv[1]).iter("testcase"))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    bad = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    dask, spark = (os.environ.get(f"SHOAL_SOAK_{engine}", "?") for engine in ("DASK", "SPARK"))
    lines = [
        "# Soak",
        "",
        "Made by `make soak`; not written by hand. Each test ends by looking for processes of its clusters and",
        "for quota that is still held; finding any is a failure.",
        "",
        f"Commit {commit.stdout.strip()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}. "
        f"{dask} Dask and {spark} Spark clusters one after the other; {len(cases)} tests, {len(bad)} failed.",
        "",
        "| Test | Time | Result |",
        "|---|---|---|",
    ]
    for case in cases:
        name = (case.get("name") or "").removeprefix("test_").replace("_", " ")
        result = "**failed**" if case in bad else "skipped" if case.find("skipped") is not None else "passed"
        lines.append(f"| {name} | {float(case.get('time') or 0):.1f} s | {result} |")
    PAGE.write_text("\n".join(lines) + "\n")
    print(f"{PAGE}: {len(cases)} tests, {len(bad)} failed")


if __name__ == "__main__":
    main()
