"""Shoal: ephemeral Dask and Spark clusters, within quotas, over shared Iceberg tables.

Why it exists: it holds the public names, nothing else. Each is imported at its first use, because
``import shoal`` has to stay quick and must pull in neither Dask nor Spark.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.client.clusters import connect, up
    from shoal.client.dask_handle import DaskCluster
    from shoal.client.front import dask, spark
    from shoal.client.preparing import plan
    from shoal.client.spark_handle import SparkCluster
    from shoal.errors import ClusterEndedError, ShoalError
    from shoal.tables.catalogs.opening import catalog
    from shoal.tables.checking import check_rows
    from shoal.tables.labels import branch, drop_branch, drop_tag, tag
    from shoal.tables.listing import list_tables
    from shoal.tables.maintenance.compaction import compact
    from shoal.tables.maintenance.expiry import expire_snapshots
    from shoal.tables.maintenance.health import table_health
    from shoal.tables.maintenance.manifests import rewrite_manifests
    from shoal.tables.maintenance.orphans import remove_orphans
    from shoal.tables.quality.suites import rules_from_suite
    from shoal.tables.reading.read import read_table
    from shoal.tables.refs import history, publish, rollback, snapshots
    from shoal.tables.writing.create import create_table
    from shoal.tables.writing.staging import staged
    from shoal.tables.writing.write import write_table

_HOME_OF = {
    "ClusterEndedError": "shoal.errors",
    "DaskCluster": "shoal.client.dask_handle",
    "ShoalError": "shoal.errors",
    "SparkCluster": "shoal.client.spark_handle",
    "branch": "shoal.tables.labels",
    "catalog": "shoal.tables.catalogs.opening",
    "check_rows": "shoal.tables.checking",
    "compact": "shoal.tables.maintenance.compaction",
    "connect": "shoal.client.clusters",
    "create_table": "shoal.tables.writing.create",
    "dask": "shoal.client.front",
    "drop_branch": "shoal.tables.labels",
    "drop_tag": "shoal.tables.labels",
    "expire_snapshots": "shoal.tables.maintenance.expiry",
    "history": "shoal.tables.refs",
    "list_tables": "shoal.tables.listing",
    "plan": "shoal.client.preparing",
    "publish": "shoal.tables.refs",
    "read_table": "shoal.tables.reading.read",
    "remove_orphans": "shoal.tables.maintenance.orphans",
    "rewrite_manifests": "shoal.tables.maintenance.manifests",
    "rules_from_suite": "shoal.tables.quality.suites",
    "rollback": "shoal.tables.refs",
    "snapshots": "shoal.tables.refs",
    "spark": "shoal.client.front",
    "staged": "shoal.tables.writing.staging",
    "table_health": "shoal.tables.maintenance.health",
    "tag": "shoal.tables.labels",
    "up": "shoal.client.clusters",
    "write_table": "shoal.tables.writing.write",
}

__all__ = [
    "ClusterEndedError",
    "DaskCluster",
    "ShoalError",
    "SparkCluster",
    "branch",
    "catalog",
    "check_rows",
    "compact",
    "connect",
    "create_table",
    "dask",
    "drop_branch",
    "drop_tag",
    "expire_snapshots",
    "history",
    "list_tables",
    "plan",
    "publish",
    "read_table",
    "remove_orphans",
    "rewrite_manifests",
    "rollback",
    "rules_from_suite",
    "snapshots",
    "spark",
    "staged",
    "table_health",
    "tag",
    "up",
    "write_table",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    if _HOME_OF[name].startswith("shoal.tables."):
        importlib.import_module("shoal.client.wiring").wire()
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
