"""Client and head are killed with -9 at every point that has a name; nothing of the cluster stays.

Several at a time share a home, so each is also killed beside others that run and decide. Afterwards no process
carries its mark, and the ledger says what is true: the cluster has ended, and holds nothing, so the next one of
the same name starts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoal.client.clusters import open_project
from shoal.homes.choose import open_home
from shoal.homes.local import periods
from shoal.machine.crash import AT, CrashPoint
from shoal.model.cluster import Reason, State
from shoal.units import Seconds

# `make soak-kills` kills a hundred times at each point.
KILLS = int(os.environ.get("SHOAL_SOAK_KILLS", "1"))
SPARK_KILLS = int(os.environ.get("SHOAL_SOAK_SPARK_KILLS", "0"))  # each takes some 12 s
CLIENTS = str(Path(__file__).with_name("killed_clients.py"))

P, S, R = CrashPoint, State, Reason

# What the ledger says in the end: the state and the reason. None: it knows nothing of the request.
CASES: dict[CrashPoint, tuple[State, Reason] | None] = {
    P.CLIENT_AHEAD: None,
    P.HEAD_AHEAD: (S.STOPPED, R.STOPPED_BY_USER),  # another head starts after the decision, see also OR
    P.CLIENT_IN_DECISION: None,
    P.CLIENT_AFTER_DECISION: (S.FAILED, R.START_FAILED),
    P.CLIENT_AFTER_LAUNCH: (S.STOPPED, R.CLIENT_GONE),
    P.CLIENT_READY: (S.STOPPED, R.CLIENT_GONE),
    P.CLIENT_CLOSING: (S.STOPPED, R.STOPPED_BY_USER),
    P.HEAD_BORN: (S.FAILED, R.HEAD_CRASHED),
    P.HEAD_RECORDED: (S.FAILED, R.HEAD_CRASHED),
    P.HEAD_STARTING: (S.FAILED, R.HEAD_CRASHED),
    P.HEAD_ENGINE_UP: (S.FAILED, R.HEAD_CRASHED),
    P.HEAD_BEFORE_READY: (S.FAILED, R.HEAD_CRASHED),
    P.HEAD_SERVING: (S.FAILED, R.HEAD_CRASHED),
    P.HEAD_STOPPING: (S.STOPPED, R.STOPPED_BY_USER),
    P.HEAD_BEFORE_END: (S.STOPPED, R.STOPPED_BY_USER),
}


# The decision may be made before a slow process has come as far as to die: then it was the cluster's head.
OR = {P.HEAD_AHEAD: (S.FAILED, R.HEAD_CRASHED)}


def test_every_point_has_a_case() -> None:
    assert set(CASES) == set(CrashPoint)


@pytest.fixture
def roomy(project: Path) -> Path:
    """A policy under which all of them may run at once."""
    (project / "policies" / "tiers.yaml").write_text(
        "standard: {concurrent_clusters: 1000, workers_per_cluster: 3, memory: 1 PB, max_duration: 4 h, head: 2 GB}\n"
    )
    file = project / "shoal.yaml"
    file.write_text(file.read_text().replace("{cores: 64, memory: 64 GB}", "{cores: 2000, memory: 2 TB}"))
    return project


ENGINES = [pytest.param("dask", KILLS, 4, id="dask")]  # how many, and how many at once
if SPARK_KILLS:
    ENGINES.append(
        pytest.param("spark", SPARK_KILLS, 1, id="spark", marks=[pytest.mark.spark, pytest.mark.slow])
    )


@pytest.mark.parametrize("point", CASES, ids=str)
@pytest.mark.parametrize(("engine", "many", "at_once"), ENGINES)
def test_a_kill_leaves_nothing(
    point: CrashPoint,
    engine: str,
    many: int,
    at_once: int,
    roomy: Path,
    marked: Callable[[], dict[int, str]],
    eventually: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """``many`` clusters that die at the point, ``at_once`` at a time in one home; then nothing is left."""
    record_property("n", many)
    if point is P.CLIENT_AFTER_DECISION:
        monkeypatch.setattr(
            periods, "LOCAL", replace(periods.LOCAL, headless=Seconds(3))
        )  # half a minute in earnest; here no head will come
    names = [f"c{number}" for number in range(many)]
    done = subprocess.run(
        [sys.executable, CLIENTS, point.value, engine, str(roomy), str(at_once), *names],
        env={name: value for name, value in os.environ.items() if name != AT},
        capture_output=True,
        text=True,
        timeout=60 + 60 * many,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends = dict(json.loads(line) for line in done.stdout.splitlines())
    assert sorted(ends) == sorted(names)
    by_client = point.value.startswith("client-")
    for code in ends.values():
        assert (code == -signal.SIGKILL) is by_client, done.stderr
    home = open_home(open_project(roomy))
    eventually(lambda: not home.clusters(), 60, "the ledger says that nothing lives")
    eventually(lambda: not marked(), 10, "no process is left")
    expected = [CASES[point], *([OR[point]] if point in OR else [])]
    found = {name: home.find(name, home.user()) for name in names}
    told = {name: each and (each.state, each.reason) for name, each in found.items()}
    others = [name for name, end in told.items() if end not in expected]
    said = [f"{name}: {told[name]}, {found[name]}" for name in others]
    said += [done.stderr[-5000:]]
    assert not others, "\n".join(said)
    assert not home.held(home.user()).admitted
    for cluster in filter(None, found.values()):
        folder = Path(os.environ["SHOAL_DATA"]) / "run" / cluster.id
        assert not (folder / "endpoint.json").exists(), "its secrets are gone"
        assert not (folder / "token.json").exists()
        assert not (folder / "scratch").exists()
