"""A flow is warned before its cluster ends, and is told at once when it would wait for itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

# Inside of one cluster's block it asks for a second that does not fit beside it, then outlives the first.
FLOW = """
import json, sys, time
import shoal
from prefect import flow
from prefect.runtime import flow_run
from shoal.prefect import dask_cluster

@flow
def waiting():
    with dask_cluster("small", workers=1, project=sys.argv[1], quiet=True, max_duration="30 s") as first:
        begin = time.monotonic()
        try:
            with dask_cluster("small", role="second", workers=3, memory="2 GB", project=sys.argv[1]):
                said = {"type": "none"}
        except shoal.ShoalError as error:
            said = {"type": type(error).__name__, "text": str(error), "own": error.values.get("own")}
        said |= {"took": time.monotonic() - begin, "run": flow_run.id, "name": first.name}
        with dask_cluster("small", role="beside", workers=1, project=sys.argv[1], quiet=True) as beside:
            said["beside"] = beside.client.submit(sum, [1, 2]).result(30)
        while not first.record.state.ended:
            time.sleep(0.5)
    with dask_cluster("small", role="second", workers=3, memory="2 GB", project=sys.argv[1], quiet=True):
        said["after"] = True
    print(json.dumps(said), flush=True)

waiting()
"""


def test_a_flow_is_warned_once_and_never_waits_for_itself(api: Any, project: Path) -> None:
    script = project.parent / "waiting.py"
    script.write_text(FLOW)
    env = dict(os.environ, PREFECT_API_URL=api.url, DO_NOT_TRACK="1", PREFECT_LOGGING_LEVEL="WARNING")
    env["PREFECT_HOME"] = str(project.parent / "prefect")
    done = subprocess.run(
        [sys.executable, str(script), str(project)], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["type"] == "WaitsForItselfError"
    assert said["own"] == [said["name"]]
    assert "runs inside the block of" in said["text"]
    assert said["name"] in said["text"]
    assert said["took"] < 20, "told at once"
    assert said["beside"] == 3, "what fits beside it starts"
    assert said["after"], "and the large one does after it"
    logs = api.post("logs/filter", {"logs": {"flow_run_id": {"any_": [said["run"]]}}, "limit": 200})
    warned = [log for log in logs if f"{said['name']} ends in" in log["message"]]
    assert len(warned) == 1, [log["message"] for log in logs]
    assert warned[0]["level"] == 30
    assert "shoal extend" in warned[0]["message"]
