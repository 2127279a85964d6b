"""Shoal: ephemeral Dask and Spark clusters, within quotas, over shared Iceberg tables.

Why it exists: it holds the public names, nothing else. Each is imported at its first use, because
``import shoal`` has to stay quick and must pull in neither Dask nor Spark.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.clusters import connect, dask, plan, spark, up
    from shoal.errors import ShoalError
    from shoal.handles import DaskCluster, SparkCluster

_HOME_OF = {
    "DaskCluster": "shoal.handles",
    "ShoalError": "shoal.errors",
    "SparkCluster": "shoal.handles",
    "connect": "shoal.clusters",
    "dask": "shoal.clusters",
    "plan": "shoal.clusters",
    "spark": "shoal.clusters",
    "up": "shoal.clusters",
}

__all__ = ["DaskCluster", "ShoalError", "SparkCluster", "connect", "dask", "plan", "spark", "up"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
