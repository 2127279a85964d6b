"""What there really is: rows of the ledger as SQLite has them, processes as the kernel has them, and people.

Nothing here asks Shoal: what Shoal says is compared with this.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from warm import Warm

PERSON = Path(__file__).with_name("person.py")
PATIENCE = 240.0  # s that a cell or a command may take, on a machine that others use


@dataclass(frozen=True)
class Row:
    """One cluster as its row says it. ``memory``: bytes of its workers that count in its owner's quota."""

    id: str
    name: str
    state: str
    reason: str
    message: str
    workers: int
    planned: int
    memory: int
    longest: float
    head: int
    ended: bool


def rows(home: Path) -> dict[str, Row]:
    """Every cluster of the ledger, by id; checks the file's integrity on the way."""
    with closing(sqlite3.connect(home / "ledger.db", timeout=30)) as ledger:
        said = ledger.execute("PRAGMA integrity_check").fetchone()[0]
        assert said == "ok", f"integrity check of the ledger: {said}"
        found = ledger.execute(
            "SELECT id, name, state, reason, message, workers, plan, head, ended_at FROM shoal_clusters"
        ).fetchall()
    return {row[0]: _row(*row) for row in found}


def _row(
    its_id: str,
    name: str,
    state: str,
    reason: str,
    message: str,
    workers: int,
    plan: str,
    head: str,
    ended: Any,
) -> Row:
    size, where = json.loads(plan), json.loads(head)
    planned = sum(group["count"] for group in size["groups"])
    memory = sum(group["count"] * group["size"]["memory"] for group in size["groups"])
    return Row(
        id=its_id,
        name=name,
        state=state,
        reason=reason,
        message=message,
        workers=workers,
        planned=planned,
        memory=memory,
        longest=size["timeouts"]["max"],
        head=int(where.get("pid", 0)),
        ended=ended is not None,
    )


def marked(home: Path) -> dict[str, set[int]]:
    """Cluster id -> pids of the live processes of this home that carry its mark."""
    found: dict[str, set[int]] = {}
    ours, mark = f"SHOAL_DATA={home}".encode(), b"SHOAL_CLUSTER="
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path("/proc", pid, "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it is gone, or another user's
        if ours in environment:  # that of a zombie is empty
            for entry in environment:
                if entry.startswith(mark):
                    found.setdefault(entry.removeprefix(mark).decode(), set()).add(int(pid))
    return found


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Nursery:
    """The process of person.py with one client imported, started when it is first asked."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.process: subprocess.Popen[bytes] | None = None

    def birth(self, folder: Path, files: tuple[int, int, int]) -> int:
        """A person with these standard files; its pid."""
        if self.process is None:
            self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self.process = subprocess.Popen([sys.executable, str(PERSON), self.client], stdin=theirs)
        asked = {"folder": str(folder), "environment": dict(os.environ)}
        socket.send_fds(self.control, [json.dumps(asked).encode()], files)
        return int(self.control.recv(100))

    def end(self) -> None:
        if self.process is not None:
            process, self.process = self.process, None
            self.control.close()
            process.wait()


NURSERIES = {"dask": Nursery("distributed"), "spark": Nursery("pyspark.sql.connect.session")}
WARM = Warm()


def end() -> None:
    """Of the processes that others are forked from."""
    for each in (*NURSERIES.values(), WARM):
        each.end()


class Person:
    """One process that runs cells, and what came of each. ``engine``: of its client, which it has imported."""

    def __init__(self, folder: Path, name: str, engine: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        (cells, asks), (answers, said) = os.pipe(), os.pipe()
        with self.log.open("ab") as log:
            self.pid = NURSERIES[engine].birth(folder, (cells, said, log.fileno()))
        os.close(cells)
        os.close(said)
        self.lives = os.pidfd_open(self.pid)  # it is not our child: this tells when it ends
        self.asks, self.answers = os.fdopen(asks, "wb"), os.fdopen(answers, "rb")

    def run(self, cell: str) -> dict[str, Any]:
        """``value``, or ``error`` and ``said``. AssertionError where no answer comes."""
        self.asks.write((json.dumps({"cell": cell}) + "\n").encode())
        self.asks.flush()
        if not select.select([self.answers], [], [], PATIENCE)[0]:
            os.kill(self.pid, signal.SIGUSR1)
            time.sleep(1)
            raise AssertionError(f"no answer after {PATIENCE:.0f} s; {self.last_words(80)}")
        line = self.answers.readline()
        assert line, f"the person's process ended; {self.last_words()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def leave(self) -> None:
        """The script ends: no more cells come."""
        self.asks.close()
        try:
            if not self.gone(PATIENCE):
                os.kill(self.pid, signal.SIGUSR1)
                time.sleep(1)
                raise AssertionError(f"it does not end; {self.last_words(80)}")
        finally:
            self.kill()

    def gone(self, seconds: float) -> bool:
        """Whether it has ended, at the latest after so many seconds."""
        return bool(select.select([self.lives], [], [], seconds)[0])

    def kill(self) -> None:
        """``kill -9``; may be called again."""
        if self.answers.closed:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.lives, signal.SIGKILL)
        self.gone(PATIENCE)
        os.close(self.lives)
        self.answers.close()
        with suppress(BrokenPipeError):
            self.asks.close()

    def last_words(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return f"{self.name} wrote last:\n" + "\n".join(text)


def command(*words: str) -> Any:
    """``shoal WORD... -o json``: what it answers."""
    [(code, out, err)] = WARM.ask([[*words, "-o", "json"]], os.getcwd(), dict(os.environ), timeout=PATIENCE)
    assert code == 0, f"shoal {' '.join(words)}: exit code {code}\n{err}"
    return json.loads(out)


def kill(pid: int) -> None:
    """``kill -9``, also of one that is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
