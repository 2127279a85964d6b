"""What one run of a flow has to do: which files, or which snapshots of a table, and under which run key.

Why it exists: it is settled before a cluster is started, and a retry settles the same. What it must not do: read rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.dataframe as dd
from dask.dataframe.dispatch import make_meta

from shoal.errors import UsageError
from shoal.flows import inputs, pieces, progress
from shoal.flows.inputs import File
from shoal.flows.progress import Done
from shoal.flows.script import Function
from shoal.tables.arguments import pandas_schema
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import SnapshotNotFoundError, TableNotFoundError
from shoal.tables.reading.read import read_table
from shoal.units import Bytes
from shoal.words import count


@dataclass(frozen=True)
class Batch:
    """The rows of one run."""

    key: str
    """The run key of its write."""
    said: str
    """For people."""
    done: Done | None = None
    """What is done once it has landed; None where that is not kept."""
    files: tuple[File, ...] = ()
    location: str = ""
    table: str = ""
    since: int | None = None
    to: int | None = None
    size: Bytes | None = None
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)

    def frame(
        self, types: Mapping[str, Any], output: str, function: Function | None, *, as_they_are: bool
    ) -> dd.DataFrame:
        """Its rows, as the user's function gives them. ``as_they_are``: so the table ``output`` gets them."""
        if self.table:
            frame = read_table(self.table, snapshot=self.to, since=self.since)
        else:
            table = self._of_table(output)
            known = {**(table if as_they_are else {}), **types}
            reader = pieces.reader_of(self.files, self.location, self.properties, known, table)
            frame = pieces.frame_of(reader, self.files)
        if function is None:
            return frame
        sample = frame.head(pieces.ROWS) if self.table else reader.sample(self.files[0])
        return frame.map_partitions(function, meta=function.meta(sample), enforce_metadata=False)

    def _of_table(self, output: str) -> dict[str, Any]:
        """The table's types, of those columns that the first file has: a column looks different in each file."""
        try:
            frame = make_meta(read_table(output))
        except TableNotFoundError:
            return {}
        known = {f.name: f.type for f in pandas_schema(frame)}
        first = pieces.InputReader(self.location, self.properties).schema_of(self.files[0], {})
        text = {f.name for f in first} if self.files[0].kind != "parquet" else set()
        return {name: kind for name, kind in known.items() if name in text}


def of_files(
    flow: str,
    given: str,
    output: str,
    folder: Path,
    *,
    incremental: bool,
    again: bool,
    replaces: bool,
    run: str,
) -> Batch | None:
    """The files to read; None where there is no new one.

    ``again``: all of them, whatever was read before. ``replaces``: their rows replace those of the same keys, so that a
    file may be read again. ``run``: the id of the flow's run.
    """
    properties = inputs.storage()
    files = inputs.find(given, folder, properties)
    done = progress.done_in(output, flow) if incremental and not again else Done()
    batch = progress.fresh(files, done, changed_too=replaces)
    if not batch:
        return None
    size = pieces.size_of(batch)
    key = progress.batch_key(flow, batch) if incremental and not again else f"{flow}/{run}"
    return Batch(
        key,
        f"{count(len(batch), 'file')}, {size}",
        progress.after(files, batch, done) if incremental else None,
        tuple(batch),
        given,
        size=size,
        properties=properties,
    )


def of_table(flow: str, given: str, output: str, *, incremental: bool, again: bool, run: str) -> Batch | None:
    """The snapshots to read; None where there is no new one."""
    table = catalogs.load(given)
    head = table.metadata.snapshot_by_name("main")
    if head is None:
        return None
    done = progress.done_in(output, flow) if incremental and not again else Done()
    if done.table and done.table != given:
        raise UsageError(
            f"{flow} has read {done.table} so far, and now its input is {given}",
            hint="Give a flow of another input another name; or run it once with full=True, which reads all of it.",
        )
    since = done.snapshot if done.table == given else None
    if since == head.snapshot_id:
        return None
    if since is not None:
        _since(flow, given, since, head.snapshot_id)
    to = head.snapshot_id
    key = f"{flow}/{given}@{since or 'start'}..{to}" if incremental and not again else f"{flow}/{run}"
    said = f"{given} up to snapshot {to}" + (f", since {since}" if since is not None else "")
    return Batch(key, said, Done({}, given, to) if incremental else None, table=given, since=since, to=to)


def _since(flow: str, given: str, since: int, to: int) -> None:
    """Whether what was added between two snapshots can be told; it is asked before a cluster is started."""
    try:
        read_table(given, snapshot=to, since=since)
    except SnapshotNotFoundError as error:
        raise SnapshotNotFoundError(
            f"{flow} has read {given} up to its snapshot {since}, from which no way leads to the present one: "
            "snapshots have expired, or it was rolled back",
            hint="Run it with full=True, which reads all of the table; with mode='append' empty the output first.",
        ) from error
