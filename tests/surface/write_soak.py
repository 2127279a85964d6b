"""Runs one part of the soak and writes docs/soak.md: ``python write_soak.py PART PYTEST_ARGUMENT...``

Each part (a key of ``PARTS``) keeps what it measured in ``soak/PART.json`` beside this file, which only its own run
replaces; a run with a seed of its own (``SHOAL_..._SEED``) is kept beside the others, as ``soak/PART.SEED.json``, and
adds to them. The page is made of all of them. A test says how often it did what it tests by
``record_property("n", ...)``, and what it saw by ``record_property("measured", ...)``. The exit code is pytest's.
Without arguments the page is only made anew.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "soak.md"
QUICK_START = ROOT / "docs" / "quick-start.md"
RESULTS = Path(__file__).with_name("soak")
PARTS = {  # the sections of the page, in their order
    "clusters": "Clusters are started by the hundred, one after the other and at once, and lose workers and "
    "servers. Each test ends by looking for processes of its clusters and for quota that is still held.",
    "kills": "Clients and heads are killed with -9 and interrupted at every moment that has a name, on full disks, "
    "beside other people; then no process of theirs may be left, and no quota held.",
    "filters": "Tables are drawn, with files by several writers, and filters on them; no way of asking may give a row "
    "too many or too few. Spark's SQL and pandas say which rows are right.",
    "steps": "Whatever may happen to a home (clocks that jump, heads that hang, people and governors that die between "
    "any two writes) is drawn, on the fake home and on home local's own store; no limit is exceeded, nothing is left.",
    "queue": "Processes that ask, wait and release at once on one ledger.",
    "fleet": "Clusters of many users on simulated nodes. A watcher checks at every event that nobody is over a limit, "
    "the governor is killed, nothing is left; and what it takes of the machine, and the API server beside it.",
    "operator": "The behaviour suite of all homes, where dask-kubernetes' operator makes the pods, on simulated nodes.",
    "more": "What `make test` shows for one tool, one engine, one moment or one signal, for the others.",
    "usage": "What a person's process does over an hour is drawn, step by step, on real clusters, one machine of ten "
    "on Spark. After each step the ledger, the processes, the handles and the command line have to agree.",
    "others": "Tests that Dask ships and examples that Spark ships, with a cluster of ours as the default one. What "
    "is expected to fail is listed in `tests/others/expected.yaml`, each with its reason.",
    "quick-start": "The quick start's own commands, one after the other, from an empty home and an empty folder.",
}
# What an earlier run wrote into the pages is no change of what is tested.
_WRITTEN = [f":(exclude){path.relative_to(ROOT)}" for path in (PAGE, QUICK_START, RESULTS)]
OTHERS = re.compile(r"(?s)<!-- \w+: begin -->.*?<!-- \w+: end -->")
HEAD = """# Soak

Made by `make soak` from `tests/surface/soak/*.json`; not written by hand. "n" is how often a test did what it
tests.
"""


def main() -> int:
    code = run(sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else 0
    write()
    return code


def run(part: str, arguments: list[str]) -> int:
    """Run pytest; what came of it is kept as JSON, also where pytest itself did not get to its end."""
    found: dict[str, Any] = {
        "commit": _git("rev-parse", "--short", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", *_WRITTEN)),
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": _machine(),
        "load_at_start": round(os.getloadavg()[0], 1),
        "length": lengths(),
    }
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "soak.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            f"--junitxml={junit}",
            "-o",
            "junit_family=xunit1",
            *arguments,
        ]
        found["exit_code"] = subprocess.run(command, cwd=ROOT, check=False).returncode
        found["seconds"] = round(time.monotonic() - begin, 1)
        found["tests"] = [_test(case) for case in _cases(junit)]
    RESULTS.mkdir(exist_ok=True)
    seed = next((f".{value}" for name, value in found["length"].items() if name.endswith("_SEED")), "")
    (RESULTS / f"{part}{seed}.json").write_text(json.dumps(found, indent=1) + "\n")
    return int(found["exit_code"])


def lengths() -> dict[str, str]:
    """The variables that say how long a part runs, as they are set: ``{"SHOAL_SOAK_KILLS": "10"}``."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith("SHOAL_") and value.isdecimal()
    }


def write() -> None:
    """The page, of all parts that were ever run."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        parts.setdefault(path.name.partition(".")[0], []).append(json.loads(path.read_text()))
    known = [part for part in PARTS if part in parts]
    order = [*known, *(part for part in parts if part not in known)]
    # Others write a part of their own, between marks (tests/tables/write_soak.py): it stays.
    others = OTHERS.findall(PAGE.read_text()) if PAGE.exists() else []
    PAGE.write_text(
        "\n".join([HEAD, *(section(part, parts[part]) for part in order), *others]).rstrip() + "\n"
    )
    if "quick-start" in parts:
        QUICK_START.write_text(timed(QUICK_START.read_text(), parts["quick-start"][0]))
    print(f"{PAGE}: {', '.join(order) or 'nothing was run yet'}")


def timed(page: str, found: dict[str, Any]) -> str:
    """The quick start with the time that its own commands took, in the place that is kept for it."""
    seconds = sum(step["seconds"] for test in found["tests"] for step in test["steps"])
    said = f"Its commands take {seconds / 60:.1f} minutes of that (measured: [soak](soak.md#quick-start))."
    return re.sub(r"(?<=<!-- measured -->).*?(?=<!-- -->)", said, page, flags=re.DOTALL)


def section(part: str, runs: list[dict[str, Any]]) -> str:
    """One part as Markdown, of all its runs in the order in which they began."""
    lines = [f"## {part.capitalize()}", "", *([PARTS[part], ""] if part in PARTS else [])]
    tests = [test for found in runs for test in found["tests"]]
    if len(tests) > 1 and len({test["name"].partition("[")[0] for test in tests}) == 1:
        lines += [f"n is {sum(test['n'] for test in tests)} in all.", ""]
    for found in sorted(runs, key=lambda found: str(found["at"])):
        lines += [*_run(found), ""]
    return "\n".join(lines)


def _run(found: dict[str, Any]) -> list[str]:
    tests = found["tests"]
    bad = [test for test in tests if test["result"] == "failed"]
    skipped = [test for test in tests if test["result"] == "skipped"]
    counts = [f"{len(tests)} tests", f"{len(bad)} failed", *([f"{len(skipped)} skipped"] if skipped else [])]
    if found["exit_code"] not in (0, 1):
        counts.append(f"**pytest ended with {found['exit_code']}: not all of them ran**")
    length = "".join(f", {name}={value}" for name, value in found.get("length", {}).items())
    lines = [
        f"Commit {found['commit']}{' (with local changes)' if found['dirty'] else ''}, {found['at']}; "
        f"{found['machine']}, load {found['load_at_start']} at the start. "
        f"{', '.join(counts)}, in {found['seconds'] / 60:.0f} min{length}.",
        "",
        "| Test | n | Failures | Time |",
        "|---|---|---|---|",
    ]
    for test in tests:
        failures = {"failed": f"**{test['said']}**", "skipped": f"skipped: {test['said']}"}
        said = failures.get(test["result"], "none")
        measured = f": {test['measured']}" if test.get("measured") else ""
        lines.append(f"| {test['name']}{measured} | {test['n']} | {said} | {test['seconds']:.1f} s |")
    if steps := [step for test in tests for step in test["steps"]]:
        lines += ["", "| Step | Time |", "|---|---|"]
        lines += [f"| `{step['what']}` | {step['seconds']:.1f} s |" for step in steps]
    return lines


def _cases(junit: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(junit).iter("testcase")) if junit.exists() else []


def _test(case: ElementTree.Element) -> dict[str, Any]:
    bad = next((found for tag in ("failure", "error") if (found := case.find(tag)) is not None), None)
    skipped = case.find("skipped")
    properties = {str(each.get("name")): str(each.get("value")) for each in case.iter("property")}
    steps = [value.split(" ", 1) for name, value in sorted(properties.items()) if name.startswith("step ")]
    why = bad if bad is not None else skipped
    return {
        "name": (case.get("name") or "").removeprefix("test_").replace("_", " "),
        "n": int(properties.get("n") or 1),
        "measured": properties.get("measured", ""),
        "steps": [{"what": what, "seconds": float(seconds)} for seconds, what in steps],
        "result": "failed" if bad is not None else "skipped" if skipped is not None else "passed",
        "said": "" if why is None else _short(why.get("message") or ""),
        "seconds": round(float(case.get("time") or 0), 1),
    }


def _short(message: str) -> str:
    """The first line, fit for a table."""
    line = next(iter(message.splitlines()), "").replace("|", "/")
    return line if len(line) <= 120 else f"{line[:120]} ..."


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    models = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    name = next(
        (line.split(":", 1)[1].strip() for line in models if "model name" in line), platform.machine()
    )
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
