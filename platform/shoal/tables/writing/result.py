"""What a write did, to look at and to count on.

Why it exists: a flow goes on with what was written, and a person wants to see it. What it must not do: touch a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shoal.tables.quality.report import QualityReport
from shoal.tables.shown import html, said
from shoal.tables.writing.files import Written


@dataclass(frozen=True)
class WrittenFile:
    """A data file of a write, and the process that wrote it."""

    path: str
    rows: int
    bytes: int
    worker: str
    """The Dask worker's address, or ``"local"``."""
    pid: int


@dataclass(frozen=True, repr=False)
class WriteResult:
    """What a write did."""

    table: str
    snapshot_id: int
    """The snapshot that holds it; 0 if there was nothing to write."""
    rows: int
    """Rows written."""
    files: tuple[WrittenFile, ...]
    replayed: bool
    """An earlier try of the same run had landed; this one wrote nothing, and ``files`` is empty."""
    seconds: float
    replaced_rows: int = 0
    """Rows that an upsert took out for new ones of the same keys."""
    workers: tuple[str, ...] = field(default=())
    """The addresses of the workers that wrote, each once."""
    pids: tuple[int, ...] = field(default=())
    """The processes that wrote, each once."""
    quality: QualityReport | None = None
    """What ``expect=`` found; ``None`` without rules. Of a replayed run: what its first try found, without rows."""

    def __repr__(self) -> str:
        return f"<WriteResult {said(self)}>"

    def _repr_html_(self) -> str:
        return html(self)


def result_of(name: str, snapshot_id: int, written: Sequence[Written], seconds: float) -> WriteResult:
    """The result of a write of these files."""
    files = tuple(
        WrittenFile(w.data_file.file_path, w.rows, w.data_file.file_size_in_bytes, w.worker, w.pid)
        for w in written
    )
    return WriteResult(
        table=name,
        snapshot_id=snapshot_id,
        rows=sum(w.rows for w in written),
        files=files,
        replayed=False,
        seconds=seconds,
        workers=tuple(sorted({w.worker for w in written})),
        pids=tuple(sorted({w.pid for w in written})),
    )
