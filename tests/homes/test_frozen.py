"""A client that is stopped inside its transaction (Ctrl-Z, SIGSTOP) keeps the lock; others must get on.

It is let go on until it has given the lock back, and is stopped again; one that cannot go on is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from shoal.errors import InfrastructureError
from shoal.homes.local import frozen, ledger, periods
from shoal.homes.local.ledger import Ledger
from shoal.quota.account import Account
from shoal.units import Seconds

Eventually = Callable[..., Any]

# It stops itself inside the transaction, as a client does at a crash point; then it waits to be told to end.
STOPS = """
import os, sys
os.environ.update(SHOAL_CRASH_AT="client-in-decision", SHOAL_CRASH_WITH="STOP")
from shoal.quota.account import Account
from shoal.machine.crash import CrashPoint, reached
from shoal.homes.local.ledger import Ledger
with Ledger(sys.argv[1]).write() as tx:
    tx.keep_history(("user", "stopped"), Account())
    reached(CrashPoint.CLIENT_IN_DECISION)
print("committed", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def stopped(empty_home: Path, eventually: Eventually) -> Any:
    """``stopped(url)``: a client that is stopped inside its transaction."""
    begun: list[subprocess.Popen[str]] = []

    def begin(url: str) -> subprocess.Popen[str]:
        Ledger(url)
        process = subprocess.Popen(
            [sys.executable, "-c", STOPS, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        eventually(lambda: is_stopped(process.pid), 60, "it stopped inside its transaction")
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate(timeout=30)


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def accounts(ledger: Ledger) -> set[str]:
    with ledger.read() as tx:
        return {row[0] for row in tx._connection.execute("SELECT name FROM shoal_accounts").fetchall()}


def write(ledger: Ledger, name: str) -> float:
    """How long it took."""
    begin = time.monotonic()
    with ledger.write() as tx:
        tx.keep_history(("user", name), Account())
    return time.monotonic() - begin


@pytest.fixture
def url(empty_home: Path) -> str:
    empty_home.mkdir(mode=0o700)
    return f"sqlite:///{empty_home / 'ledger.db'}"


pytestmark = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="who holds a lock is told by Linux alone"
)


def test_a_stopped_client_gives_the_lock_back_and_stays_stopped(
    url: str, stopped: Any, eventually: Eventually
) -> None:
    client = stopped(url)
    mine = Ledger(url)
    threads = [threading.Thread(target=write, args=(mine, f"other-{number}")) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert accounts(mine) == {"stopped", *(f"other-{number}" for number in range(4))}, (
        "both transactions hold"
    )
    eventually(lambda: is_stopped(client.pid), 10, "it is as its user left it")
    client.send_signal(signal.SIGCONT)
    assert client.communicate("end\n", timeout=60)[0] == "committed\n"
    assert client.returncode == 0


def test_a_lock_of_sqlite_alone_is_given_back_too(
    url: str, stopped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has not waited for its turn, or closes the file: no turn says who it is, the kernel does."""
    stopped(url)
    mine = Ledger(url)
    monkeypatch.setattr(ledger, "turn", lambda *_: threading.Lock())
    assert write(mine, "other") < 60
    assert accounts(mine) == {"stopped", "other"}


def test_one_that_cannot_be_let_go_on_is_killed_and_its_transaction_is_undone(
    url: str, stopped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = stopped(url)
    monkeypatch.setattr(periods, "LOCAL", replace(periods.LOCAL, stopped=Seconds(3)))
    real = os.kill

    def kill(pid: int, number: int) -> None:  # it stops again at once, whoever lets it go on
        if number != signal.SIGCONT:
            real(pid, number)

    monkeypatch.setattr(frozen.os, "kill", kill)
    assert write(Ledger(url), "other") < 60
    assert client.wait(30) == -signal.SIGKILL
    assert accounts(Ledger(url)) == {"other"}


def test_a_slow_one_is_not_touched_and_is_named(url: str) -> None:
    """It runs: nobody knows that it will not go on."""
    sleeps = STOPS.replace(
        "    reached(CrashPoint.CLIENT_IN_DECISION)",
        "    print('inside', flush=True)\n    sys.stdin.readline()",
    )
    Ledger(url)
    with subprocess.Popen(
        [sys.executable, "-c", sleeps, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as slow:
        assert slow.stdout is not None
        assert slow.stdout.readline() == "inside\n"
        with pytest.raises(InfrastructureError, match=rf"locked for 1 s, by pid {slow.pid} \(.*python"):
            write(Ledger(url, wait=1), "other")
        assert slow.poll() is None
        assert slow.communicate("go on\nend\n", timeout=60)[0] == "committed\n"
    assert accounts(Ledger(url)) == {"stopped"}


def test_a_server_ends_the_transaction_of_a_stopped_client(
    stopped: Any, postgresql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = stopped(postgresql.url)
    mine = Ledger(postgresql.url)
    assert write(mine, "other") < periods.LOCAL.abandoned + 20
    assert "stopped" not in accounts(mine)
    client.send_signal(signal.SIGCONT)
    said = client.communicate("end\n", timeout=60)
    assert "committed" not in said[0], "it is told that its transaction was ended"
    assert "InfrastructureError" in said[1]
    assert write(mine, "again") < 60
