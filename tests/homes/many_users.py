"""Long-lived processes that open the ledger again and again, beside short ones that come, write and go.

A script, run by ``test_many_users``: ``many_users.py PROJECT LOG LONG OPENS SHORT AT_ONCE``. It imports once and
forks its processes. Every write that was committed is appended to LOG, one name a line.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from shoal.client.clusters import open_project
from shoal.errors import InfrastructureError
from shoal.homes.local.home import LocalHome
from shoal.project.loading import Project
from shoal.quota.account import Account

_TRIES = 120.0  # s for which a ledger that is away is tried again


def note(home: LocalHome, name: str, log: int) -> None:
    """Write, and say so once it is committed; a write whose outcome is unknown is done again."""
    deadline = time.monotonic() + _TRIES
    while True:
        try:
            with home.ledger.write() as tx:
                tx.keep_history(("user", name), Account())
            break
        except InfrastructureError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    os.write(log, f"{name}\n".encode())


def opened(project: Project) -> LocalHome:
    deadline = time.monotonic() + _TRIES
    while True:
        try:
            return LocalHome(project)
        except InfrastructureError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def long_lived(project: Project, number: int, opens: int, log: int) -> None:
    """A notebook: it opens a home for each cluster; some it closes, some it forgets, some it keeps."""
    kept: list[LocalHome] = []
    for each in range(opens):
        home = opened(project)
        note(home, f"long-{number}-{each}", log)
        if each % 3 == 0:
            home.ledger.close()
        elif each % 3 == 1:
            kept.append(home)
        note((kept or [home])[0], f"long-{number}-{each}-again", log)


def short(project: Project, number: int, log: int) -> None:
    """`shoal ls`: it opens, reads, writes and ends, in good order or not."""
    home = opened(project)
    note(home, f"short-{number}", log)
    if number % 4:
        home.ledger.close()  # as the interpreter's end does


def forked(what: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        what()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main(folder: Path, file: Path, long: int, opens: int, shorts: int, at_once: int) -> int:
    project = open_project(folder)
    if project.target.store:  # imported once, for all forks
        import psycopg2  # noqa: F401
        import sqlalchemy.dialects.postgresql.psycopg2  # noqa: F401
    log = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    living = {
        forked(lambda number=number: long_lived(project, number, opens, log))  # type: ignore[misc]
        for number in range(long)
    }
    failed, begun = 0, 0
    while living or begun < shorts:
        while begun < shorts and len(living) < long + at_once:
            number, begun = begun, begun + 1
            living.add(forked(lambda number=number: short(project, number, log)))  # type: ignore[misc]
        pid, status = os.wait()
        living.discard(pid)
        failed += status != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])))
