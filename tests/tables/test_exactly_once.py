"""Kill -9 at every moment of a write; nothing may be lost, doubled or left over.

The oracle is kept outside: a log of the writes that were acknowledged, and the files on disk. ``SHOAL_SOAK``
sets how often each moment is tried (2 in ordinary runs; ``make soak-tables`` makes 600 kills in all).
"""

from __future__ import annotations

import fcntl
import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pytest

import shoal
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.writing import points, turns
from shoal.tables.writing.points import WritePoint


def _load() -> Any:
    spec = importlib.util.spec_from_file_location(
        "forked_writers", Path(__file__).with_name("forked_writers.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


forked: Any = _load()
ROWS: int = forked.ROWS
TRIES = int(os.environ.get("SHOAL_SOAK", "2"))


@pytest.fixture(scope="module")
def clients(lake: CatalogSettings) -> Iterator[Any]:
    made = forked.Clients()
    yield made
    made.process.communicate(timeout=60)


def left_over(name: str) -> list[str]:
    """Data files, manifests and metadata files on disk that the table does not refer to."""
    table = catalogs.load(name)
    location = Path(table.location().removeprefix("file://"))
    known = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    for snapshot in table.metadata.snapshots:
        known.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            known.add(manifest.manifest_path)
            known |= {e.data_file.file_path for e in manifest.fetch_manifest_entry(table.io)}
    known = {path.removeprefix("file://") for path in known}
    found = [path for path in location.rglob("*") if path.is_file()]
    return sorted(str(path) for path in found if str(path) not in known)


def check(
    name: str,
    acknowledged: dict[int, int],
    kills: int,
    record: Callable[[str, object], None],
    step: int = ROWS,
) -> None:
    """The oracle: each acknowledged write is there once, in its snapshot, and nothing else is, nor any file.

    What it counted is recorded, from which ``make soak-tables`` writes its page.
    """
    frame = shoal.read_table(name).compute()
    found = Counter(zip(frame.id.tolist(), frame.batch.tolist(), strict=True))
    expected = Counter({n * step + i: n for n in sorted(acknowledged) for i in range(ROWS)}.items())
    snapshots = {s.snapshot_id for s in catalogs.load(name).metadata.snapshots}
    record("kills", kills)
    record("acknowledged", len(acknowledged))
    record("rows", expected.total())
    record("lost", (expected - found).total())
    record("doubled or not asked for", (found - expected).total())
    record("files left", len(left_over(name)))
    assert found == expected
    assert set(acknowledged.values()) == snapshots
    assert len(snapshots) == len(acknowledged)
    assert left_over(name) == []


LANDED = ("CLIENT_AFTER_SWAP", "CLIENT_BEFORE_SWEEP", "in the swap, after")
MOMENTS = [*(point.name for point in WritePoint), "in the swap, before", "in the swap, after"]
SCHEMA = {"id": pa.int64(), "batch": pa.int64()}


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_run_again(moment: str, mode: str, name: str, clients: Any, record_property: Any) -> None:
    """Without a cluster the client is also the worker, so every moment is one of its own."""
    step = ROWS if mode == "append" else 25  # not whole files, so that some are rewritten
    acknowledged: dict[int, int] = {}
    shoal.create_table(name, SCHEMA)
    for number in range(TRIES // 2):
        # Any of the four partitions may be the one; a fifth file is the rewritten one of an upsert.
        files = 5 if mode == "upsert" and number and moment == "WORKER_IN_FILE" else 4
        nth = 1 + number % files if moment.startswith("WORKER") else 1
        died = clients.write(name, number, step=step, kill=moment, nth=nth)
        assert died == ([], [-signal.SIGKILL]), "it was to die"
        (answer,), codes = clients.write(name, number, step=step)
        assert codes == [0]
        assert answer["replayed"] == (moment in LANDED)
        acknowledged[number] = answer["snapshot"]
    check(name, acknowledged, TRIES // 2, record_property, step)


@pytest.mark.parametrize("point", WritePoint, ids=[p.name for p in WritePoint])
def test_killed_while_the_table_is_made(point: WritePoint, name: str, clients: Any) -> None:
    """The table comes with its first rows; the manifests of one that never came are the orphan clean-up's."""
    clients.write(name, 0, kill=point.name)
    (answer,), _ = clients.write(name, 0)
    found = shoal.read_table(name).id.compute().tolist()
    assert sorted(found) == list(range(ROWS))
    assert [s.snapshot_id for s in catalogs.load(name).metadata.snapshots] == [answer["snapshot"]]
    assert [path for path in left_over(name) if path.endswith(".parquet")] == []


def test_a_lost_answer(name: str, clients: Any, record_property: Any) -> None:
    acknowledged: dict[int, int] = {}
    shoal.create_table(name, SCHEMA)
    for number in range(TRIES):
        (answer,), codes = clients.write(name, number, lose=True)
        assert codes == [0]
        acknowledged[number] = answer["snapshot"]
    check(name, acknowledged, TRIES, record_property)


def test_racers_with_one_key(name: str, clients: Any, record_property: Any) -> None:
    """The same run, started four times at once, lands once."""
    acknowledged: dict[int, int] = {}
    for number in range(max(3, TRIES // 3)):
        answers, codes = clients.write(name, number, racers=4)
        assert codes == [0] * 4
        assert len({a["snapshot"] for a in answers}) == 1
        assert sum(not a["replayed"] for a in answers) == 1
        acknowledged[number] = answers[0]["snapshot"]
    check(name, acknowledged, 0, record_property)


def test_racers_that_make_the_table(name: str, clients: Any, record_property: Any) -> None:
    """Nothing is there yet, not even the namespace: one makes the table, and nothing is left of the others'."""
    for number in range(TRIES):
        fresh = f"{name.replace('.', '_')}_{number}.t"
        answers, codes = clients.write(fresh, 0, racers=4)
        assert codes == [0] * 4
        assert len({a["snapshot"] for a in answers}) == 1
        assert sum(not a["replayed"] for a in answers) == 1
        check(fresh, {0: answers[0]["snapshot"]}, 0, record_property)


def once_at(point: WritePoint, act: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Do ``act`` when a write comes to that moment for the first time."""

    def hook(reached: WritePoint) -> None:
        if reached is point:
            patch.setattr(points, "hook", None)
            act()

    patch.setattr(points, "hook", hook)


@pytest.mark.usefixtures("elsewhere")
def test_another_run_makes_the_table_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows land in the other one's table, and nothing is left of the table that did not come to be."""
    batch = pa.table({"id": [1]})
    once_at(WritePoint.CLIENT_BEFORE_SWAP, lambda: shoal.write_table(batch, name), monkeypatch)
    assert not shoal.write_table(pa.table({"id": [2]}), name).replayed
    assert sorted(shoal.read_table(name).id.compute()) == [1, 2]
    assert left_over(name) == []
    with pytest.raises(shoal.ShoalError, match="exists already"):
        shoal.create_table(name, SCHEMA)
    assert shoal.create_table(name, SCHEMA, exist_ok=True).name() == catalogs.load(name).name()
    assert left_over(name) == []


def test_a_try_that_fails_after_its_run_has_landed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that landed sweeps its folder, into which another try of it is writing."""
    frame = dd.from_pandas(pd.DataFrame({"id": range(8)}), npartitions=4)
    landed = []

    def other() -> None:
        landed.append(shoal.write_table(frame, name, run_key="one"))
        raise FileNotFoundError("the folder is gone")

    once_at(WritePoint.WORKER_BEFORE_FILE, other, monkeypatch)
    with dask.config.set(scheduler="sync"):
        late = shoal.write_table(frame, name, run_key="one")
    assert late.replayed
    assert late.snapshot_id == landed[0].snapshot_id
    assert sorted(shoal.read_table(name).id.compute()) == list(range(8))
    assert left_over(name) == []
    # Without a key it is nobody's try, and the fault is told.
    once_at(WritePoint.WORKER_BEFORE_FILE, other, monkeypatch)
    with pytest.raises(FileNotFoundError), dask.config.set(scheduler="sync"):
        shoal.write_table(frame, name)


@contextmanager
def forked_with(*modules: str) -> Iterator[None]:
    """New workers are forked from a process that has these modules: milliseconds each, not seconds."""
    from distributed.utils import get_mp_context

    get_mp_context()  # sets a list of its own, once
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))
    yield


def test_a_killed_worker(name: str, record_property: Any) -> None:
    """A worker of a cluster dies with its file half written; Dask runs the task again elsewhere."""
    from distributed import Client, LocalCluster

    def arm(point: str, flag: str) -> None:
        def die(reached: WritePoint) -> None:
            if reached.name == point:
                try:
                    os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return
                os.kill(os.getpid(), signal.SIGKILL)

        points.hook = die

    acknowledged: dict[int, int] = {}
    kills = [p.name for p in WritePoint if p.name.startswith("WORKER")]
    with (
        # A local cluster gives up a worker that is not back in 15 s, which on a busy machine is too soon.
        dask.config.set(
            {
                "distributed.worker.multiprocessing-method": "forkserver",
                "distributed.deploy.lost-worker-timeout": "10 minutes",
            }
        ),
        forked_with(
            "distributed", "dask.dataframe", "shoal.tables.writing.write", "shoal.tables.reading.read"
        ),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        for number in range(TRIES):
            client.wait_for_workers(2, timeout=300)
            client.run(arm, kills[number % 3], f"{folder}/{number}")
            batch = pd.DataFrame({"id": range(number * ROWS, (number + 1) * ROWS), "batch": number})
            result = shoal.write_table(dd.from_pandas(batch, npartitions=4), name, run_key=f"run-{number}")
            assert Path(f"{folder}/{number}").exists(), "a worker was killed"
            acknowledged[number] = result.snapshot_id
    check(name, acknowledged, TRIES, record_property)


def test_many_processes_append_at_once(
    name: str, lake: CatalogSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 processes, 10 appends each: all 80, once each, in as many tries, and with not a line about them. A process
    that was stopped in its turn holds up nobody for long."""
    shoal.create_table(name, {"id": pa.int64()})
    program = textwrap.dedent(
        """
        import sys, pyarrow as pa, shoal
        for i in range(10):
            shoal.write_table(pa.table({"id": [int(sys.argv[2]) * 10 + i]}), sys.argv[1])
        """
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, name, str(k)], stderr=subprocess.PIPE, text=True)
        for k in range(8)
    ]
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 8, errors
    assert errors == [""] * 8
    assert sorted(shoal.read_table(name).id.compute().tolist()) == list(range(80))
    table = catalogs.load(name)
    assert len(table.metadata.snapshots) == 80
    made = list(Path(turns.bare(table.location()), "metadata").glob("*.metadata.json"))
    assert len(made) == 81, "one of each commit, none of a try that came to nothing"

    monkeypatch.setattr(turns, "_LONGEST", 0.2)
    with turns.turn(table.location(), lake):
        assert shoal.write_table(pa.table({"id": [80]}), name).rows == 1
    with turns.turn(table.location(), lake):  # which the one that was given up does not hold
        descriptor = os.open(turns.bare(table.location()), os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
