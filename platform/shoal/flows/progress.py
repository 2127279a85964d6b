"""What a flow has done already: told by the snapshots of the table that it writes.

Why it exists: kept in the same commit as the rows, it can neither be ahead of them nor behind, whenever a run is
killed; and a rollback of the table takes it back as well. A file beside the table could do neither.

What it must not do: read rows, or decide what a flow writes.

The newest snapshot of the table's past that says something of the flow holds. A tag keeps it from being expired,
for the table may be compacted many times before the flow finds something new.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pyiceberg.table import Table

from shoal.errors import ShoalError
from shoal.flows.errors import InputChangedError
from shoal.flows.inputs import File
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import SnapshotNotFoundError, TableNotFoundError
from shoal.tables.labels import drop_tag, tag
from shoal.tables.writing.runs import age, in_past
from shoal.words import count, listed

_PREFIX = "shoal.flow."
_DIGITS, _OF_NAME = 18, 12


@dataclass(frozen=True)
class Done:
    """What a flow has landed in a table."""

    files: dict[str, str] = field(default_factory=dict)
    """Mark of a file -> its state when it was read."""
    table: str = ""
    snapshot: int | None = None
    """Of the table that is read: up to here."""
    told_by: int | None = None
    """The snapshot of the written table that says so."""

    def written(self) -> str:
        """As the value of a snapshot's property."""
        packed = "".join(mark + state for mark, state in sorted(self.files.items()))
        kept: dict[str, Any] = {"files": packed} if packed else {}
        return json.dumps(kept | ({"table": self.table, "snapshot": self.snapshot} if self.table else {}))

    @classmethod
    def read(cls, text: str, told_by: int | None = None) -> Done:
        """From :meth:`written`; what a newer one says besides is passed over."""
        said = json.loads(text)
        packed = said.get("files", "")
        pieces = [packed[at : at + _DIGITS] for at in range(0, len(packed), _DIGITS)]
        files = {piece[:_OF_NAME]: piece[_OF_NAME:] for piece in pieces}
        return cls(files, said.get("table", ""), said.get("snapshot"), told_by)


def property_of(flow: str) -> str:
    """The name of the snapshots' property."""
    return f"{_PREFIX}{flow}"


def done_in(output: str, flow: str) -> Done:
    """What the flow has landed in a table; nothing where there is no table."""
    try:
        return _newest(catalogs.load(output), flow)
    except TableNotFoundError:
        return Done()


def _newest(table: Table, flow: str) -> Done:
    """What the newest snapshot of the table's past that tells of the flow says."""
    for snapshot in sorted(table.metadata.snapshots, key=age, reverse=True):
        said = snapshot.summary.additional_properties if snapshot.summary else {}
        text = said.get(property_of(flow))
        if text is not None and in_past(table.metadata, "main", snapshot):
            return Done.read(text, snapshot.snapshot_id)
    return Done()


def fresh(files: Sequence[File], done: Done, *, changed_too: bool) -> list[File]:
    """The files that were not read yet. Pure.

    ``changed_too``: also those that changed since (their rows replace the old ones); else that is InputChangedError.
    """
    new = [file for file in files if file.mark not in done.files]
    changed = [file for file in files if done.files.get(file.mark, file.state) != file.state]
    if changed and not changed_too:
        names = listed([file.name for file in changed[:5]])
        raise InputChangedError(
            f"what was read before has changed since, {count(len(changed), 'file')}: {names}; reading them again would "
            "write their unchanged rows twice",
            hint="Put new rows into new files; or use mode='upsert' with keys=, which reads changed files again; or "
            "roll the table back to before them (shoal.rollback) and run again.",
            file=changed[0].name,
        )
    return sorted([*new, *changed], key=lambda file: file.name)


def after(files: Sequence[File], batch: Sequence[File], done: Done) -> Done:
    """What is done once the batch has landed. Files that are no longer there are forgotten. Pure."""
    here = {file.mark: done.files[file.mark] for file in files if file.mark in done.files}
    return Done(here | {file.mark: file.state for file in batch})


def batch_key(flow: str, batch: Sequence[File]) -> str:
    """The run key of these files: the same for whichever run reads just them. Pure."""
    told = "\n".join(f"{file.mark} {file.state}" for file in batch)
    return f"{flow}/files-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def keep(output: str, flow: str) -> None:
    """Have the snapshot that tells of the flow kept when others expire, and no earlier one.

    The rows have landed, so nothing here fails the run: the next one does it again.
    """
    with suppress(ShoalError):
        name = f"flow-{flow}"
        table = catalogs.load(output)
        done = _newest(table, flow)
        ref = table.metadata.refs.get(name)
        if done.told_by is None or (ref is not None and ref.snapshot_id == done.told_by):
            return
        with suppress(SnapshotNotFoundError):
            drop_tag(output, name)
        tag(output, name, snapshot=done.told_by)
