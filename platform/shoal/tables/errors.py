"""What can go wrong with tables, each kind with its own type.

Why it exists: a flow has to tell "run me again" (:class:`ConflictError`) from "the data is wrong"
(:class:`ValueError`-like ones) and both from "nobody knows yet" (:class:`CommitUnknownError`) without
reading sentences.
"""

from __future__ import annotations

from typing import Any

from shoal.errors import InfrastructureError, NotFoundError, ShoalError, UsageError


class TableNotFoundError(NotFoundError):
    """The table is not in the catalog; ``values["similar"]`` lists names like it."""


class SnapshotNotFoundError(NotFoundError):
    """The snapshot, tag, branch or time asked for is not in the table's history."""


class TableExistsError(UsageError):
    """``create_table`` was asked for a table that is there already."""


class ColumnNotFoundError(NotFoundError):
    """A column that was named is not in the table or the frame."""


class FilterError(UsageError):
    """A filter that cannot be read, or whose value does not fit its column."""


class SchemaMismatchError(UsageError):
    """The frame's columns are not the table's. ``values["differences"]`` lists every difference."""


class TypeNotSupportedError(UsageError):
    """A column has a type that Iceberg (or this writer) has no place for."""


class ValueNotRepresentableError(UsageError):
    """A value does not fit its column's type. ``values`` holds ``column``, ``row`` and ``value``."""


class DuplicateKeysError(UsageError):
    """An upsert's frame holds a key more than once. ``values["examples"]`` shows some."""


class NotSupportedError(UsageError):
    """The table uses a feature that cannot be read or written correctly, so it is refused."""


class RuleError(UsageError):
    """A rule of ``expect=`` that cannot be read, or cannot be decided row by row. ``values["rule"]`` names it."""


class QualityError(ShoalError):
    """Rows break the rules of ``expect=``, and nothing was written. ``report`` has the counts and some of the rows."""

    @property
    def report(self) -> Any:
        """The :class:`~shoal.tables.quality.report.QualityReport`."""
        return self.values["report"]


class NoRowsError(UsageError):
    """No row is left to write, which ``on_empty="fail"`` refuses. ``values["table"]`` names the table."""


class SkippedExpectationWarning(UserWarning):
    """Expectations of a suite that are not checked, with the reason of each."""


class QualityWarning(UserWarning):
    """Rows break the rules of ``expect=``, and are written all the same, as ``on_failure="warn"`` asks."""


class TableChangedError(ShoalError):
    """The table vanished, or its schema or partitioning changed, while a job was at work on it."""


class ConflictError(ShoalError):
    """Another writer changed the very rows that this write replaces. Nothing was written; run it again."""


class CommitUnknownError(InfrastructureError):
    """The catalog never answered whether a commit landed. The written files were left in place."""


class CatalogUnavailableError(InfrastructureError):
    """The catalog is locked or down. ``values["tried_for"]`` is the number of seconds it was tried."""


class CatalogRefusedError(CatalogUnavailableError):
    """The catalog answered, and said no: a wrong password, a database that is not there, a missing right.

    Trying again would not help, so it is told at once. ``values["kind"]`` is the catalog's kind.
    """


class StorageError(InfrastructureError):
    """A file could not be read or written: no space left, no permission, a file that is gone."""


class StorageFullError(StorageError):
    """There is no room for what would be written; it was told before any of it was. ``values``: ``need``, ``free``."""


class StorageRefusedError(StorageError):
    """The storage answered, and said no: keys that may not read or write there, a bucket that is not there.

    Trying again would not help. ``values`` holds ``bucket``, and ``table`` where it is known.
    """


class CredentialsExpiredError(StorageRefusedError):
    """The keys of the storage have expired, and no others came in their place in time."""


class StorageUnavailableError(StorageError):
    """The storage did not answer, or asked to slow down, for as long as it was tried. Run it again later."""
