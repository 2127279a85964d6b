"""The line before an SQLite ledger: first come first served, with a deadline, whoever is stopped or dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shoal.homes.local.turns import turn

HOLD = """
import sys, time
from pathlib import Path
from shoal.homes.local.turns import turn
with turn(Path(sys.argv[1]), 30):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the turn and keeps it."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def test_behind_one_that_is_stopped_nobody_waits_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "turn"
    with holder(file) as stopped:
        os.kill(stopped.pid, signal.SIGSTOP)
        begin = time.monotonic()
        with turn(file, 0.5):
            assert 0.4 < time.monotonic() - begin < 10
    # Whoever was given up drops the lock when it comes: the next has it at once.
    begin = time.monotonic()
    with turn(file, 30):
        assert time.monotonic() - begin < 10


def test_one_that_is_killed_gives_its_turn_to_the_next(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    file = tmp_path / "turn"
    with holder(file) as first:
        got = threading.Event()

        def wait() -> None:
            with turn(file, 60):
                got.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got.wait(0.3)
        first.kill()
        assert got.wait(10)
        waiting.join()


def in_line(file: Path) -> int:
    """How many the kernel has waiting for the lock on this file."""
    inode = f":{file.stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("-> FLOCK" in line and inode in line for line in lines)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="who waits for a lock is told by Linux alone")
def test_turns_are_taken_in_the_order_of_coming(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    file, order = tmp_path / "turn", []
    with holder(file) as first:

        def wait(number: int) -> None:
            with turn(file, 60):
                order.append(number)

        threads = [threading.Thread(target=wait, args=(number,)) for number in range(8)]
        for number, thread in enumerate(threads):
            thread.start()
            eventually(lambda known=number: in_line(file) > known, 10, "it stands in line")
        first.kill()
        for thread in threads:
            thread.join(10)
    assert order == sorted(order)
