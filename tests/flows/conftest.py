"""One Prefect server for all tests of flows, a small project, and runs of the demo that tests share.

``shoal demo`` runs once for all of them, as a start of Spark costs some ten to twenty seconds. The soak runs the demo
once more in the same home, as the shipped deployment through a worker.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "how-to" / "prefect.md"
PREFECT = [sys.executable, "-m", "prefect"]


def environment(home: Path, **more: str) -> dict[str, str]:
    """An environment with an empty home: nothing of Shoal or Prefect is set, only the jar cache is shared."""
    from shoal.machine.paths import cache_folder

    known = {k: v for k, v in os.environ.items() if not k.startswith(("SHOAL_", "PREFECT_", "XDG_"))}
    known |= {"HOME": str(home), "SHOAL_CACHE": str(cache_folder()), "SHOAL_USER": "alice"}
    known |= {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "CI": "true"}
    return known | more


@pytest.fixture(scope="session")
def clean_environment() -> Callable[..., dict[str, str]]:
    return environment


@dataclass
class Api:
    """A Prefect server, asked without Prefect's own client."""

    url: str

    def post(self, path: str, body: Any = None) -> Any:
        data = json.dumps(body or {}).encode()
        request = urllib.request.Request(
            f"{self.url}/{path}", data=data, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def artifacts(self, flow_run_id: str) -> dict[str, str]:
        """Key -> markdown of a flow run's artifacts."""
        found = self.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}})
        return {artifact["key"]: artifact["data"] for artifact in found}


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A Prefect server of its own, on a free port."""
    home = tmp_path_factory.mktemp("prefect-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (home / "server.log").open("wb")
    server = subprocess.Popen(
        [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
        env=environment(home, PREFECT_LOGGING_LEVEL="WARNING"),
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    api = Api(f"http://127.0.0.1:{port}/api")
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{api.url}/health", timeout=5)
                break
            except OSError:
                assert server.poll() is None, (home / "server.log").read_text()
                assert time.monotonic() < deadline, "the Prefect server did not answer within 180 s"
                time.sleep(0.2)
        yield api
    finally:
        log.close()
        for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
            process.kill()
        server.wait(10)


def guide_blocks(language: str) -> list[str]:
    """The fenced blocks of that language in the how-to, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), flags=re.M | re.S)


@pytest.fixture(scope="session")
def guide() -> Callable[[str], list[str]]:
    return guide_blocks


@dataclass
class DemoRun:
    """What one run of the demo showed and left."""

    out: str = ""
    lines: list[tuple[float, str]] = field(default_factory=list)
    """Lines on standard error, with the seconds since the start."""
    seconds: float = 0.0
    peak: int = 0
    """Largest sum of the resident memory of all its processes, in bytes."""
    servers: list[dict[str, str]] = field(default_factory=list)
    """The environments of Prefect APIs that ran with this home."""
    left: list[str] = field(default_factory=list)
    """Command lines of processes that were still there afterwards."""
    tables: dict[str, tuple[str, int, Any]] = field(default_factory=dict)
    """Uuid, number of snapshots and sorted rows of each table."""
    flow_run: dict[str, Any] = field(default_factory=dict)
    home: Path = Path()


def processes_of(home: Path) -> list[psutil.Process]:
    """Every live process that was started with this home folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def observed(command: list[str], home: Path, env: dict[str, str], timeout: float) -> DemoRun:
    """Run a command; watch its lines, its memory and what it leaves. Fails the test unless it ends well."""
    run, begin, done = DemoRun(home=home), time.monotonic(), threading.Event()

    def sample() -> None:
        while not done.wait(1.0):
            total = 0
            for process in processes_of(home):
                try:
                    total += process.memory_info().rss
                    if not run.servers and any("server:create_app" in word for word in process.cmdline()):
                        run.servers.append(process.environ())
                except psutil.Error:
                    continue
            run.peak = max(run.peak, total)

    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:

        def listen() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                run.lines.append((time.monotonic() - begin, line.rstrip("\n")))

        assert process.stdout is not None
        threads = [threading.Thread(target=sample), threading.Thread(target=listen)]
        timer = threading.Timer(timeout, process.kill)
        for thread in (*threads, timer):
            thread.start()
        try:
            out = process.stdout.read()
            code = process.wait()
        finally:
            process.kill()  # nothing happens where it has ended
            timer.cancel()
            done.set()
            for thread in threads:
                thread.join()
    run.out, run.seconds = out, time.monotonic() - begin
    assert code == 0, f"{command} ended with {code}\n{run.out}\n" + "\n".join(line for _, line in run.lines)
    deadline = time.monotonic() + 5  # the last process needs a moment to be gone
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    run.left = [" ".join(process.cmdline()) for process in left]
    return run


def tables_of(home: Path) -> dict[str, tuple[str, int, Any]]:
    """Read by PyIceberg from the catalog that the home's user gets by default."""
    from shoal.tables.catalogs.opening import CatalogSettings, catalog

    opened = catalog(CatalogSettings(uri=f"sqlite:///{home}/.local/share/shoal/catalog.db"))
    found = {}
    for identifier in opened.list_tables("nyc"):
        table = opened.load_table(identifier)
        frame = table.scan().to_pandas()
        rows = frame.sort_values(list(frame.columns), ignore_index=True)
        found[".".join(identifier)] = (str(table.metadata.table_uuid), len(table.metadata.snapshots), rows)
    return found


@dataclass
class Deployments:
    """What `prefect deploy --all` made, as the how-to shows it, with the rest of that how-to's commands."""

    home: Path
    environment: dict[str, str]
    worker: list[str]
    """The command of the worker that runs them."""


@pytest.fixture(scope="session")
def deployments(demo: DemoRun, api: Api) -> Deployments:
    """`prefect deploy --all` as shipped, in the demo's home. The commands are those of the how-to."""
    env = environment(demo.home, PREFECT_API_URL=api.url, PREFECT_WORKER_QUERY_SECONDS="2")
    commands = [line for block in guide_blocks("console") for line in block.splitlines()]
    commands = [line.removeprefix("$ ") for line in commands if line.startswith("$ prefect ")]
    assert [c for c in commands if "deploy --all" in c], "the how-to shows how to deploy"
    worker = next(c for c in commands if c.startswith("prefect worker start"))
    for line in commands:
        if "server start" in line or "config set" in line or line == worker:
            continue
        done = subprocess.run(
            [*PREFECT, *shlex.split(line)[1:]],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return Deployments(demo.home, env, [*PREFECT, *shlex.split(worker)[1:]])


@pytest.fixture(scope="session")
def deployed(deployments: Deployments, api: Api) -> DemoRun:
    """The second run in the same home: by a process worker, which is told to end when it has done its work."""
    run = observed(
        [*deployments.worker, "--run-once"], deployments.home, deployments.environment, timeout=540
    )
    (run.flow_run,) = api.post("flow_runs/filter", {"flows": {"name": {"any_": ["nyc-flights"]}}})
    assert run.flow_run["state"]["type"] == "COMPLETED", run.out + "\n".join(line for _, line in run.lines)
    run.tables = tables_of(deployments.home)
    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """The first run, in an empty home: `shoal demo`, which starts and ends a Prefect API of its own."""
    home = tmp_path_factory.mktemp("home")
    env = environment(home)
    del (
        env["DO_NOT_TRACK"],
        env["PREFECT_SERVER_ANALYTICS_ENABLED"],
        env["CI"],
    )  # the demo sees to that itself
    command = [sys.executable, "-m", "shoal", "demo", "--yes"]
    run = observed(command, home, env, timeout=540)
    run.tables = tables_of(home)
    return run
