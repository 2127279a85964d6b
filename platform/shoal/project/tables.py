"""What is done for which tables every night (``tables:`` in ``shoal.yaml``).

Why it exists: a table that nobody looks after grows slow; what a team wants done stands beside its clusters and limits.

What it must not do: touch a table (``shoal.client.table_upkeep`` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, model_validator

from shoal.errors import ContradictionError
from shoal.project.settings import Checked, Positive
from shoal.units import Bytes, Seconds

_DAY = 24 * 3600


def _yes(value: Any) -> Any:
    """``compact: true``: as it is by default; ``compact: false``: not at all."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


def _a_day(value: Seconds) -> Seconds:
    if value < _DAY:
        raise ContradictionError(
            f"{value} is less than 24 h: files of a write that goes on could be taken",
            hint="write 24 h or more",
        )
    return value


def _listed(value: Any) -> Any:
    """``sort_by: day`` is ``sort_by: [day]``, as in Python."""
    return [value] if isinstance(value, str) else value


Columns = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class CompactionPolicy(Checked):
    """``compact:``. In which order rows are put, and how large files are (None: as the table says)."""

    sort_by: Columns = ()
    zorder_by: Columns = ()
    target_size: Bytes | None = None

    @model_validator(mode="after")
    def _one_order(self) -> CompactionPolicy:
        if self.sort_by and self.zorder_by:
            raise ContradictionError("sort_by and zorder_by contradict each other", hint="keep one of them")
        if len(self.zorder_by) == 1:
            raise ContradictionError("zorder_by is of two columns or more", hint="one is sorted by: sort_by")
        return self


class ExpiryPolicy(Checked):
    """``expire:``. Snapshots older than this go, but for the newest of each branch (None: as the table says)."""

    older_than: Seconds | None = None
    keep: Positive | None = None


class OrphanPolicy(Checked):
    """``orphans:``. Files older than this that nothing refers to are deleted."""

    older_than: Annotated[Seconds, AfterValidator(_a_day)] = Seconds(3 * _DAY)


class TablePolicy(Checked):
    """What is done for the tables of one pattern, in this order; nothing of what is not named."""

    compact: Annotated[CompactionPolicy | None, BeforeValidator(_yes)] = None
    rewrite_manifests: bool = False
    expire: Annotated[ExpiryPolicy | None, BeforeValidator(_yes)] = None
    orphans: Annotated[OrphanPolicy | None, BeforeValidator(_yes)] = None


def policy_of(table: str, policies: Mapping[str, TablePolicy]) -> TablePolicy | None:
    """The policy of the first pattern that the table's name fits; None if none does."""
    return next((policy for pattern, policy in policies.items() if fnmatchcase(table, pattern)), None)
