"""Measuring ourselves against peers, in one run, on the same data and cores.

Each ``bench_*.py`` fills one :class:`Bench` and saves it as JSON beside this file; ``write_docs.py`` makes
``docs/benchmarks.md`` of all of them. Nothing in that page is written by hand.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"


@dataclass
class Result:
    """One comparison: what was done, and how long everybody took for it."""

    name: str
    unit: str
    values: dict[str, list[float]]
    """Who -> every measured value."""
    ours: str
    against: str | None
    """The peer that the ratio is to."""
    target: str
    """What was promised, in words."""
    met: bool | None
    """Whether it holds; ``None`` if there is nothing to hold it against."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        if self.against is None or self.against not in self.values:
            return None
        return min(self.values[self.ours]) / min(self.values[self.against])


@dataclass
class Bench:
    """One section of the page."""

    section: str
    title: str
    about: str
    commit: str = field(default_factory=lambda: _git("rev-parse", "--short", "HEAD"))
    dirty: bool = field(default_factory=lambda: bool(_changed()))
    machine: dict[str, Any] = field(default_factory=lambda: _machine())
    versions: dict[str, str] = field(default_factory=dict)
    at: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    results: list[Result] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def compare(
        self,
        name: str,
        runs: dict[str, Callable[[], Any]],
        *,
        n: int = 3,
        against: str | None = None,
        at_most: float | None = None,
        before: Callable[[], Any] | None = None,
        note: str = "",
    ) -> Result:
        """Time each of ``runs`` ``n`` times, in turns, so that a busy moment meets all alike.

        The first is ours. ``at_most``: the promised ratio of its best time to that of ``against``.
        """
        ours = next(iter(runs))
        values: dict[str, list[float]] = {who: [] for who in runs}
        for _ in range(n):
            for who, run in runs.items():
                if before is not None:
                    before()
                gc.collect()
                start = time.perf_counter()
                run()
                values[who].append(time.perf_counter() - start)
        target = f"at most {at_most:g} x {against}" if at_most is not None else ""
        result = Result(name, "s", values, ours, against, target, None, note)
        if at_most is not None and result.ratio is not None:
            result.met = result.ratio <= at_most
        return self._add(result)

    def limit(self, name: str, unit: str, value: float, *, at_most: float, note: str = "") -> Result:
        """A single figure held against a limit of its own."""
        result = Result(
            name, unit, {"shoal": [value]}, "shoal", None, f"at most {at_most:g} {unit}", value <= at_most
        )
        result.note = note
        return self._add(result)

    def skip(self, what: str) -> None:
        """Say what was not measured, and why."""
        self.skipped.append(what)
        print(f"  skipped: {what}", flush=True)

    def _add(self, result: Result) -> Result:
        self.results.append(result)
        shown = ", ".join(f"{who} {min(v):.3g}" for who, v in result.values.items())
        ratio = f", ratio {result.ratio:.2f}" if result.ratio is not None else ""
        print(f"  {result.name}: {shown} {result.unit}{ratio} {result.target}", flush=True)
        return result

    def save(self, *, keep: bool = False) -> Path:
        """Write the JSON. ``keep``: results that this run did not measure stay, for a run of a part."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.section}.json"
        if keep and path.exists():
            mine = {r.name: r for r in self.results}
            old = [Result(**raw) for raw in json.loads(path.read_text())["results"]]
            self.results = [mine.pop(r.name, r) for r in old] + list(mine.values())
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path


def versions_of(*names: str) -> dict[str, str]:
    """Installed versions of these distributions."""
    return {name: importlib.metadata.version(name) for name in names}


def spread(values: list[float]) -> str:
    """Best of n, and how far the others were: ``1.52 (n=3, +8 %)``."""
    best = min(values)
    worst = (max(values) / best - 1) * 100 if best else 0.0
    middle = statistics.median(values)
    return (
        f"{best:.3g} (median {middle:.3g}, n={len(values)}, +{worst:.0f} %)"
        if len(values) > 1
        else f"{best:.3g}"
    )


def _git(*arguments: str) -> str:
    """What git says of this checkout, wherever the bench has gone to meanwhile."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _changed() -> str:
    """What differs from the commit, but for what a bench writes."""
    return _git(
        "status", "--porcelain", "--untracked-files=no", "--", ":/", ":!results", ":!/docs/benchmarks.md"
    )


def _machine() -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        name = models[0] if models else name
    return {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 1),
    }
