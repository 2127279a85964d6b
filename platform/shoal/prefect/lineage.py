"""Tables as assets of Prefect: which run wrote which snapshot, and what it read for that.

Why it exists: a deployment can run whenever a table has a new snapshot, and Prefect shows which flow a table comes
from. The events are those that ``@materialize`` sends; a snapshot is told once, whichever attempt tells it.

What it must not do: disturb the run that wrote, or read tables.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from shoal.prefect.events import IDS, Notice, send
from shoal.prefect.runs import current
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.writing.result import WriteResult


def table_asset(table: str) -> str:
    """The key of a table as an asset of Prefect: ``iceberg://shoal/sales/rows`` for ``"sales.rows"``.

    For ``triggers:`` of a deployment, and for ``@materialize`` and ``asset_deps`` of tasks of your own. ``shoal`` is
    the name of the catalog in force.
    """
    return "/".join((f"iceberg://{catalogs.settings().name}", *table.split(".")))


def publish_table(result: WriteResult, *, reads: Sequence[str] = ()) -> None:
    """Tell Prefect that this run wrote a snapshot, for whatever is to happen then.

    Outside of a flow, and for a write that made no snapshot, nothing is told; nor twice, if the write is replayed.

    Args:
        result: Of :func:`shoal.tables.write_table`.
        reads: The tables that the rows come from.
    """
    publish_snapshot(result.table, result.snapshot_id, result.rows, reads=reads)


def publish_newest(table: str, rows: int) -> None:
    """:func:`publish_table` of the table's newest snapshot, with how many rows this run wrote."""
    if current() is not None:
        snapshot = catalogs.load(table).current_snapshot()
        publish_snapshot(table, snapshot.snapshot_id if snapshot is not None else 0, rows)


def publish_snapshot(table: str, snapshot: int, rows: int, *, reads: Sequence[str] = ()) -> None:
    """:func:`publish_table` of a snapshot by its id; 0: there is none."""
    if snapshot and current() is not None:
        for notice in of_snapshot(table_asset(table), snapshot, rows, [table_asset(name) for name in reads]):
            send(notice)


def of_snapshot(asset: str, snapshot: int, rows: int, reads: Sequence[str]) -> list[Notice]:
    """What there is to tell: what was read for it, then that it was written."""
    now = time.time()
    told = [
        Notice(
            uuid.uuid5(IDS, f"{asset} {snapshot} {read}"),
            "prefect.asset.referenced",
            now,
            {"prefect.resource.id": read},
        )
        for read in reads
    ]
    written = Notice(
        uuid.uuid5(IDS, f"{asset} {snapshot}"),
        "prefect.asset.materialization.succeeded",
        now,
        {"prefect.resource.id": asset},
        {"snapshot_id": str(snapshot), "rows": rows},  # of 63 bits, which JSON's readers round
        tuple({"prefect.resource.id": read, "prefect.resource.role": "asset"} for read in reads),
    )
    return [*told, written]
