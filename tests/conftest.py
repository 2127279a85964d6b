"""Fixtures that all tests share: an empty home folder, and the promise that nothing is left running."""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

# Kubernetes is started by the first test that wants it, and only then.
pytest_plugins = ["cluster.fixtures", "lanes", "postgresql_server", "rest_server", "s3_server"]

PACKAGE = Path(__file__).parents[1] / "platform" / "shoal"
MARK = "SHOAL_CLUSTER"

# A project whose clusters start quickly: one template for both engines, one tier, a target with prices.
PROJECT = {
    "shoal.yaml": """
        default_target: local
        targets:
          local:
            home: local
            worker: {cores: 1, memory: 500 MB}
            head: {cores: 1, memory: 500 MB}
            machine: {cores: 64, memory: 64 GB}
          priced:
            home: local
            worker: {cores: 1, memory: 500 MB}
            head: {cores: 1, memory: 500 MB}
            prices: {core: 0.04 USD, gib: 0.005 USD}
        """,
    "clusters/small.yaml": """
        description: One to three small workers
        engines:
          dask: {image: shoal-dask}
          spark: {image: shoal-spark}
        workers: {min: 1, max: 3, cores: 1, memory: 1 GB}
        head: {cores: 1, memory: 1 GB}
        timeouts: {idle: 5 min, no_client: 1 min, max: 1 h}
        """,
    "images/images.yaml": """
        shoal-dask: {reference: shoal-dask}
        shoal-spark: {reference: shoal-spark}
        """,
    "policies/tiers.yaml": """
        standard:
          {concurrent_clusters: 2, workers_per_cluster: 3, memory: 6 GB, max_duration: 4 h, head: 2 GB,
           max_priority: 2}
        """,
    "policies/users.yaml": """
        default: {tier: standard}
        """,
}


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # not in each lane
        # Thousands of processes import the package, and where PYTHONDONTWRITEBYTECODE is set each would compile it.
        compileall.compile_dir(PACKAGE, quiet=1)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Ctrl-C counts in what the tests start, also when they themselves run in the background of a script.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Spark's JVMs live for seconds here: code that is compiled once, and quickly, costs a third less CPU in all.
    os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the machine cannot run, with the reason; under CI that is a failure instead.

    What has the mark ``soak`` runs by ``-m soak`` alone, as `make soak` does, or by its own name.
    """
    if "soak" not in config.option.markexpr and not any("::" in each for each in config.args):
        marked = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=marked)
        items[:] = [item for item in items if item not in marked]
    missing = (
        None
        if shutil.which("java") or os.environ.get("JAVA_HOME")
        else "no Java: apt install openjdk-17-jre-headless"
    )
    if missing is None:
        return
    if os.environ.get("CI") == "true":
        raise pytest.UsageError(f"CI must skip nothing, but: {missing}")
    for item in items:
        if item.get_closest_marker("spark"):
            item.add_marker(pytest.mark.skip(reason=missing))


def marked_processes() -> dict[int, str]:
    """Pid -> cluster id of every live process that carries the mark of a cluster of this test's home."""
    found = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            cluster = environment.get(MARK)
            if environment.get("SHOAL_DATA") != os.environ.get("SHOAL_DATA"):
                continue  # somebody else's, on the same machine
            if cluster and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = cluster
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture(scope="session")
def marked() -> Callable[[], dict[int, str]]:
    """The scan, for tests that look at one cluster's processes."""
    return marked_processes


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    """Poll until the function gives something true, and return that; fails after ``timeout`` seconds.

    ``say``: what is waited for; a function is asked when it did not come.
    """

    def poll(what: Callable[[], object], timeout: float, say: str | Callable[[], str] = "") -> object:
        deadline = time.monotonic() + timeout
        while True:
            value = what()
            if value:
                return value
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout} s: {say() if callable(say) else say or what}")
            time.sleep(0.05)

    return poll


def environment_of(home: Path) -> dict[str, str]:
    """The environment of a home of its own: ledger, run folders and catalog in it; the jar cache is shared."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SHOAL_") or k == "SHOAL_CACHE"}
    catalog = f"sqlite:///{home / 'catalog.db'}"
    return kept | {"SHOAL_DATA": str(home), "SHOAL_CATALOG_URI": catalog, "SHOAL_USER": "alice"}


def move_into(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """This process works in ``folder`` from now on, with a home there."""
    environment = environment_of(folder / "home")
    for name in [name for name in os.environ if name not in environment]:
        patch.delenv(name)
    for name, value in environment.items():
        patch.setenv(name, value)
    patch.chdir(folder)
    return folder / "home"


@pytest.fixture(scope="session")
def home_environment() -> Callable[[Path], dict[str, str]]:
    """``home_environment(home)``: the variables of a process that is to use that home."""
    return environment_of


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, below ``tmp_path``."""
    return move_into(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def no_session_of_the_tables(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Spark session of tests/tables lives on in its lane: other tests are not to take it, nor to end it."""
    if "spark" in request.fixturenames or "SPARK_LOCAL_REMOTE" not in os.environ:
        return
    from pyspark.sql.connect.session import SparkSession

    monkeypatch.delenv("SPARK_LOCAL_REMOTE")
    monkeypatch.setattr(SparkSession, "_default_session", None)
    monkeypatch.setattr(SparkSession._active_session, "session", None, raising=False)


@pytest.fixture(scope="session")
def small_project() -> Callable[[Path], Path]:
    """``small_project(folder)`` writes the small project there."""

    def write(folder: Path) -> Path:
        for name, text in PROJECT.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text).lstrip())
        return folder

    return write


def assert_nothing_is_left(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := marked_processes():
        assert time.monotonic() < deadline, f"left running: {left}"
        time.sleep(0.1)


@pytest.fixture
def project(empty_home: Path, tmp_path: Path, small_project: Callable[[Path], Path]) -> Iterator[Path]:
    """The small project in a home of its own; afterwards no process of any cluster of this home is there."""
    yield small_project(tmp_path / "project")
    assert_nothing_is_left(10)


@pytest.fixture(scope="module")
def shared_project(
    tmp_path_factory: pytest.TempPathFactory, small_project: Callable[[Path], Path]
) -> Iterator[Path]:
    """The same, in a home of the module's own."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        move_into(folder, patch)
        yield small_project(folder / "project")
        assert_nothing_is_left(20)
