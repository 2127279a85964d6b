"""docs/benchmarks.md, from what the benches measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import RESULTS, Result, spread

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Made by `make bench` from `tests/bench/results/*.json`; not written by hand. Every figure is against its peers
in one run, on the same files and cores, taken in turns. A time is the best of n; "+x %" is how much longer
the slowest of them took. Times on another machine differ; the ratios are what to look at.
"""


def section(data: dict[str, Any]) -> str:
    """One bench as Markdown."""
    machine = data["machine"]
    lines = [f"## {data['title']}", "", data["about"], ""]
    lines.append(
        f"Commit {data['commit']}{' (with local changes)' if data['dirty'] else ''}, {data['at']}; "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"load {machine['load_at_start']} at the start; "
        f"Python {machine['python']}, " + ", ".join(f"{k} {v}" for k, v in data["versions"].items()) + "."
    )
    lines += ["", "| What | Who | Measured | Ratio | Promised |", "|---|---|---|---|---|"]
    for raw in data["results"]:
        result = Result(**raw)
        for who, values in result.values.items():
            mine = who == result.ours
            ratio = f"{result.ratio:.2f} x {result.against}" if mine and result.ratio is not None else ""
            met = {True: " (kept)", False: " (**missed**)", None: ""}[result.met] if mine else ""
            target = f"{result.target}{met}" if mine else ""
            what = result.name + (f"; {result.note}" if result.note else "") if mine else ""
            lines.append(f"| {what} | {who} | {spread(values)} {result.unit} | {ratio} | {target} |")
    if data["skipped"]:
        lines += ["", "Not measured: " + "; ".join(data["skipped"]) + "."]
    return "\n".join(lines) + "\n"


def main() -> None:
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join([HEAD, *(section(data) for data in found)]))
    print(f"{PAGE}: {len(found)} sections")


if __name__ == "__main__":
    main()
