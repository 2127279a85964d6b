"""The how-to's Python is run, block after block, against a Prefect server; ``deployments`` runs its shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.mark.slow
def test_the_examples_of_the_how_to_run(
    guide: Callable[[str], list[str]],
    api: Any,
    empty_home: Path,
    marked: Callable[[], dict[int, str]],
    eventually: Callable[..., Any],
) -> None:
    code = "\n".join(guide("python")).replace('if __name__ == "__main__":\n    print(delays())', "")
    calls = "import json\nprint(json.dumps([delays(), two_at_once(), with_a_look(), numbers(), by_block()]))"
    script = empty_home.parent / "guide.py"
    script.write_text(f"{code}\nif __name__ == '__main__':\n    " + calls.replace("\n", "\n    "))
    env = dict(
        os.environ, PREFECT_API_URL=api.url, PREFECT_HOME=str(empty_home / "prefect"), DO_NOT_TRACK="1"
    )
    before = set(marked().values())
    watch_for(api, yaml.safe_load("\n".join(guide("yaml")))["triggers"][0])
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    late, names, lived, rows, workers = json.loads(done.stdout.splitlines()[-1])
    assert late > 0
    assert names == ["left", "right"]
    assert 0 < lived < 100
    assert workers == 1
    assert set(marked().values()) <= before, "every cluster of the examples has ended"
    check_events(api, rows, eventually)


def watch_for(api: Any, trigger: dict[str, Any]) -> None:
    """An automation of the documented trigger, in the words of Prefect's API."""
    known = {key: trigger[key] for key in ("type", "expect", "match")} | {
        "posture": "Reactive",
        "threshold": 1,
    }
    api.post("automations/", {"name": "guide", "trigger": known, "actions": [{"type": "do-nothing"}]})


def check_events(api: Any, rows: int, eventually: Callable[..., Any]) -> None:
    """What the how-to says is told has come: each once, in order, and related to its run."""
    (run,) = api.post("flow_runs/filter", {"flows": {"name": {"any_": ["delays"]}}})

    def found(prefix: str, **of: dict[str, list[str]]) -> list[dict[str, Any]]:
        """An answer holds fifty at most, and other tests have their own on this server."""
        asked = {"filter": {"event": {"prefix": [prefix]}, "order": "ASC", **of}, "limit": 50}
        return list(api.post("events/filter", asked)["events"])

    def of_run() -> list[dict[str, Any]]:
        return found("shoal.cluster.", related={"id": [f"prefect.flow-run.{run['id']}"]})

    eventually(lambda: len(of_run()) >= 3, 30, "the events of the first flow's cluster are there")
    told = of_run()
    assert [event["event"] for event in told] == [
        f"shoal.cluster.{w}" for w in ("admitted", "ready", "ended")
    ]
    assert len({event["resource"]["prefect.resource.id"] for event in told}) == 1
    assert told[-1]["resource"]["shoal.reason"] == "StoppedByUser"
    written = found("prefect.asset.materialization", resource={"id": ["iceberg://shoal/guide/numbers"]})
    assert [event["payload"]["rows"] for event in written] == [rows]
    assert int(written[0]["payload"]["snapshot_id"]) > 0
    eventually(
        lambda: any(
            event["resource"]["prefect.resource.name"] == "guide"
            for event in found("prefect.automation.triggered")
        ),
        30,
        "the automation runs",
    )
