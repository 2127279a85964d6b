"""How the demo meets Prefect: a server that is not there, its own API, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow
START = "from shoal import demo; demo._quiet_prefect(); demo._connect(); "


def test_a_server_that_does_not_answer_is_named_with_the_way_on(
    clean_environment: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    env = clean_environment(tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api")
    command = [sys.executable, "-m", "shoal", "demo", "--yes"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4, done.stderr
    assert "http://127.0.0.1:9/api" in done.stderr
    assert "unset PREFECT_API_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".local/share/shoal/catalog.db").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_its_own_api_ends_with_it_however_it_ends(
    number: signal.Signals,
    clean_environment: Callable[..., dict[str, str]],
    eventually: Callable[..., Any],
    tmp_path: Path,
) -> None:
    code = START + (
        "import time\nwith demo._terminates_as_exit():\n print('started', flush=True)\n time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env=clean_environment(tmp_path), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "started\n"
            children = psutil.Process(process.pid).children(recursive=True)
            assert any("create_app" in " ".join(child.cmdline()) for child in children)
        finally:
            process.send_signal(number)
    eventually(lambda: not psutil.wait_procs(children, timeout=0)[1], 15, "all of its processes are gone")


@pytest.mark.soak
def test_ctrl_c_is_not_heard_by_its_own_api_so_the_run_can_end_in_order(
    clean_environment: Callable[..., dict[str, str]], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    """A terminal sends it to all processes of its foreground."""
    code = START + (
        "import time\ntry:\n print('started', flush=True)\n time.sleep(600)\n"
        "except KeyboardInterrupt:\n time.sleep(1)\n demo._connect()\n print('still there', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=clean_environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "still there\n"
    eventually(lambda: not psutil.wait_procs(children, timeout=0)[1], 15, "all of its processes are gone")
