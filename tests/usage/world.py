"""What there really is: rows of the ledger as SQLite has them, processes as the kernel has them, and people.

Nothing here asks Shoal: what Shoal says is compared with this.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PERSON = Path(__file__).with_name("person.py")
SHOAL = Path(sys.executable).with_name("shoal")
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
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get("SHOAL_DATA") != str(home) or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if cluster := environment.get("SHOAL_CLUSTER"):
                found.setdefault(cluster, set()).add(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Person:
    """One process that runs cells, and what came of each."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PERSON)],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def run(self, cell: str) -> dict[str, Any]:
        """``value``, or ``error`` and ``said``. AssertionError where no answer comes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write((json.dumps({"cell": cell}) + "\n").encode())
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            os.kill(self.process.pid, signal.SIGUSR1)
            time.sleep(1)
            raise AssertionError(f"no answer after {PATIENCE:.0f} s; {self.last_words(80)}")
        line = self.process.stdout.readline()
        assert line, f"the person's process ended with {self.process.wait()}; {self.last_words()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def leave(self) -> None:
        """The script ends: no more cells come."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.kill(self.process.pid, signal.SIGUSR1)
            time.sleep(1)
            raise AssertionError(f"it does not end; {self.last_words(80)}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """``kill -9``; may be called again."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def last_words(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return f"{self.name} wrote last:\n" + "\n".join(text)


def command(*words: str) -> Any:
    """``shoal WORD... -o json``: what it answers."""
    done = subprocess.run(
        [str(SHOAL), *words, "-o", "json"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, f"shoal {' '.join(words)}: exit code {done.returncode}\n{done.stderr}"
    return json.loads(done.stdout)


def kill(pid: int) -> None:
    """``kill -9``, also of one that is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
