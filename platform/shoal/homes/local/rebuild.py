"""A broken ledger is kept aside, and a new one is made from what the heads wrote down themselves.

Why it exists: what runs must go on being counted before anything else is admitted, also after the disk
damaged the one file that knows.

What it must not do: throw anything away, or guess what is not written.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.machine import paths
from shoal.machine.processes import is_alive, of_another
from shoal.model.cluster import FAILURES, Reason, State

_log = logging.getLogger("shoal.homes")
RECORD = "record.json"
_BROKEN = ("malformed", "not a database", "disk image", "file is encrypted")


def is_broken(said: str) -> bool:
    """Whether SQLite says that the file itself is damaged."""
    return any(word in said for word in _BROKEN)


def write_record(folder: Path, row: dict[str, Any]) -> None:
    """A head's own copy of its record, replaced as a whole; on a full disk it is written over the last one."""
    fresh, text = folder / f".{RECORD}.new", json.dumps(row).encode()
    try:
        descriptor = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
        fresh.replace(folder / RECORD)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        if not _written_over(folder / RECORD, text):
            _log.warning("its own copy of its record could not be refreshed: %s", error)


def _written_over(file: Path, text: bytes) -> bool:
    """Into the room that it has already."""
    try:
        descriptor = os.open(file, os.O_WRONLY)
    except OSError:
        return False
    try:
        whole = os.pwrite(descriptor, text, 0) == len(text)
        if whole:
            os.ftruncate(descriptor, len(text))
        return whole
    except OSError:
        return False
    finally:
        os.close(descriptor)


def read_record(cluster_id: str) -> dict[str, Any] | None:
    """The copy that this cluster's head wrote; None where none can be read."""
    try:
        return dict(json.loads((paths.run_folder(cluster_id) / RECORD).read_text()))
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class LastWords:
    """What a head could not tell the ledger: why it ended, when (None: it was about to), and its report."""

    state: State
    reason: Reason
    message: str
    ended_at: float | None
    report: dict[str, Any]


def last_words(cluster_id: str) -> LastWords | None:
    """Of a head that is gone, as far as it had come with its end; None where its copy says nothing of it."""
    row = read_record(cluster_id)
    if row is None or not (State(row["state"]).ended or row["state"] == State.STOPPING):
        return None
    reason = Reason(row["reason"])
    state = State.FAILED if reason in FAILURES else State.STOPPED
    return LastWords(state, reason, str(row["message"]), row.get("ended_at"), dict(row["report"]))


def records_of_live_heads(ledger_path: str) -> list[dict[str, Any]]:
    """The copies of all heads that live on this machine and belong to the ledger at ``ledger_path``."""
    found = []
    for file in sorted((paths.data_folder() / "run").glob(f"*/{RECORD}")):
        row = read_record(file.parent.name)
        if row is not None and is_alive(row.get("head", {})) and not of_another(row["head"], ledger_path):
            found.append(row)
    return found


def keep_aside(file: Path) -> Path:
    """Move a broken ledger, with its write-ahead log, out of the way; returns where it is kept."""
    kept = file.with_name(f"{file.name}.broken-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    for suffix in ("-wal", "-shm"):
        part = Path(f"{file}{suffix}")
        if part.exists():
            part.replace(Path(f"{kept}{suffix}"))
    file.replace(kept)
    return kept
