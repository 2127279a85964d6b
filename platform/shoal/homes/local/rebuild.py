"""A broken ledger is kept aside, and a new one is made from what the heads wrote down themselves.

Why it exists: what runs must go on being counted before anything else is admitted, also after the disk
damaged the one file that knows.

What it must not do: throw anything away, or guess what is not written.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from shoal.homes.local import paths
from shoal.homes.local.processes import is_alive

RECORD = "record.json"
_BROKEN = ("malformed", "not a database", "disk image", "file is encrypted")


def is_broken(said: str) -> bool:
    """Whether SQLite says that the file itself is damaged."""
    return any(word in said for word in _BROKEN)


def write_record(folder: Path, row: dict[str, Any]) -> None:
    """A head's own copy of its record, replaced as a whole. On a full disk the last copy stays."""
    fresh = folder / f".{RECORD}.new"
    try:
        descriptor = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(row, file)
        fresh.replace(folder / RECORD)
    except OSError as error:
        print(f"shoal head: its own copy of its record is not new: {error}", flush=True)


def records_of_live_heads() -> list[dict[str, Any]]:
    """The copies of all heads that live on this machine."""
    found = []
    for file in sorted((paths.data_folder() / "run").glob(f"*/{RECORD}")):
        try:
            row = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        if is_alive(row.get("head", {})):
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
