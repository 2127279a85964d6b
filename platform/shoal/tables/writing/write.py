"""``write_table``: files on the workers, one snapshot, committed here.

Why it exists: it puts the parts in order: check everything that can be checked, let the workers write, commit
once, sweep up. What it must not do: look at data (``fit`` and ``files`` do, on the workers).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pyiceberg
from dask.dataframe.dispatch import make_meta
from pyiceberg.table import Transaction

from shoal.errors import ShoalError, UsageError
from shoal.tables import arguments
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import CommitUnknownError, ConflictError, NotSupportedError, TableNotFoundError
from shoal.tables.pyiceberg_private import FileIO, TableMetadata, io_of
from shoal.tables.reading.plan import pack_metadata
from shoal.tables.reading.scan import public_properties
from shoal.tables.refs import check_branch
from shoal.tables.shown import html, said
from shoal.tables.types.evolution import plan_evolution
from shoal.tables.types.partitioning import check_sortable, parse_field, parse_sorts, same_spec, spec_fields
from shoal.tables.types.schemas import check, check_columns, frame_schema, new_table_schema
from shoal.tables.writing.attempts import give_up, refuse_in_its_loop
from shoal.tables.writing.commit import CommitRequest, Landed, commit, find_landed
from shoal.tables.writing.create import staged
from shoal.tables.writing.files import WriteContext, Written, delete_files, write_frame, write_partition
from shoal.tables.writing.points import WritePoint, reached
from shoal.tables.writing.replace import all_of_it, these_files, these_partitions
from shoal.tables.writing.sweep import paths_of, run_folder, sweep, sweep_manifests, sweep_metadata
from shoal.tables.writing.upsert import Rewritten, check_keys, run_duplicate_check, run_rewrites

UPSERT_TRIES = 5
"""How often an upsert looks for its keys again because someone else committed meanwhile."""

Mode = Literal["append", "overwrite", "overwrite_partitions", "upsert"]


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

    def __repr__(self) -> str:
        return f"<WriteResult {said(self)}>"

    def _repr_html_(self) -> str:
        return html(self)


def write_table(
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

    ``run_key``: names this write, so that running it again lands nothing twice: the second gives back the
    first's snapshot. Without it every call is a write of its own.

    Raises :class:`SchemaMismatchError`, :class:`ValueNotRepresentableError`, :class:`DuplicateKeysError`,
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
    if run_key is not None and not isinstance(run_key, str):
        raise UsageError(
            f"run_key={run_key!r} is {type(run_key).__name__}, not text.", hint='For example "flow-42/load".'
        )
    refuse_in_its_loop(name)
    settled = catalogs.settings(catalog)
    job = _prepare(df, name, settled, partition_by, sort_by, evolve, branch)
    attempt = uuid.uuid4().hex
    key = run_key or attempt
    found = find_landed(job.existing.metadata, branch, key) if run_key and job.existing is not None else None
    if found is not None:
        sweep(job.io, run_folder(job.metadata, key), paths_of(job.existing, found))
        sweep_manifests(job.io, job.existing.metadata, found)
        sweep_metadata(job.existing)
        return WriteResult(name, found, 0, (), replayed=True, seconds=time.monotonic() - started)
    if wanted_keys:
        check_keys(wanted_keys, job.metadata.schema(), job.columns)
    folder = run_folder(job.metadata, key)
    context = WriteContext(
        metadata=pack_metadata(job.metadata, job.metadata.current_schema_id),
        table=name,
        data_path=f"{folder}/{attempt}",
        index_names=job.index_names,
        sort=job.sort,
        io_properties=public_properties(dict(job.io.properties)),
    )
    reached(WritePoint.CLIENT_BEFORE_WRITE)
    written: list[Written] = []
    rewritten: list[Rewritten] = []
    try:
        written = _run(df, context)
        if wanted_keys and written:
            run_duplicate_check(written, context, wanted_keys)
        reached(WritePoint.CLIENT_AFTER_FILES)
        if not written and mode in ("append", "overwrite_partitions", "upsert") and job.existing is not None:
            return WriteResult(name, 0, 0, (), replayed=False, seconds=time.monotonic() - started)
        removal = None
        if job.existing is not None and mode == "overwrite":
            removal = all_of_it(job.existing, name, branch)
        elif job.existing is not None and mode == "overwrite_partitions":
            removal = these_partitions(job.existing, [w.data_file for w in written], name, branch)
        request = CommitRequest(
            name=name,
            base=job.base,
            files=[w.data_file for w in written],
            key=key,
            remember=run_key is not None,
            attempt=attempt,
            branch=branch,
            properties=summary,
            removal=removal,
            change=job.change,
            create=job.create,
        )
        if mode == "upsert" and job.existing is not None:
            landed, rewritten = _upsert(job, request, written, context, wanted_keys, settled)
        else:
            landed = commit(request, settled)
    except CommitUnknownError:
        raise
    except BaseException as error:
        give_up(context.data_path)
        delete_files(job.io, [w.data_file.file_path for w in written])
        sweep(job.io, context.data_path, ())
        # Another try of this run may have landed, and swept the folder that this one was writing into.
        found = _landed(name, settled, branch, key) if run_key and isinstance(error, Exception) else None
        if found is None:
            raise
        return WriteResult(name, found, 0, (), replayed=True, seconds=time.monotonic() - started)
    reached(WritePoint.CLIENT_BEFORE_SWEEP)
    if run_key is not None and landed.table is not None:
        sweep_manifests(job.io, landed.table.metadata, landed.snapshot_id)
        sweep_metadata(landed.table)
    if landed.replayed:
        # Another try of this run was first. Its files are the table's, all others of the run are nobody's.
        sweep(job.io, folder, paths_of(landed.table, landed.snapshot_id) if landed.table else ())
        return WriteResult(name, landed.snapshot_id, 0, (), replayed=True, seconds=time.monotonic() - started)
    kept = [*written, *(w for r in rewritten for w in r.written)]
    sweep(job.io, folder if run_key else context.data_path, [w.data_file.file_path for w in kept])
    result = _result(name, landed.snapshot_id, kept, time.monotonic() - started)
    return replace(
        result, rows=sum(w.rows for w in written), replaced_rows=sum(r.replaced for r in rewritten)
    )


def _landed(name: str, settled: CatalogSettings, branch: str, key: str) -> int | None:
    """The snapshot of another try of the run; None also where the catalog does not say."""
    with suppress(ShoalError):
        return find_landed(catalogs.load(name, settled).metadata, branch, key)
    return None


def _upsert(
    job: _Job,
    request: CommitRequest,
    written: Sequence[Written],
    context: WriteContext,
    keys: tuple[str, ...],
    settled: CatalogSettings,
) -> tuple[Landed, list[Rewritten]]:
    """Rewrite what holds the keys, and commit; if the table moved meanwhile, look for the keys again."""
    table = job.existing
    for again in range(UPSERT_TRIES):
        rewritten = run_rewrites(table, job.metadata, written, context, keys, request.branch)
        fresh = [w.data_file for r in rewritten for w in r.written]
        removal = these_files(table, [r.path for r in rewritten], request.name, request.branch)
        try:
            full = replace(request, files=[*request.files, *fresh], removal=removal)
            return commit(full, settled), rewritten
        except ConflictError:
            delete_files(job.io, [f.file_path for f in fresh])
            if again == UPSERT_TRIES - 1:
                raise
            table = catalogs.load(request.name, settled)
    raise AssertionError("the last try returns or raises")


def _result(name: str, snapshot_id: int, written: Sequence[Written], seconds: float) -> WriteResult:
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


@dataclass(frozen=True)
class _Job:
    """Everything settled before the first byte is written."""

    existing: Any
    base: TableMetadata
    """What must hold still until the commit."""
    metadata: TableMetadata
    """What the files are written for: ``base``, or what it will be after evolving."""
    io: FileIO
    sort: tuple[tuple[str, bool], ...]
    index_names: tuple[str, ...]
    columns: tuple[str, ...]
    """The frame's."""
    change: Callable[[Transaction], None] | None = None
    create: Callable[[], Transaction] | None = None


def _prepare(
    df: Any,
    name: str,
    settled: CatalogSettings,
    partition_by: Sequence[str] | str | None,
    sort_by: Sequence[str] | str | None,
    evolve: bool,
    branch: str,
) -> _Job:
    index_names, schema = _frame(df)
    sort = tuple(parse_sorts(sort_by))
    check_columns([column for column, _ in sort], schema.names, "the frame")
    try:
        table = catalogs.load(name, settled)
    except TableNotFoundError:
        return _prepare_new(name, schema, settled, partition_by, sort_by, sort, index_names, branch)
    if table.metadata.format_version > 2:
        raise NotSupportedError(
            f"The table {name} is of format version {table.metadata.format_version}, and PyIceberg "
            f"{pyiceberg.__version__} writes up to version 2.",
            hint="Hand the rows to Spark: `with shoal.staged(df) as t:` and there "
            f"INSERT INTO shoal.{name} SELECT * FROM shoal.<t>.",
        )
    if partition_by is not None:
        wanted = [parse_field(p) for p in arguments.names(partition_by, "partition_by", '["day(ts)"]')]
        have = spec_fields(table.spec(), table.schema())
        if not same_spec(wanted, have):
            raise UsageError(
                f"The table {name} is partitioned by {[f.name for f in have]}, not by {partition_by!r}.",
                hint="Leave partition_by= out: it is for new tables.",
            )
    if isinstance(branch, str) and branch != "main" and branch not in table.metadata.refs:
        raise UsageError(
            f"{name} has no branch {branch!r}.", hint=f"Make it: shoal.branch({name!r}, {branch!r})"
        )
    check_branch(table, name, branch)
    found = check(name, schema, table.schema(), evolve=evolve)
    for column, _ in sort:
        if column in table.schema().column_names:
            check_sortable(column, table.schema().find_type(column))
    change, metadata = plan_evolution(table, schema, found) if found else (None, table.metadata)
    if not sort:
        sort = tuple(
            (table.schema().find_column_name(f.source_id) or "", f.direction.value == "asc")
            for f in table.sort_order().fields
            if str(f.transform) == "identity" and table.schema().find_column_name(f.source_id) in schema.names
        )
    return _Job(
        table, table.metadata, metadata, table.io, sort, index_names, tuple(schema.names), change=change
    )


def _prepare_new(
    name: str,
    schema: pa.Schema,
    settled: CatalogSettings,
    partition_by: Sequence[str] | str | None,
    sort_by: Sequence[str] | str | None,
    sort: tuple[tuple[str, bool], ...],
    index_names: tuple[str, ...],
    branch: str,
) -> _Job:
    if branch != "main":
        raise UsageError(f"The table {name} does not exist yet, so it has no branch {branch!r}.")
    start = staged(
        name,
        new_table_schema(schema),
        () if partition_by is None else partition_by,
        () if sort_by is None else sort_by,
        None,
        settled,
    )
    transaction = start()
    metadata = transaction.table_metadata
    again = _once(transaction, start)
    return _Job(
        None, metadata, metadata, io_of(transaction), sort, index_names, tuple(schema.names), create=again
    )


def _once(first: Transaction, start: Callable[[], Transaction]) -> Callable[[], Transaction]:
    """The transaction that the files were written for; on a second try a new one at the same location."""
    pending = [first]
    return lambda: pending.pop() if pending else start()


def _frame(df: Any) -> tuple[tuple[str, ...], pa.Schema]:
    """The index levels that are stored, and the columns with their types."""
    if isinstance(df, pa.Table):
        return (), arguments.arrow_schema(df.schema)
    if not isinstance(df, (pd.DataFrame, dd.DataFrame)):
        raise UsageError(
            f"{type(df).__name__} is no frame.", hint="Give a Dask or pandas DataFrame, or a pyarrow.Table."
        )
    meta: pd.DataFrame = make_meta(df) if isinstance(df, dd.DataFrame) else df
    names = tuple(cast("str", n) for n in meta.index.names if n is not None)
    arguments.check_names([*names, *meta.columns], "column or index level")
    if names and len(names) != meta.index.nlevels:
        raise UsageError("Some index levels have names and some have none.", hint="df.reset_index() first.")
    if names:
        meta = meta.reset_index()
    if isinstance(df, pd.DataFrame):
        return names, arguments.pandas_schema(meta).remove_metadata()
    return names, frame_schema(meta)


def _run(df: Any, context: WriteContext) -> list[Written]:
    if not isinstance(df, dd.DataFrame):
        return write_partition(df, context)
    meta = pd.DataFrame({"written": pd.Series([], dtype=object)})
    parts = df.map_partitions(write_frame, context, meta=meta, enforce_metadata=False)
    return list(parts.compute()["written"])
