"""``shoal.dask`` and ``shoal.spark``: what happens before anything is imported.

Why it exists: the head's process of a new cluster imports for as long as the client does, so it is started first
(``homes.local.ahead``), and then the client imports what decides.

What it must not do: import anything heavy, or decide.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from shoal.homes.local.ahead import ahead

if TYPE_CHECKING:
    from shoal.dask_handle import DaskCluster
    from shoal.spark_handle import SparkCluster

ATTACH = "SHOAL_ATTACH"  # set by `shoal submit` for its script: the cluster that was brought up for it


def dask(template: str = "etl", **options: Any) -> DaskCluster:
    """Start a Dask cluster from a template and connect to it; use it in a ``with`` block.

    Options, all with the template's value as default: ``data`` (size of the input, ``"25 GB"``),
    ``workers`` (a number or ``(min, max)``), ``cores`` and ``memory`` per worker, ``gpu`` per worker,
    ``spot`` (share, 0 to 1), ``packages`` (pip requirements for the workers), ``max_duration``, ``idle``,
    ``no_client`` (``"2 h"``), ``name`` (under the name of your live cluster this attaches to that one, which
    then does not end with the block; UsageError if it is not what is asked for), ``target``,
    ``project`` (folder), ``tags``, ``quiet``, ``progress`` (False: no bar on the terminal while it computes).

    Raises QuotaExceededError when a limit refuses it, ConfigError, UsageError, InfrastructureError.
    """
    handle: DaskCluster = _opened("dask", template, options)
    return handle


def spark(template: str = "analytics", **options: Any) -> SparkCluster:
    """Start a Spark Connect server from a template and connect to it. Options and errors as :func:`dask`."""
    handle: SparkCluster = _opened("spark", template, options)
    return handle


def _opened(engine: str, template: str, options: dict[str, Any]) -> Any:
    attach = os.environ.get(ATTACH)
    early = nullcontext() if attach else ahead(engine, options.get("project"), options.get("target"))
    with early as cluster_id:
        from shoal.clusters import opened
        from shoal.workload import Engine

        return opened(Engine(engine), template, options, attach=attach, cluster_id=cluster_id)
