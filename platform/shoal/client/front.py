"""``shoal.dask`` and ``shoal.spark``: what happens before anything is imported.

Why it exists: the head's process of a new cluster imports for as long as the client does, so it is started first
(``homes.choose.ahead``), and then the client imports what decides.

What it must not do: import anything heavy, or decide.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from shoal.client.opening import Opening, entered_asynchronously
from shoal.errors import ShoalError
from shoal.homes.choose import ahead

if TYPE_CHECKING:
    from shoal.client.dask_handle import DaskCluster
    from shoal.client.spark_handle import SparkCluster

ATTACH = "SHOAL_ATTACH"  # set by `shoal submit` for its script: the cluster that was brought up for it


def dask(template: str = "etl", *, asynchronous: bool | None = None, **options: Any) -> DaskCluster:
    """Start a Dask cluster from a template and connect to it; use it in a ``with`` or ``async with`` block.

    In ``async with`` nothing blocks the event loop, and ``client`` is an asynchronous one. That follows from the
    call where it stands in the ``async with`` statement itself; elsewhere (an exit stack, a helper) say
    ``asynchronous=True``, and nothing starts before the block is entered.

    Options, all with the template's value as default: ``data`` (size of the input, ``"25 GB"``),
    ``workers`` (a number or ``(min, max)``), ``cores`` and ``memory`` per worker, ``gpu`` per worker,
    ``spot`` (share, 0 to 1), ``packages`` (pip requirements for the workers), ``max_duration``, ``idle``,
    ``no_client`` (``"2 h"``), ``max_cost`` (``"5 USD"``: it lives no longer than that lasts), ``max_price``
    (``"2 USD/h"``: it has no more workers than that pays), ``name`` (under the
    name of your live cluster this attaches to that one, which then does not end with the block; UsageError if it is
    not what is asked for), ``target``,
    ``project`` (folder), ``tags``, ``quiet``, ``progress`` (False: no bar on the terminal while it computes).

    Raises QuotaExceededError when a limit refuses it, ConfigError, UsageError, InfrastructureError.
    """
    if asynchronous is None:
        asynchronous = entered_asynchronously(sys._getframe(1))
    try:
        handle: DaskCluster = _opened("dask", template, options, asynchronous)
    except ShoalError as error:
        raise brief(error)  # noqa: B904 - it is the same one
    return handle


def spark(template: str = "analytics", *, asynchronous: bool | None = None, **options: Any) -> SparkCluster:
    """Start a Spark Connect server from a template and connect to it. Options and errors as :func:`dask`.

    Spark's sessions have no asynchronous calls: in ``async with``, run those in ``asyncio.to_thread``.
    """
    if asynchronous is None:
        asynchronous = entered_asynchronously(sys._getframe(1))
    try:
        handle: SparkCluster = _opened("spark", template, options, asynchronous)
    except ShoalError as error:
        raise brief(error)  # noqa: B904 - it is the same one
    return handle


def brief(error: ShoalError) -> ShoalError:
    """``error`` without the frames below the public call: what to do stands in it, not in them.

    With SHOAL_LOG=debug they stay.
    """
    return error if os.environ.get("SHOAL_LOG", "").lower() == "debug" else error.with_traceback(None)


def _opened(engine: str, template: str, options: dict[str, Any], asynchronous: bool) -> Any:
    if asynchronous:
        return Opening(lambda given_up: _start(engine, template, options, given_up))
    return _start(engine, template, options)


def _start(
    engine: str, template: str, options: dict[str, Any], given_up: threading.Event | None = None
) -> Any:
    if os.environ.get("SHOAL_LOG"):
        from shoal.machine.logs import set_up_if_asked

        set_up_if_asked()
    attach = os.environ.get(ATTACH)
    if attach:
        from shoal.client.traces import shorten

        shorten()
    early = nullcontext() if attach else ahead(engine, options.get("project"), options.get("target"))
    with early as cluster_id:
        from shoal.client.clusters import opened
        from shoal.model.workload import Engine

        return opened(
            Engine(engine), template, options, attach=attach, cluster_id=cluster_id, given_up=given_up
        )
