"""``write_table``: files on the workers, one snapshot, committed here.

Why it exists: it puts the parts in order: check everything that can be checked, let the workers write, commit
once, sweep up. What it must not do: look at data (``fit`` and ``files`` do, on the workers).
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from pyiceberg.table import Table

from shoal.errors import ShoalError, UsageError
from shoal.tables import arguments
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import CommitUnknownError, ConflictError, NoRowsError
from shoal.tables.keys import hold_secrets
from shoal.tables.quality.report import report_in
from shoal.tables.quality.rules import OnFailure, Rules, check_action, read_rules
from shoal.tables.reading.plan import pack_metadata
from shoal.tables.writing.attempts import give_up, refuse_in_its_loop
from shoal.tables.writing.commit import COMMIT_SECONDS, CommitRequest, Landed
from shoal.tables.writing.files import (
    CheckedPart,
    WriteContext,
    Written,
    delete_files,
    write_frame,
    write_partition,
)
from shoal.tables.writing.gate import QualityGate
from shoal.tables.writing.points import WritePoint, reached
from shoal.tables.writing.prepare import Job, prepare
from shoal.tables.writing.replace import all_of_it, these_files, these_partitions
from shoal.tables.writing.result import WriteResult, result_of
from shoal.tables.writing.runs import Standing, find_run
from shoal.tables.writing.sweep import (
    paths_of,
    run_folder,
    sweep,
    sweep_manifests,
    sweep_metadata,
    sweep_new,
    sweep_run,
)
from shoal.tables.writing.unsure import UnsureError, commit_surely
from shoal.tables.writing.upsert import Rewritten, check_keys, run_duplicate_check, run_rewrites

UPSERT_TRIES = 5
"""How often an upsert looks for its keys at least, because someone else committed meanwhile; and for as long as any
commit is tried (``COMMIT_SECONDS``)."""
_LONGEST_PAUSE = 2.0  # s, before it looks again

Mode = Literal["append", "overwrite", "overwrite_partitions", "upsert"]
OnEmpty = Literal["pass", "snapshot", "fail"]


def write_table(  # noqa: PLR0915 - what a try may leave depends on the order of all of it
    df: dd.DataFrame | pd.DataFrame | pa.Table,
    name: str,
    mode: Mode = "append",
    *,
    keys: Sequence[str] | str = (),
    partition_by: Sequence[str] | str | None = None,
    sort_by: Sequence[str] | str | None = None,
    evolve: bool = False,
    run_key: str | None = None,
    branch: str = "main",
    properties: Mapping[str, str] | None = None,
    expect: Rules | None = None,
    on_failure: OnFailure = "fail",
    quarantine: str | None = None,
    on_empty: OnEmpty = "pass",
    catalog: CatalogSettings | None = None,
) -> WriteResult:
    """Write a frame into an Iceberg table, as one snapshot.

    ``df``: a Dask frame (written by the workers of the current client, or by local threads), a pandas frame
    or an Arrow table. Columns are matched by name; named index levels become columns, an unnamed index is
    dropped. A table that is not there is made, together with its first rows.

    ``mode``: ``"append"``; ``"overwrite"`` replaces all rows; ``"overwrite_partitions"`` those of the
    partitions that the frame has rows for; ``"upsert"`` those with the same ``keys``. What replaces rows
    raises :class:`ConflictError` if someone else changed those rows meanwhile.

    ``partition_by``, ``sort_by``: for a new table, as in :func:`create_table`; for an existing one
    ``partition_by`` must be what it has, ``sort_by`` may differ. ``evolve``: add the frame's new columns,
    widen types, fill missing columns with nulls, in the same commit. ``properties``: added to the snapshot's
    summary.

    ``run_key``: names this write to this branch, so that running it again lands nothing twice: the second gives
    back the first's snapshot. After a rollback behind that snapshot it is written again. Without a key every call
    is a write of its own.

    ``expect``: rules that rows have to pass, checked as they are written: conditions by name (``{"sane delay":
    "delay >= -60"}``, as in ``read_table(filters=)``; a null passes, unless the rule is ``is not null``), or a
    pandera schema. ``on_failure``: ``"fail"`` commits nothing and raises :class:`QualityError` with the counts and some
    of the rows; ``"warn"`` writes all rows and warns; ``"quarantine"`` writes the rows that pass, and first the others
    to the table ``quarantine`` (``NAME_quarantine``), with the rules that each breaks. The result's ``quality`` and the
    snapshot's properties tell what was found.

    ``on_empty``: where no row is left to write, ``"pass"`` makes no snapshot (of ``mode="overwrite"``: an empty table),
    ``"snapshot"`` makes one all the same, for what ``run_key`` and ``properties`` tell, and ``"fail"`` raises
    :class:`NoRowsError`.

    Raises :class:`RuleError`, :class:`SchemaMismatchError`, :class:`ValueNotRepresentableError`,
    :class:`DuplicateKeysError`,
    :class:`ConflictError`, :class:`TableChangedError`, :class:`CommitUnknownError`, :class:`StorageError`,
    :class:`CatalogUnavailableError`. After any but ``CommitUnknownError`` the table is as it was and the
    written files are deleted. In the event loop of an asynchronous Dask client it is refused: write in
    ``await asyncio.to_thread(shoal.write_table, ...)`` there.
    """
    started = time.monotonic()
    if mode not in ("append", "overwrite", "overwrite_partitions", "upsert"):
        raise UsageError(
            f"mode={mode!r} is not known.",
            hint='Use "append", "overwrite", "overwrite_partitions" or "upsert".',
        )
    if bool(keys) != (mode == "upsert"):
        raise UsageError(
            "keys= go with mode='upsert', and mode='upsert' needs them.", hint="keys=['id'] names the row."
        )
    wanted_keys = tuple(arguments.names(keys, "keys", '["id"]'))
    summary = arguments.properties(properties)
    if run_key is not None and (not isinstance(run_key, str) or not run_key.strip()):
        what = "is empty" if isinstance(run_key, str) else f"is {type(run_key).__name__}, not text"
        raise UsageError(f"run_key={run_key!r} {what}.", hint='For example "flow-42/load".')
    check_action(on_failure, quarantine, rules=expect is not None, table=name)
    if on_empty not in ("pass", "snapshot", "fail"):
        raise UsageError(f"on_empty={on_empty!r} is not known.", hint='Use "pass", "snapshot" or "fail".')
    refuse_in_its_loop(name)
    settled = catalogs.settings(catalog)
    job = prepare(df, name, settled, partition_by, sort_by, evolve, branch)
    rules = None
    if expect is not None:
        parts = df.npartitions if isinstance(df, dd.DataFrame) else 1
        rules = read_rules(expect, job.metadata.schema(), f"the table {name}", parts=parts)
    attempt = uuid.uuid4().hex
    key = run_key or attempt
    run = Standing(None, 0)
    if run_key is not None and job.existing is not None:
        run = find_run(job.existing.metadata, branch, key)
    found = run.landed
    if found is not None:
        _sweep(job.existing, settled, name, branch, key, run.turn, paths_of(job.existing, found))
        sweep_manifests(job.io, job.existing.metadata, found)
        sweep_metadata(job.existing)
        return _replay(name, found, started, job.existing)
    if wanted_keys:
        check_keys(wanted_keys, job.metadata.schema(), job.columns)
    gate = None
    if rules is not None:
        aside = (quarantine or f"{name}_quarantine") if on_failure == "quarantine" else None
        gate = QualityGate(rules, on_failure, aside, job, (name, branch, run_key, run.turn), attempt, settled)
    folder = run_folder(job.metadata, branch, key, turn=run.turn, new=job.existing is None)
    context = WriteContext(
        metadata=pack_metadata(job.metadata, job.metadata.current_schema_id),
        table=name,
        data_path=f"{folder}/{attempt}",
        index_names=job.index_names,
        columns=job.columns,
        sort=job.sort,
        io_properties=hold_secrets(dict(job.io.properties)),
        gate=gate.of_task if gate is not None else None,
    )
    reached(WritePoint.CLIENT_BEFORE_WRITE)
    written: list[Written] = []
    rewritten: list[Rewritten] = []
    try:
        outcomes = _run(df, context)
        written = [one for one in outcomes if isinstance(one, Written)]
        if gate is not None:
            gate.decide([o for o in outcomes if isinstance(o, CheckedPart)], mode, new=job.existing is None)
        if wanted_keys and written:
            run_duplicate_check(written, context, wanted_keys)
        reached(WritePoint.CLIENT_AFTER_FILES)
        if gate is not None:
            gate.put_aside()
            summary |= gate.properties
        quality = gate.report if gate is not None else None
        if not written and on_empty == "fail":
            raise NoRowsError(
                f"No row is left to write to {name}, and nothing was written.",
                hint="on_empty='pass' takes no rows for an answer; with mode='overwrite' that empties the table.",
                table=name,
            )
        passed = on_empty == "pass" and job.existing is not None
        if not written and passed and mode in ("append", "overwrite_partitions", "upsert"):
            seconds = time.monotonic() - started
            return WriteResult(name, 0, 0, (), replayed=False, seconds=seconds, quality=quality)
        removal = None
        if job.existing is not None and mode == "overwrite":
            removal = all_of_it(job.existing, name, branch)
        elif job.existing is not None and mode == "overwrite_partitions" and written:
            removal = these_partitions(job.existing, [w.data_file for w in written], name, branch)
        request = CommitRequest(
            name=name,
            base=job.base,
            files=[w.data_file for w in written],
            key=key,
            remember=run_key is not None,
            attempt=attempt,
            branch=branch,
            turn=run.turn,
            properties=summary,
            removal=removal,
            change=job.change,
            create=job.create,
            even_empty=on_empty == "snapshot",
        )
        if mode == "upsert" and job.existing is not None and written:
            landed, rewritten = _upsert(job, request, written, context, wanted_keys, settled)
        else:
            landed = commit_surely(request, settled)
    except CommitUnknownError:
        raise
    except UnsureError as unsure:
        # The rows may be the table's, so the files are left; a try of the same run deletes them if they are not.
        give_up(context.data_path)
        raise unsure.cause from None
    except BaseException as error:
        give_up(context.data_path)
        if gate is not None:
            gate.abandon()
        delete_files(job.io, [w.data_file.file_path for w in written])
        sweep(job.io, context.data_path, ())
        # Another try of this run may have landed, and swept the folder that this one was writing into.
        found = _landed(name, settled, branch, key) if run_key and isinstance(error, Exception) else None
        if found is None:
            raise
        return _replay(name, found, started, None)
    reached(WritePoint.CLIENT_BEFORE_SWEEP)
    if run_key is not None and landed.table is not None:
        sweep_manifests(job.io, landed.table.metadata, landed.snapshot_id)
        sweep_metadata(landed.table)
    kept = [*written, *(w for r in rewritten for w in r.written)]
    if landed.table is not None:
        # Another try of this run may have been first: then its files are the table's, and these are nobody's.
        own = [w.data_file.file_path for w in kept]
        keep = paths_of(landed.table, landed.snapshot_id) if landed.replayed else own
        sweep_run(landed.table, lambda: catalogs.load(name, settled), context.data_path, keep)
        if run_key is not None:
            _sweep(landed.table, settled, name, branch, key, run.turn, keep)
    if landed.replayed:
        return _replay(name, landed.snapshot_id, started, landed.table)
    result = result_of(name, landed.snapshot_id, kept, time.monotonic() - started)
    replaced = sum(r.replaced for r in rewritten)
    return replace(result, rows=sum(w.rows for w in written), replaced_rows=replaced, quality=quality)


def _replay(name: str, snapshot_id: int, started: float, table: Table | None) -> WriteResult:
    """The result of a run that an earlier try had landed, with what that had found of its rows."""
    snapshot = table.metadata.snapshot_by_id(snapshot_id) if table is not None else None
    told = snapshot.summary.additional_properties if snapshot is not None and snapshot.summary else {}
    seconds = time.monotonic() - started
    return WriteResult(
        name, snapshot_id, 0, (), replayed=True, seconds=seconds, quality=report_in(name, told)
    )


def _sweep(
    table: Table, settled: CatalogSettings, name: str, branch: str, key: str, turn: int, keep: Sequence[str]
) -> None:
    """Delete what tries of a run have left in its folders."""

    def load() -> Table:
        return catalogs.load(name, settled)

    sweep_run(table, load, run_folder(table.metadata, branch, key, turn=turn), keep)
    made_in = run_folder(table.metadata, branch, key, new=True)
    if any(path.startswith(made_in) for path in keep):
        sweep_new(table, load, made_in, keep)


def _landed(name: str, settled: CatalogSettings, branch: str, key: str) -> int | None:
    """The snapshot of another try of the run; None also where the catalog does not say."""
    with suppress(ShoalError):
        return find_run(catalogs.load(name, settled).metadata, branch, key).landed
    return None


def _upsert(
    job: Job,
    request: CommitRequest,
    written: Sequence[Written],
    context: WriteContext,
    keys: tuple[str, ...],
    settled: CatalogSettings,
) -> tuple[Landed, list[Rewritten]]:
    """Rewrite what holds the keys, and commit; if the table moved meanwhile, look for the keys again."""
    table = job.existing
    begin, tries = time.monotonic(), 0
    while True:
        rewritten = run_rewrites(table, job.metadata, written, context, keys, request.branch)
        fresh = [w.data_file for r in rewritten for w in r.written]
        removal = these_files(table, [r.path for r in rewritten], request.name, request.branch)
        try:
            full = replace(request, files=[*request.files, *fresh], removal=removal)
            return commit_surely(full, settled), rewritten
        except ConflictError:
            delete_files(job.io, [f.file_path for f in fresh])
            tries += 1
            if tries >= UPSERT_TRIES and time.monotonic() - begin > COMMIT_SECONDS:
                raise
            # Those who met are spread, or the quickest of them would win each time.
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.1 * 1.5**tries)))  # noqa: S311 - no secret
            table = catalogs.load(request.name, settled)


def _run(df: Any, context: WriteContext) -> list[Written | CheckedPart]:
    if not isinstance(df, dd.DataFrame):
        return write_partition(df, context)
    meta = pd.DataFrame({"written": pd.Series([], dtype=object)})
    parts = df.map_partitions(write_frame, context, meta=meta, enforce_metadata=False)
    return list(parts.compute()["written"])
