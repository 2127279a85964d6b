"""The quality gate of one write: what its tasks check, and what becomes of rows that fail.

Why it exists: rows that break a rule must not be in the table, and must not be lost either. Iceberg commits to one
table at a time, so the failing rows are committed first, to a table of their own, and then the others. What holds:

- Failing rows are never lost: if the main commit lands, theirs has landed before.
- With a run key, running it again lands neither twice. The key of the side's commit is made of the run's and of the
  failing rows themselves, so a run that is tried again with other rows, or other rules, puts those aside as well.
- If the main commit fails after theirs, they stay, and a new write without the key puts them aside once more. Which
  write they are of stands in each row, and which commit to the side a snapshot goes with in its properties.

What it must not do: look at rows, or touch the main table.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
from pyiceberg.table import Table

from shoal.errors import UsageError
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import (
    CatalogUnavailableError,
    ConflictError,
    QualityError,
    QualityWarning,
    StorageError,
    TableChangedError,
)
from shoal.tables.keys import hold_secrets
from shoal.tables.pyiceberg_private import schema_to_pyarrow
from shoal.tables.quality.judging import added_up
from shoal.tables.quality.report import QualityReport, details, properties_of, report_of, said
from shoal.tables.quality.rules import OnFailure, RuleSet
from shoal.tables.reading.plan import pack_metadata
from shoal.tables.writing.attempts import give_up
from shoal.tables.writing.commit import CommitRequest, commit
from shoal.tables.writing.files import REASON, RUN, CheckedPart, Gate, WriteContext, delete_files
from shoal.tables.writing.prepare import Job, prepare
from shoal.tables.writing.runs import find_run
from shoal.tables.writing.sweep import run_folder, sweep, sweep_run

_KEPT = "A partition whose new rows all failed keeps its old rows."
_NOTHING_LANDED = (CatalogUnavailableError, ConflictError, StorageError, TableChangedError)


class QualityGate:
    """Rules, the tasks' part of them, and where failing rows go."""

    def __init__(
        self,
        rules: RuleSet,
        on_failure: OnFailure,
        side: str | None,
        job: Job,
        run: tuple[str, str, str | None, int],
        attempt: str,
        settled: CatalogSettings,
    ) -> None:
        """``side``: the table for failing rows. ``run``: the main table, its branch, the run key and its turn."""
        self._rules, self._on_failure, self._name = rules, on_failure, run[0]
        self._settled, self._attempt, self._run_key = settled, attempt, run[2]
        self._run = " ".join([run[0], run[1], run[2] or attempt, *([f"turn {run[3]}"] if run[3] else [])])
        self._side: Job | None = None
        self._found: list[CheckedPart] = []
        self._keep = False
        self.report: QualityReport | None = None
        context = None
        if side is not None:
            self._side_name = side
            self._side, context = self._open(side, job)
        self.of_task = Gate(rules, on_failure, run[2] or attempt, context)

    def _open(self, side: str, job: Job) -> tuple[Job, WriteContext]:
        schema = schema_to_pyarrow(job.metadata.schema(), include_field_ids=False)
        taken = [name for name in (REASON, RUN) if name in schema.names]
        if taken:
            raise UsageError(
                f"{self._name} has a column {taken[0]!r}, and so has every quarantine table for its own purpose.",
                hint='Rename the column, or use on_failure="fail".',
            )
        # Whatever the table demands of its rows, those that fail may lack.
        fields = [field.remove_metadata().with_nullable(True) for field in schema]
        empty = pa.schema([*fields, pa.field(REASON, pa.string()), pa.field(RUN, pa.string())]).empty_table()
        opened = prepare(empty, side, self._settled, None, None, True, "main")
        folder = run_folder(opened.metadata, "main", self._run, new=opened.existing is None)
        context = WriteContext(
            metadata=pack_metadata(opened.metadata, opened.metadata.current_schema_id),
            table=side,
            data_path=f"{folder}/{self._attempt}",
            io_properties=hold_secrets(dict(opened.io.properties)),
        )
        return opened, context

    def decide(self, found: Sequence[CheckedPart], mode: str, *, new: bool) -> None:
        """Say whether the write goes on. Raises :class:`QualityError`; warns, if that was asked for.

        ``mode``: the write's; what replaces rows does not empty a table by the way. ``new``: there is no table yet.
        """
        self._found = list(found)
        self.report = report_of(
            self._name, added_up(one.tally for one in found), self._rules, self._on_failure
        )
        emptied = mode == "overwrite" and not new and self.report.failed_rows == self.report.rows
        if self.report.ok or (self._on_failure == "quarantine" and not emptied):
            if mode == "overwrite_partitions" and not self.report.ok:
                self.report = replace(self.report, note=_KEPT)
            return
        told = f"{said(self.report)}:\n{details(self.report, self._rules)}"
        if self._on_failure == "quarantine":
            raise QualityError(
                f"{told}\nNothing was written: no row is left for mode='overwrite', which would empty the table.",
                hint=f"To empty it on purpose: shoal.write_table(frame.head(0), {self._name!r}, mode='overwrite').",
                report=self.report,
            )
        if self._on_failure == "warn":
            warnings.warn(f"{told}\nThey are written all the same.", QualityWarning, stacklevel=3)
            return
        raise QualityError(
            f"{told}\nNothing was written.",
            hint="error.report.failing() shows such rows. on_failure='quarantine' writes the other rows, and these to "
            "a table of their own.",
            report=self.report,
        )

    def put_aside(self) -> None:
        """Commit the failing rows to their table, once."""
        files = [written.data_file for one in self._found for written in one.aside]
        if self._side is None or self.report is None or not files:
            return
        digest = sum(one.digest for one in self._found) % 2**64
        key = f"{self._run} {digest:016x}"
        turn = 0
        if self._run_key is not None and (side := catalogs.find(self._side_name, self._settled)) is not None:
            turn = find_run(side.metadata, "main", key).turn
        request = CommitRequest(
            name=self._side_name,
            base=self._side.base,
            files=files,
            key=key,
            remember=self._run_key is not None,
            attempt=self._attempt,
            turn=turn,
            properties={"shoal.quality.of": self._name},
            change=self._side.change,
            create=self._side.create,
        )
        self._keep = True  # unless it is certain that nothing landed
        try:
            landed = commit(request, self._settled)
        except _NOTHING_LANDED:
            self._keep = False
            raise
        own = [file.file_path for file in files]
        if landed.replayed:
            delete_files(self._side.io, own)
        elif landed.table is not None and self.of_task.side is not None:
            sweep_run(landed.table, self._load, self.of_task.side.data_path, own)
        self.report = replace(self.report, quarantine=self._side_name, quarantine_snapshot=landed.snapshot_id)

    def _load(self) -> Table:
        return catalogs.load(self._side_name, self._settled)

    @property
    def properties(self) -> dict[str, str]:
        """What the main snapshot tells of the check."""
        return properties_of(self.report) if self.report is not None else {}

    def abandon(self) -> None:
        """Delete the files of failing rows, unless they have landed or may have."""
        if self._side is None or self.of_task.side is None or self._keep:
            return
        give_up(self.of_task.side.data_path)
        delete_files(self._side.io, [w.data_file.file_path for one in self._found for w in one.aside])
        sweep(self._side.io, self.of_task.side.data_path, ())
