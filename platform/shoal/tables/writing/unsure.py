"""A commit that was interrupted: did it land?

Why it exists: whoever deletes the files of a write that failed has to know that no snapshot refers to them. What it
must not do: delete them.
"""

from __future__ import annotations

from shoal.errors import ShoalError
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.writing.commit import CommitRequest, Landed, commit


class UnsureError(BaseException):
    """A commit ended otherwise than by one of its own errors, which say whether anything landed."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


def commit_surely(request: CommitRequest, settled: CatalogSettings) -> Landed:
    """:func:`~shoal.tables.writing.commit.commit`, whose errors all say whether anything landed.

    Raises UnsureError for one that does not, where the catalog does not say so either.
    """
    try:
        return commit(request, settled)
    except ShoalError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) and _certainly_not(request, settled):
            raise
        raise UnsureError(error) from error


def _certainly_not(request: CommitRequest, settled: CatalogSettings) -> bool:
    """Whether the catalog answers, and the table holds nothing of this attempt."""
    try:
        table = catalogs.find(request.name, settled)
    except ShoalError:
        return False
    snapshots = [] if table is None else table.metadata.snapshots
    return all(s.summary is None or s.summary["shoal.attempt"] != request.attempt for s in snapshots)
