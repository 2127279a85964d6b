"""An hour of a person's use, drawn: after each step the ledger, the processes and the handles agree."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from . import endings, usages, world  # noqa: F401 - those of people enter themselves
from .machine import USES, Seen, Usage

SEED = int(os.environ.get("SHOAL_USAGE_SEED", "20261128"))
STEPS = int(os.environ.get("SHOAL_USAGE_STEPS", "300"))  # `make soak-usage` takes 10,000
FIRST = 132  # of them; the others follow unless the machine is too slow for all of them within ...
SECONDS = 360.0 if "SHOAL_USAGE_STEPS" not in os.environ else math.inf
PARTS = max(1, STEPS // 300)  # each with a seed of its own, so that they can run beside each other
ONLY = tuple(name for name in os.environ.get("SHOAL_USAGE_ONLY", "").split(",") if name)
# A client that goes is missed after seconds here.
TIMES = {"no_client: 1 min": "no_client: 5 s"}
TIER = {
    "concurrent_clusters: 2": "concurrent_clusters: 4",
    "memory: 6 GB": "memory: 40 GB",
}


@pytest.fixture
def machines(
    empty_home: Path,
    tmp_path: Path,
    small_project: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    marked: Callable[[], dict[int, str]],
) -> Iterator[Callable[[], tuple[Path, Path, Path]]]:
    """Each call makes a home of its own, and gives the folders of a person and of two projects."""
    number = 0

    def fresh() -> tuple[Path, Path, Path]:
        nonlocal number
        number += 1
        folder = tmp_path / f"m{number}"
        monkeypatch.setenv("SHOAL_DATA", str(folder / "home"))
        monkeypatch.setenv("SHOAL_CATALOG_URI", f"sqlite:///{folder / 'home' / 'catalog.db'}")
        projects = [small_project(folder / name) for name in ("here", "there")]
        for project in projects:
            for file, changes in (("clusters/small.yaml", TIMES), ("policies/tiers.yaml", TIER)):
                text = (project / file).read_text()
                for old, new in changes.items():
                    assert old in text
                    text = text.replace(old, new)
                (project / file).write_text(text)
        return folder, projects[0], projects[1]

    yield fresh
    world.end()
    assert not marked()


def machine(
    engine: str, seen: Seen, fresh: Callable[[], tuple[Path, Path, Path]], count: int, number: int
) -> None:
    """Run ``count`` machines of this engine."""
    engines = {"dask", "spark"}
    schedule = sum(
        use.times[engine] for name, use in USES.items() if not set(seen.only) - engines or name in seen.only
    )
    if not schedule or engine not in (engines & set(seen.only) or engines):
        return
    kind = type(
        f"{engine.title()}Usage", (Usage,), {"engine": engine, "seen": seen, "fresh": staticmethod(fresh)}
    )
    run_state_machine_as_test(
        seed(number)(kind),
        settings=settings(
            max_examples=count,
            # As many as come in between, to open and to close, are not known before.
            stateful_step_count=2 * schedule + 10,
            deadline=None,
            database=None,
            # No shrinking: what failed is told step by step, and each step is real.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
        _min_steps=2 * schedule + 10,
    )


def counted(seen: Seen, number: int) -> list[str]:
    """How often each usage came, and how long it took, as lines to read."""
    lines = [
        f"{seen.steps} steps of {dict(seen.machines)} machines, seed {number}; all agreed within {seen.longest:.1f} s"
    ]
    for name in sorted({*USES, *seen.took}):
        count, took = seen.counts[name], seen.took[name]
        lines.append(f"  {name:54} {count:6} {took:8.1f} s  {took / count if count else 0:6.2f} s each")
    return lines


def shares(steps: int) -> dict[str, int]:
    """Machines that these steps are for: of Spark one step in ten, and one machine of each engine at least."""
    schedule = {engine: sum(use.times[engine] for use in USES.values()) for engine in ("dask", "spark")}
    of_spark = max(1, round(steps / 10 / schedule["spark"]))
    of_dask = max(1, (steps - of_spark * schedule["spark"]) // schedule["dask"])
    return {"dask": of_dask, "spark": of_spark}


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(max(1800, 10 * STEPS // PARTS))
@pytest.mark.parametrize("number", range(SEED, SEED + PARTS))
def test_whatever_a_person_does_ledger_processes_and_handles_agree(
    machines: Callable[[], tuple[Path, Path, Path]],
    record_property: Callable[[str, object], None],
    number: int,
) -> None:
    asked, done = STEPS // PARTS, 0
    took = dict.fromkeys(("dask", "spark"), 0.0)
    seen = Seen(only=ONLY)
    try:
        for steps in sorted({min(FIRST, asked), asked}):
            more = {engine: count - seen.machines[engine] for engine, count in shares(steps).items()}
            each = {engine: took[engine] / max(seen.machines[engine], 1) for engine in took}
            if sum(took[engine] + more[engine] * each[engine] for engine in took) > SECONDS:
                break
            for engine, count in more.items():
                begin = time.monotonic()
                if count:
                    machine(engine, seen, machines, count, number + done)
                took[engine] += time.monotonic() - begin
            done = steps
    finally:
        said = counted(seen, number)
        record_property("counts", said)  # whoever runs the tests shows it: other processes may run this one
    record_property("n", seen.steps)
    record_property("measured", said[0])
    assert not seen.failures, f"seed {number}, {len(seen.failures)} machines failed\n\n" + "\n\n".join(
        seen.failures
    )
    if not ONLY:
        assert seen.steps >= done * 0.95
        least = 5 if done >= 300 else 2
        assert min(seen.counts[name] for name in USES) >= least, "\n".join(said)
