"""Client and head are killed with -9 at every point that has a name; nothing of the cluster stays.

Afterwards no process carries its mark, and the ledger says what is true: the cluster has ended, and holds
nothing, so the next one of the same name starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shoal.clusters import open_project
from shoal.homes.choose import open_home
from shoal.homes.local import governing
from shoal.homes.local.crash import AT, CrashPoint
from shoal.records import Reason, State

P, S, R = CrashPoint, State, Reason

# What the ledger says in the end: the state and the reason. None: it knows nothing of the request.
CASES: dict[CrashPoint, tuple[State, Reason] | None] = {
    P.CLIENT_AHEAD: None,
    P.HEAD_AHEAD: (S.STOPPED, R.STOPPED_BY_USER),  # nothing is lost: another head starts after the decision
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


def test_every_point_has_a_case() -> None:
    assert set(CASES) == set(CrashPoint)


@pytest.mark.parametrize("point", CASES, ids=str)
def test_a_kill_leaves_nothing(
    point: CrashPoint,
    project: Path,
    marked: Callable[[], dict[int, str]],
    eventually: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(governing, "HEADLESS", 3.0)  # half a minute in earnest; here nobody is that slow
    script = textwrap.dedent(
        f"""
        import time
        import shoal
        with shoal.dask("small", workers=1, name="c", no_client="5 s", project={str(project)!r}, quiet=True):
            time.sleep(1)
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script],
        env=dict(os.environ) | {AT: point.value},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    by_client = point.value.startswith("client-")
    assert (done.returncode == -signal.SIGKILL) is by_client, done.stderr
    home = open_home(open_project(project))
    eventually(lambda: not home.clusters(), 30, "the ledger says that nothing lives")
    eventually(lambda: not marked(), 10, "no process is left")
    found = home.find("c", home.user())
    expected = CASES[point]
    assert (found and (found.state, found.reason)) == expected
    assert not home.held(home.user()).admitted
    if found is not None:
        folder = Path(os.environ["SHOAL_DATA"]) / "run" / found.id
        assert not (folder / "endpoint.json").exists(), "its secrets are gone"
        assert not (folder / "token.json").exists()
