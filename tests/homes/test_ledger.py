"""The ledger with real processes and real databases."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

import shoal
from shoal.client.clusters import open_home, open_project
from shoal.errors import InfrastructureError, UsageError
from shoal.homes.local.ledger import Ledger
from shoal.homes.local.server_store import server
from shoal.homes.local.turns import turn
from shoal.model.cluster import Reason, State
from shoal.quota.account import Account

# Each process asks for one cluster, at a moment that all share, and says what it was told.
_ASK = """
import sys, time
from pathlib import Path
import shoal
from shoal.client.clusters import open_home, open_project, prepare
from shoal.homes.base import Request
project, start, number = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
request = prepare("small", engine="dask", workers=1, project=project)
home = open_home(request.project)
time.sleep(max(0, start - time.time()))
try:
    cluster = home.request(Request(f"c{number}", request.user, request.workload, request.plan))
    print("admitted", cluster.id)
except shoal.ShoalError as error:
    print("refused", type(error).__name__)
"""


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_of_eight_processes_that_ask_at_once_exactly_two_get_the_two_slots(
    project: Path, store: str, request: pytest.FixtureRequest
) -> None:
    if store == "postgresql":
        url = request.getfixturevalue("postgresql").url
        settings = (project / "shoal.yaml").read_text()
        (project / "shoal.yaml").write_text(settings.replace("home: local", f"home: local\n    store: {url}"))
    import time

    start = time.time() + 6
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", _ASK, str(project), str(start), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    answers = [process.communicate(timeout=60)[0].split() for process in asking]
    home = open_home(open_project(project))
    live = home.clusters()
    try:
        assert sorted(answer[0] for answer in answers) == ["admitted"] * 2 + ["refused"] * 6
        assert {answer[1] for answer in answers if answer[0] == "refused"} == {"QuotaExceededError"}
        assert {cluster.id for cluster in live} == {a[1] for a in answers if a[0] == "admitted"}
        assert len([c for c in home.clusters(ended=True) if c.state is State.REFUSED]) == 6
    finally:
        for cluster in live:
            home.stop(cluster.id, Reason.STOPPED_BY_USER, "the test is over")
        deadline = time.monotonic() + 20
        while home.clusters() and time.monotonic() < deadline:
            time.sleep(0.1)
    assert home.clusters() == []


def dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


def test_a_ledger_of_a_newer_version_is_left_alone(empty_home: Path) -> None:
    Ledger()
    with sqlite3.connect(empty_home / "ledger.db") as database:
        database.execute("update shoal_meta set value = '99' where key = 'version'")
    database.close()
    before = dump(empty_home / "ledger.db")
    with pytest.raises(InfrastructureError, match=r"newer Shoal.*99"):
        Ledger()
    assert dump(empty_home / "ledger.db") == before


def test_a_damaged_ledger_is_kept_and_rebuilt_from_what_runs_before_anything_is_admitted(
    project: Path, empty_home: Path
) -> None:
    with shoal.dask("small", workers=2, name="runs", project=project, quiet=True) as cluster:
        file = empty_home / "ledger.db"
        (empty_home / "garbage").write_bytes(b"not a database " * 100)
        (empty_home / "garbage").replace(file)
        for part in ("-wal", "-shm"):
            Path(f"{file}{part}").unlink(missing_ok=True)
        home = open_home(open_project(project))
        assert [(c.name, c.state, c.workers) for c in home.clusters()] == [("runs", State.READY, 2)]
        second = shoal.up("small", engine="dask", workers=1, project=project, quiet=True)
        with pytest.raises(shoal.ShoalError, match="runs"):
            shoal.up("small", engine="dask", workers=1, project=project, quiet=True)
        second.close()
        assert list(empty_home.glob("ledger.db.broken-*"))
        assert cluster.client.submit(sum, [1, 2]).result() == 3
    assert cluster.record.state is State.STOPPED


def test_a_writer_that_waited_while_the_file_was_replaced_writes_to_the_new_one(empty_home: Path) -> None:
    ledger = Ledger()
    file = ledger._file
    assert file is not None
    written = threading.Event()

    def write() -> None:
        with ledger.write() as tx:
            tx.keep_history(("user", "late"), Account())
        written.set()

    with turn(Path(f"{file}.turn"), 10):
        waiting = threading.Thread(target=write)
        waiting.start()
        assert not written.wait(0.5)
        for each in file.parent.glob("ledger.db*"):
            if each.name != "ledger.db.turn":
                each.rename(each.with_name(f"aside-{each.name}"))
        shutil.copy(file.with_name("aside-ledger.db"), file)
    waiting.join(60)
    assert written.is_set()

    def known(path: Path) -> int:
        with closing(sqlite3.connect(path)) as database:
            row = database.execute("SELECT count(*) FROM shoal_accounts WHERE name = 'late'").fetchone()
        return int(row[0])

    assert known(file) == 1


def test_a_data_folder_that_cannot_be_written_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHOAL_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(InfrastructureError, match=r"cannot write in .*data.*\n.*SHOAL_DATA"):
        Ledger()


def test_the_ledger_is_readable_by_its_owner_alone(empty_home: Path) -> None:
    Ledger()
    assert (empty_home / "ledger.db").stat().st_mode & 0o077 == 0
    assert empty_home.stat().st_mode & 0o077 == 0


def test_its_repr_hides_the_password() -> None:
    ledger = Ledger.__new__(Ledger)
    ledger.url = "postgresql://shoal:hunter2@db/shoal"
    assert "hunter2" not in repr(ledger)


def test_a_postgresql_is_spoken_to_by_the_driver_of_the_extra() -> None:
    """SQLAlchemy's own choice for ``postgresql://`` is another one."""
    assert server("postgresql://shoal@127.0.0.1:1/shoal")._engine.driver == "psycopg2"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://shoal:hunter2@db/shoal", "starts with 'mysql'"),
        ("hunter2", "is not a URL"),
        ("postgresql://shoal:hunter2@db:port/shoal", "cannot be read"),
        ("postgresql+pg8000://shoal:hunter2@db/shoal", "the driver pg8000, which is not installed"),
    ],
)
def test_a_store_that_cannot_be_one_is_one_clear_error(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        Ledger(url)
    assert "hunter2" not in str(raised.value)
