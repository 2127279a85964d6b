"""Kill -9 at every moment of a write; nothing may be lost, doubled or left over.

The oracle is kept outside: a log of the writes that were acknowledged, and the files on disk. ``SHOAL_SOAK``
sets how often each moment is tried (10 in ordinary runs; ``make soak`` makes 600 kills in all).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pytest

import shoal
from shoal.tables import catalog as catalogs
from shoal.tables import points
from shoal.tables.catalog import CatalogSettings
from shoal.tables.points import CrashPoint

TRIES = int(os.environ.get("SHOAL_SOAK", "10"))
ROWS = 40  # of each write

ZYGOTE = textwrap.dedent(
    """
    # Imports once, then forks a client per job: a fresh interpreter takes seconds, a fork milliseconds.
    import json, os, signal, sys
    import numpy as np, pyarrow as pa, pandas as pd
    import dask, dask.dataframe as dd
    import shoal, shoal.tables.write, shoal.tables.read, shoal.tables.expression
    from shoal.tables import points

    name = sys.argv[1]

    def lose_an_answer():
        # The change is made, and the client is told of an error.
        from sqlalchemy.exc import OperationalError
        from sqlalchemy.orm import Session
        commit, lost = Session.commit, []
        def lossy(self):
            commit(self)
            if not lost and sys._getframe(1).f_code.co_name == "commit_table":
                lost.append(True)
                raise OperationalError("lost", None, Exception("connection reset by peer"))
        Session.commit = lossy

    def part(i, start):
        return pd.DataFrame({"id": np.arange(start + i * 10, start + (i + 1) * 10)})

    def client(job, pipe):
        def die(point):
            if point.name == job["kill"]:
                os.kill(os.getpid(), signal.SIGKILL)
        points.hook = die
        if job["lose"]:
            lose_an_answer()
        meta = pd.DataFrame({"id": pd.Series([], dtype="int64")})
        df = dd.from_map(part, range(4), args=(job["number"] * 40,), meta=meta)
        with dask.config.set(scheduler="sync"):
            result = shoal.write_table(df, name, run_key=f"run-{job['number']}")
        answer = {"snapshot": result.snapshot_id, "replayed": result.replayed}
        os.write(pipe, (json.dumps(answer) + "\\n").encode())

    # What is imported or built at a first use is then there in every child.
    with dask.config.set(scheduler="sync"):
        shoal.write_table(pa.table({"id": [1]}), name + "_warm")
        shoal.write_table(pa.table({"id": [1]}), name + "_warm", run_key="again")

    for line in sys.stdin:
        job = json.loads(line)
        read, write = os.pipe()
        children = []
        for _ in range(job["racers"]):
            pid = os.fork()
            if pid == 0:
                os.close(read)
                code = 1
                try:
                    client(job, write)
                    code = 0
                except BaseException as error:
                    print(repr(error), file=sys.stderr, flush=True)
                finally:
                    os._exit(code)
            children.append(pid)
        os.close(write)
        with os.fdopen(read) as answers:
            told = [json.loads(text) for text in answers]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(json.dumps({"answers": told, "codes": codes}), flush=True)
    """
)


class Clients:
    """Client processes of one table; each writes one numbered batch and may be killed at a moment."""

    def __init__(self, name: str) -> None:
        # Python warns of forking with threads about; the children use none that the parent had.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", ZYGOTE, name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def write(
        self, number: int, *, kill: str = "", lose: bool = False, racers: int = 1
    ) -> tuple[list[Any], list[int]]:
        """What the clients answered, and their exit codes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        job = {"number": number, "kill": kill, "lose": lose, "racers": racers}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        return told["answers"], told["codes"]

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)


def left_over(name: str) -> list[str]:
    """Data files and manifests on disk that no snapshot refers to."""
    table = catalogs.load(name)
    location = Path(table.location().removeprefix("file://"))
    known = set()
    for snapshot in table.metadata.snapshots:
        known.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            known.add(manifest.manifest_path)
            known |= {e.data_file.file_path for e in manifest.fetch_manifest_entry(table.io)}
    known = {path.removeprefix("file://") for path in known}
    found = [*location.rglob("*.parquet"), *(location / "metadata").glob("*.avro")]
    return sorted(str(path) for path in found if str(path) not in known)


def check(name: str, acknowledged: dict[int, int]) -> None:
    """The oracle: each acknowledged write is there once, in its snapshot, and nothing else is."""
    ids = shoal.read_table(name).id.compute().tolist()
    expected = sorted(n * ROWS + i for n in acknowledged for i in range(ROWS))
    assert sorted(ids) == expected
    snapshots = {s.snapshot_id for s in catalogs.load(name).metadata.snapshots}
    assert set(acknowledged.values()) == snapshots
    assert len(snapshots) == len(acknowledged)


@pytest.mark.parametrize("point", CrashPoint, ids=[p.name for p in CrashPoint])
def test_killed_and_run_again(point: CrashPoint, name: str) -> None:
    """Without a cluster the client is also the worker, so every moment is one of its own."""
    acknowledged: dict[int, int] = {}
    shoal.create_table(name, {"id": pa.int64()})
    with Clients(name) as clients:
        for number in range(TRIES):
            assert clients.write(number, kill=point.name) == ([], [-signal.SIGKILL]), "it was to die"
            (answer,), codes = clients.write(number)
            assert codes == [0]
            landed = point in (CrashPoint.CLIENT_AFTER_SWAP, CrashPoint.CLIENT_BEFORE_SWEEP)
            assert answer["replayed"] == landed
            acknowledged[number] = answer["snapshot"]
    check(name, acknowledged)
    assert left_over(name) == []


@pytest.mark.parametrize("point", CrashPoint, ids=[p.name for p in CrashPoint])
def test_killed_while_the_table_is_made(point: CrashPoint, name: str) -> None:
    """The table comes with its first rows; the manifests of one that never came are the orphan clean-up's."""
    with Clients(name) as clients:
        clients.write(0, kill=point.name)
        (answer,), _ = clients.write(0)
    check(name, {0: answer["snapshot"]})
    assert [path for path in left_over(name) if path.endswith(".parquet")] == []


def test_a_lost_answer(name: str) -> None:
    acknowledged: dict[int, int] = {}
    with Clients(name) as clients:
        clients.write(0)
        for number in range(TRIES):
            (answer,), codes = clients.write(number, lose=True)
            assert codes == [0]
            acknowledged[number] = answer["snapshot"]
    check(name, acknowledged)
    assert left_over(name) == []


def test_racers_with_one_key(name: str) -> None:
    """The same run, started four times at once, lands once."""
    acknowledged: dict[int, int] = {}
    with Clients(name) as clients:
        for number in range(max(3, TRIES // 3)):
            answers, codes = clients.write(number, racers=4)
            assert codes == [0] * 4
            assert len({a["snapshot"] for a in answers}) == 1
            assert sum(not a["replayed"] for a in answers) == 1
            acknowledged[number] = answers[0]["snapshot"]
    check(name, acknowledged)
    assert left_over(name) == []


def test_a_killed_worker(name: str) -> None:
    """A worker of a cluster dies with its file half written; Dask runs the task again elsewhere."""
    from distributed import Client, LocalCluster

    def arm(point: str, flag: str) -> None:
        def die(reached: CrashPoint) -> None:
            if reached.name == point:
                try:
                    os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return
                os.kill(os.getpid(), signal.SIGKILL)

        points.hook = die

    acknowledged: dict[int, int] = {}
    kills = [p.name for p in CrashPoint if p.name.startswith("WORKER")]
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        for number in range(max(3, TRIES // 3)):
            client.wait_for_workers(2, timeout=60)
            client.run(arm, kills[number % 3], f"{folder}/{number}")
            ids = pd.DataFrame({"id": range(number * ROWS, (number + 1) * ROWS)})
            result = shoal.write_table(dd.from_pandas(ids, npartitions=4), name, run_key=f"run-{number}")
            assert Path(f"{folder}/{number}").exists(), "a worker was killed"
            acknowledged[number] = result.snapshot_id
    check(name, acknowledged)
    assert left_over(name) == []


def test_many_processes_append_at_once(name: str, lake: CatalogSettings) -> None:
    """8 processes, 10 appends each: all 80, once each."""
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
    assert sorted(shoal.read_table(name).id.compute().tolist()) == list(range(80))
    assert len(catalogs.load(name).metadata.snapshots) == 80
