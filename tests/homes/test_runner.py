"""The program that runs a submitted script beside its cluster, on this machine as its pod runs it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.engines.dask.script import PUT, TAKE, Handover, ask
from shoal.engines.dask.security import security
from shoal.machine.certificate import make_certificate
from shoal.machine.parcel import pack
from shoal.model.codec import plain
from shoal.model.workload import ScriptRun

SCRIPT = """
import os, sys, helpers
print(helpers.said, sys.argv[1:], os.path.relpath(os.environ["SHOAL_PROJECT"], os.environ["SHOAL_SCRATCH"]))
print("SHOAL_RUN" in os.environ, flush=True)
sys.exit(7)
"""


def test_a_script_gets_its_code_from_the_scheduler_and_runs_once(tmp_path: Path) -> None:
    """Before its code is there it waits; another pod of the same script, or other code, never runs."""
    import distributed

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "helpers.py").write_text("said = 'helped'")
    script = tmp_path / "home" / "job.py"
    script.write_text(SCRIPT)
    parcel = pack(script, [], SHOAL_PROJECT=str(tmp_path / "home"))
    certificate, key = make_certificate("trial.shoal.internal")
    tls = security(certificate, key)
    (tmp_path / "pass").mkdir()
    (tmp_path / "pass" / "tls.crt").write_text(certificate)
    (tmp_path / "pass" / "tls.key").write_text(key)

    def runner(address: str, pod: str, code: str) -> subprocess.Popen[str]:
        run = ScriptRun("job.py", arguments=("--month", "3"), code=code)
        told = {
            "SHOAL_RUN": json.dumps(plain(run)),
            "SHOAL_SCHEDULER": address,
            "SHOAL_CERTIFICATE": str(tmp_path / "pass"),
            "SHOAL_SCRATCH": str(tmp_path / pod),
            "SHOAL_POD_UID": pod,
        }
        (tmp_path / pod).mkdir()
        words = [sys.executable, "-P", "-m", "shoal.engines.dask.runner"]
        environment = {**os.environ, **told}
        return subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    async def refused(address: str, pod: str, code: str) -> str:
        process = runner(address, pod, code)
        _, err = await asyncio.to_thread(process.communicate, timeout=120)
        assert (process.returncode, err.startswith("it was not started: ")) == (4, True), err
        return err

    async def live() -> None:
        async with distributed.Scheduler(
            host="127.0.0.1", port=0, protocol="tls", security=tls, dashboard=False
        ) as scheduler:
            Handover(scheduler)
            first = runner(scheduler.address, "first", parcel.digest)
            assert await ask(scheduler.address, tls, 30, op=TAKE, pod="first") == {}
            assert "archive" in await ask(scheduler.address, tls, 30, op=PUT, content="text")
            assert await ask(scheduler.address, tls, 30, op=PUT, content=parcel.content) == ""
            assert await ask(scheduler.address, tls, 30, op=PUT, content=parcel.content) == "", (
                "as often as it is sent"
            )
            assert "another" in await ask(scheduler.address, tls, 30, op=PUT, content=b"other")
            out, err = await asyncio.to_thread(first.communicate, timeout=120)
            assert (first.returncode, out) == (7, f"helped ['--month', '3'] code{tmp_path}/home\nFalse\n"), (
                err
            )
            assert "it was given to another pod before (first)" in await refused(
                scheduler.address, "second", parcel.digest
            )
            Handover(scheduler)  # of one that has not given it away
            await ask(scheduler.address, tls, 30, op=PUT, content=parcel.content)
            assert "what came is not what was submitted" in await refused(
                scheduler.address, "third", "other code"
            )

    asyncio.run(live())
    with pytest.raises(Exception, match="was not reached"):
        asyncio.run(ask("tls://127.0.0.1:1", tls, 1, op=TAKE, pod="late"))
