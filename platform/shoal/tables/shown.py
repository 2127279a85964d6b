"""How a write's result is shown: a line, and a table in a notebook. Pure.

Why it exists: a write of many files is told in one line, and looked at in one table.

What it must not do: leave out what a program can read from the result itself.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from shoal.words import count

if TYPE_CHECKING:
    from shoal.tables.writing.result import WriteResult

_MOST = 20  # files that a table shows


def said(result: WriteResult) -> str:
    """``nyc.flights: 1,000 rows in 4 files, snapshot 123, 0.3 s``."""
    files, rows = count(len(result.files), "file"), count(result.rows, "row")
    what = "an earlier try had written it" if result.replayed else f"{rows} in {files}"
    if not result.snapshot_id:
        what = "no rows"
    replaced = f", {result.replaced_rows:,} replaced" if result.replaced_rows else ""
    quality = result.quality
    checked = count(quality.rows, "row") if quality is not None else ""
    failed = f", {quality.failed_rows:,} of {checked} failed a rule" if quality is not None else ""
    snapshot = f"snapshot {result.snapshot_id}" if result.snapshot_id else "so no snapshot"
    return f"{result.table}: {what}{replaced}{failed}, {snapshot}, {result.seconds:.1f} s"


def html(result: WriteResult) -> str:
    """The same, with its files below it."""
    rows = "".join(
        f"<tr><td>{escape(file.path.rpartition('/')[2])}</td><td>{file.rows:,}</td><td>{file.bytes:,}</td>"
        f"<td>{escape(file.worker)}</td></tr>"
        for file in result.files[:_MOST]
    )
    more = len(result.files) - _MOST
    rest = f"<tr><td colspan=4>and {more:,} more</td></tr>" if more > 0 else ""
    head = "<tr><th>file</th><th>rows</th><th>bytes</th><th>written by</th></tr>"
    return f"<div>{escape(said(result))}</div><table>{head}{rows}{rest}</table>"
