"""One ledger file, many users: what a process does to the file takes no lock away from itself or from others.

A process that closes any descriptor of a file loses all locks that it holds on it (POSIX), also SQLite's. Another
process then believes itself alone, and deletes the write-ahead log under the first.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from shoal.errors import InfrastructureError
from shoal.homes.local.ledger import Ledger
from shoal.quota.account import Account

# What `shoal ls` does to the file: opens it, reads, writes, and ends.
PASSES_BY = """
from shoal.quota.account import Account
from shoal.homes.local.ledger import Ledger
ledger = Ledger()
with ledger.read() as tx:
    tx.live()
with ledger.write() as tx:
    tx.keep_history(("user", "passer-by"), Account())
"""


def another_passes_by() -> None:
    subprocess.run([sys.executable, "-c", PASSES_BY], check=True, timeout=120)


def note(ledger: Ledger, name: str) -> None:
    with ledger.write() as tx:
        tx.keep_history(("user", name), Account())


def noted(file: Path) -> set[str]:
    """What is in the file, by a connection of its own; the file is whole."""
    with closing(sqlite3.connect(file, timeout=60)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {row[0] for row in database.execute("SELECT name FROM shoal_accounts")}


def test_a_process_that_opens_the_ledger_twice_keeps_it_while_others_come_and_go(empty_home: Path) -> None:
    """Three clusters in one notebook, `shoal ls` in a terminal: each cluster opens the ledger once more."""
    file = empty_home / "ledger.db"
    opened = []
    for number in range(3):
        opened.append(Ledger())
        with opened[-1].read() as tx:
            assert tx.live() == []
        another_passes_by()
        assert Path(f"{file}-wal").exists(), "the other one deleted the log of a file that is open here"
        for each, ledger in enumerate(opened):
            note(ledger, f"{number}-{each}")
    assert noted(file) == {"passer-by", "0-0", "1-0", "1-1", "2-0", "2-1", "2-2"}


def times_open(file: Path) -> int:
    """How often this process has the file open."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # that of the folder itself
            continue
    return links.count(str(file))


def test_many_ledgers_of_one_file_share_its_connections(empty_home: Path) -> None:
    ledgers = [Ledger() for _ in range(20)]
    for number, ledger in enumerate(ledgers):
        note(ledger, str(number))
    assert times_open(empty_home / "ledger.db") == 1
    through_a_link = empty_home.with_name("link")
    through_a_link.symlink_to(empty_home)
    note(Ledger(f"sqlite:///{through_a_link / 'ledger.db'}"), "link")
    assert times_open(empty_home / "ledger.db") == 1


@pytest.mark.parametrize("mask", [0o000, 0o077], ids=["open umask", "private umask"])
@pytest.mark.parametrize("as_url", [False, True], ids=["own", "by url"])
def test_the_file_and_its_log_are_private_from_their_first_moment(
    empty_home: Path, mask: int, as_url: bool
) -> None:
    empty_home.mkdir()
    before = os.umask(mask)
    try:
        ledger = Ledger(f"sqlite:///{empty_home / 'ledger.db'}" if as_url else None)
        note(ledger, "one")
    finally:
        os.umask(before)
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in empty_home.glob("ledger.db*")}
    assert {"ledger.db", "ledger.db-wal", "ledger.db-shm"} <= set(modes)
    assert set(modes.values()) == {"0o600"}, modes


def in_a_child(what: object) -> int:
    """The exit code of a fork that runs it: 0, 1 after a ShoalError, 2 after another one."""
    assert callable(what)
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 2
    try:
        what()
        code = 0
    except InfrastructureError as error:
        print(error, file=sys.stderr)
        code = 1
    finally:
        os._exit(code)


def test_a_fork_opens_the_file_for_itself_and_is_seen_by_others(empty_home: Path) -> None:
    """SQLite keeps per process what it has locked: a fork that inherited that would hold nothing of its own."""
    file = empty_home / "ledger.db"
    ledger = Ledger()
    note(ledger, "before")

    def child() -> None:
        assert times_open(file) == 0, "nothing of the parent's is open here"
        note(ledger, "child")
        assert times_open(file) == 1
        ppid = os.getppid()
        os.kill(ppid, 0)
        another_passes_by()
        assert Path(f"{file}-wal").exists(), "whoever came by did not see the fork's locks"
        note(ledger, "child again")

    assert in_a_child(child) == 0
    note(ledger, "after")
    assert noted(file) == {"before", "child", "child again", "after", "passer-by"}


def test_a_fork_inside_a_transaction_is_told_and_touches_nothing(
    empty_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger()
    with ledger.write() as tx:
        tx.keep_history(("user", "parent"), Account())
        assert in_a_child(lambda: note(ledger, "child")) == 1
        assert in_a_child(lambda: note(Ledger(), "child")) == 1
    assert "forked" in capfd.readouterr().err
    note(ledger, "after")
    assert noted(empty_home / "ledger.db") == {"parent", "after"}


def test_a_fork_beside_a_thread_that_writes_waits_for_the_end_of_its_transaction(empty_home: Path) -> None:
    ledger = Ledger()
    inside, go_on = threading.Event(), threading.Event()

    def write() -> None:
        with ledger.write() as tx:
            inside.set()
            go_on.wait(30)
            tx.keep_history(("user", "thread"), Account())

    writing = threading.Thread(target=write)
    writing.start()
    assert inside.wait(30)
    threading.Timer(0.5, go_on.set).start()
    assert in_a_child(lambda: note(ledger, "child")) == 0
    writing.join(30)
    assert noted(empty_home / "ledger.db") == {"thread", "child"}
