"""Clusters inside Prefect flows: named after the run, tagged with it, reported to it.

Why it exists: a flow run that is retried must meet its own clusters and no others, and what they took
belongs to the run. ``dask_cluster`` and ``spark_session`` are ``shoal.dask`` and ``shoal.spark`` with that
added; outside of a flow they are the same as those.

What it must not do: run anything per partition as a Prefect task (a stage is a task, Dask fans out inside),
or be imported by anything below it. (``import prefect`` in here is the real one.)
"""

from __future__ import annotations

from shoal.errors import MissingExtraError

try:
    import prefect as _prefect  # noqa: F401 - only to tell early, and in words, that it is not there
except ModuleNotFoundError as error:
    if error.name != "prefect":
        raise
    raise MissingExtraError.of("shoal.prefect", "Prefect", "prefect") from error

from shoal.prefect.block import ShoalCluster
from shoal.prefect.blocks import dask_cluster, spark_session
from shoal.prefect.lineage import publish_table, table_asset
from shoal.prefect.publish import publish_report, run_report

__all__ = [
    "ShoalCluster",
    "dask_cluster",
    "publish_report",
    "publish_table",
    "run_report",
    "spark_session",
    "table_asset",
]
