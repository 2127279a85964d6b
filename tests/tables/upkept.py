"""Small tables for tests of maintenance: their rows, snapshots, and files on disk."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

import shoal
from shoal.tables.catalogs import opening as catalogs


def put(name: str, values: list[int], mode: Any = "append", **how: Any) -> int:
    return shoal.write_table(pa.table({"x": values}), name, mode, **how).snapshot_id


def rows(name: str, **how: Any) -> list[int]:
    return sorted(shoal.read_table(name, **how).x.compute())


def ids(name: str) -> list[int]:
    return [int(i) for i in shoal.snapshots(name).snapshot_id]


def folder(name: str) -> Path:
    return Path(catalogs.load(name).location().removeprefix("file://"))


def on_disk(name: str) -> set[Path]:
    return {path for path in folder(name).rglob("*") if path.is_file()}


def backdate(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(path, (then, then))
