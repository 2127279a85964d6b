"""Notebooks that live long and open many homes, beside commands that come and go: nothing is lost, nothing breaks."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import shoal
from shoal.client.clusters import open_home, open_project
from shoal.model.cluster import Reason, State

LONG, OPENS, SHORT = 8, 50, 200
AT_ONCE = 4  # short ones
EXPECTED = {
    *(
        f"long-{long}-{each}{again}"
        for long in range(LONG)
        for each in range(OPENS)
        for again in ("", "-again")
    ),
    *(f"short-{number}" for number in range(SHORT)),
}


def start(project: Path, log: Path) -> subprocess.Popen[bytes]:
    script = str(Path(__file__).with_name("many_users.py"))
    numbers = map(str, (LONG, OPENS, SHORT, AT_ONCE))
    return subprocess.Popen([sys.executable, script, str(project), str(log), *numbers])


def test_eight_that_live_long_and_two_hundred_that_pass_by_share_a_file(
    project: Path, empty_home: Path, tmp_path: Path
) -> None:
    """Every record is there, the file is whole, and whoever was told that it is written was told the truth."""
    begin = time.monotonic()
    users = start(project, tmp_path / "log")
    assert users.wait(400) == 0
    print(f"{time.monotonic() - begin:.1f} s")
    assert set((tmp_path / "log").read_text().split()) == EXPECTED
    with closing(sqlite3.connect(empty_home / "ledger.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert {row[0] for row in database.execute("SELECT name FROM shoal_accounts")} == EXPECTED
    assert not list(empty_home.glob("ledger.db.broken-*"))


def test_the_same_on_a_server_that_is_restarted_meanwhile(
    project: Path, tmp_path: Path, postgresql: Any
) -> None:
    settings = (project / "shoal.yaml").read_text()
    (project / "shoal.yaml").write_text(
        settings.replace("home: local", f"home: local\n    store: {postgresql.url}")
    )
    home = open_home(open_project(project))
    begin = time.monotonic()
    log = tmp_path / "log"
    users = start(project, log)
    for part, mode in ((0.2, "fast"), (0.45, "immediate"), (0.7, "fast")):
        while (
            not log.exists() or log.read_text().count("\n") < part * len(EXPECTED)
        ) and users.poll() is None:
            time.sleep(0.05)
        assert users.poll() is None, "it was over before the server was restarted"
        postgresql.stop(mode)
        time.sleep(1)
        postgresql.start()
    assert users.wait(400) == 0
    print(f"{time.monotonic() - begin:.1f} s")
    assert set(log.read_text().split()) == EXPECTED
    with home.ledger.read() as tx:
        rows = tx._connection.execute("SELECT name FROM shoal_accounts WHERE name LIKE '%-%'").fetchall()
    assert {row[0] for row in rows} >= EXPECTED


def test_clusters_of_one_notebook_with_ls_in_a_terminal_between(
    project: Path, eventually: Callable[..., Any]
) -> None:
    """Three one after the other, then two that run detached: each is known to who looks, and none is erased."""
    home = open_home(open_project(project))

    def listed() -> set[str]:
        command = [sys.executable, "-m", "shoal", "ls", "--project", str(project), "-o", "json"]
        shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout
        return {each["name"] for each in json.loads(shown)}

    for number in range(3):
        with shoal.dask("small", workers=1, name=f"c{number}", project=project, quiet=True) as cluster:
            assert cluster.client.submit(sum, [1, 2]).result(60) == 3
        assert listed() == set()
    detached = []
    for name in ("one", "two"):
        up = shoal.up("small", engine="dask", workers=1, name=name, detach=True, project=project, quiet=True)
        detached.append(up.id)
        assert name in listed()
    assert listed() == {"one", "two"}
    for cluster_id in detached:
        record = home.get(cluster_id)
        assert (record.state, record.reason) == (State.READY, Reason.SERVING)
        home.stop(cluster_id, Reason.STOPPED_BY_USER, "the test is over")
    eventually(lambda: not home.clusters(), 60, "all clusters ended")
    assert {c.reason for c in home.clusters(ended=True)} == {Reason.STOPPED_BY_USER}
    assert len(home.clusters(ended=True)) == 5
