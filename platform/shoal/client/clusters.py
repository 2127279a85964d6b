"""``shoal.up`` and ``shoal.connect``: from a request to a running cluster.

Why it exists: it is the way in for notebooks, flows and the CLI alike.

What it must not do: hold state, or import an engine before a cluster is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import secrets
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from shoal.client import around
from shoal.client.dask_handle import DaskCluster
from shoal.client.ending import STOP_WAIT, until_ended
from shoal.client.finding import find, open_project
from shoal.client.handles import ClusterHandle, open_here
from shoal.client.preparing import Prepared, describe, ends, prepare
from shoal.client.spark_handle import SparkCluster
from shoal.display.computing import wanted
from shoal.errors import DeadlineError, ShoalError, UsageError
from shoal.homes.base import Home, KeepsBudgets, Request
from shoal.homes.choose import ahead, open_home
from shoal.model.cluster import Cluster, State
from shoal.model.names import LONGEST, checked, command, suggested
from shoal.model.workload import Engine, ScriptRun
from shoal.planning.asking import labels, refuse_unknown

_log = logging.getLogger("shoal.client")

_Handle = TypeVar("_Handle", bound=ClusterHandle)


# What shoal.dask, shoal.spark and shoal.up take besides what a workload is made of.
_OPTIONS = ("name", "detach", "quiet", "progress", "tags", "project", "target", "max_cost", "max_price")
# What a client of each engine is imported from.
_CLIENTS = {Engine.DASK: "distributed", Engine.SPARK: "pyspark.sql.connect.session"}


def opened(
    engine: Engine,
    template: str,
    options: dict[str, Any],
    *,
    attach: str | None = None,
    cluster_id: str | None = None,
    given_up: threading.Event | None = None,
) -> ClusterHandle:
    """A cluster of this engine, connected to: the one named ``attach`` if it is of this engine, else a new one.

    ``options`` as :func:`up` takes them; ``cluster_id`` and ``given_up`` as :func:`start` does. With ``given_up``
    it is not connected to yet: that belongs to the caller's event loop.
    """
    refuse_unknown(f"shoal.{engine}", [name for name in options if name != "_adopt"], *_OPTIONS)
    handle = _attached(engine, attach, options) if attach else None
    if handle is None:
        handle = up(
            template, engine=engine, _id=cluster_id, _soon=_CLIENTS[engine], _given_up=given_up, **options
        )
    if handle.plan.engine is not engine:
        other = handle.plan.engine.value
        raise UsageError(f"{handle.name} is not a {engine.value} cluster", hint=f"Use shoal.{other}().")
    return handle if given_up is not None else _opened(handle)


def connect(
    name: str, *, target: str | None = None, project: str | Path | None = None
) -> DaskCluster | SparkCluster:
    """A handle on your live cluster of that name. Closing or dropping it disconnects, and the cluster stays."""
    home = open_home(open_project(project, target, looking=True))
    cluster = find(home, name)
    handle = _handle(home, cluster, owns=False, quiet=True, progress=True)
    return handle.wait()


def up(
    template: str | None = None,
    *,
    engine: Engine | str | None = None,
    name: str | None = None,
    detach: bool = False,
    quiet: bool = False,
    progress: bool = True,
    tags: Mapping[str, str] | None = None,
    project: str | Path | None = None,
    target: str | None = None,
    _id: str | None = None,
    _soon: str | None = None,
    _adopt: str | None = None,
    _given_up: threading.Event | None = None,
    **options: Any,
) -> DaskCluster | SparkCluster:
    """Plan, admit, start and wait until Ready. ``detach``: it keeps running without a client, until idle.

    Under the ``name`` of your live cluster this attaches to it, and it does not end with the handle; UsageError
    where that one is not what is asked for.
    """
    refuse_unknown("shoal.up", options, "engine", *_OPTIONS)
    if name is not None:
        checked(name)
    tags = labels(tags)
    request = prepare(template, engine=engine, project=project, target=target, **options)
    if not quiet:
        print(describe(request.plan, detach=detach), file=sys.stderr)
    return start(
        request,
        name=name,
        keep=detach,
        detach=detach,
        quiet=quiet,
        progress=progress,
        tags=tags,
        cluster_id=_id,
        adopt=_adopt,
        soon=_soon,
        given_up=_given_up,
    )


def start(
    request: Prepared,
    *,
    name: str | None = None,
    keep: bool = False,
    detach: bool = False,
    quiet: bool = False,
    progress: bool = True,
    tags: Mapping[str, str] | None = None,
    cluster_id: str | None = None,
    adopt: str | None = None,
    soon: str | None = None,
    given_up: threading.Event | None = None,
    run: ScriptRun | None = None,
) -> DaskCluster | SparkCluster:
    """Admit and start what was settled, and wait until it is Ready.

    ``keep``: it does not end with the handle; ``detach``: nor for want of a client, and one that waits in the
    queue is not waited for: it starts when its turn comes, with nobody looking. A start that fails or is
    interrupted leaves nothing, but never ends a cluster of that name that was there before: that one is
    attached to, unless its id is ``adopt``. ``cluster_id``: what a new one is to be known by, from
    :func:`shoal.homes.choose.ahead`. ``soon``: a module that the caller needs next, which is imported while
    the cluster starts. ``given_up``: set by whoever does not wait for it any more; it then ends at once.
    ``run``: the script that its home is to run beside it.
    """
    plan = request.plan
    if detach:
        plan = replace(plan, timeouts=replace(plan.timeouts, no_client=plan.timeouts.max))
    home = open_home(request.project)
    if name is None:
        name = f"{suggested(plan.template)[: LONGEST - 5].strip('-') or 'cluster'}-{secrets.token_hex(2)}"
    chosen = checked(name)
    if request.workload.queue and not detach:
        around.refuse_to_wait_for_oneself(
            plan, request.workload.priority, request.limits, request.project.target.machine, home, chosen
        )
    with ahead(plan.engine, request.project.folder, request.project.target.name, cluster_id) as its_id:
        asked = Request(chosen, request.user, request.workload, plan, labels(tags), its_id, run)
        cluster = _granted(home, asked)
        _log.debug("%s (%s): %s, %s", chosen, cluster.id, cluster.state, cluster.message)
    # Two may ask at once under one name: only one of them finds its own id.
    owns = cluster.id in (its_id, adopt)
    if not owns and not quiet:
        here = open_here(cluster.id)
        print(_shared(cluster) if here is not None and here.owns else _found(cluster), file=sys.stderr)
    if owns and not quiet:
        _tell_of_budgets(home, request)
    handle = _handle(home, cluster, owns=owns, quiet=quiet, progress=progress and not quiet)
    if detach and keep and cluster.state is State.QUEUED:
        handle.release()
        return handle
    if soon is not None:
        threading.Thread(target=_import, args=(soon,), name="shoal-import", daemon=True).start()
    try:
        handle.wait(given_up=given_up)
    except BaseException:
        handle.close()
        raise
    if keep:
        handle.release()
    return handle


def _granted(home: Home, asked: Request) -> Cluster:
    """The new cluster, or the live one of that name. One that is ending is waited for: its name is free then."""

    def late(ending: Cluster) -> DeadlineError:
        return DeadlineError(
            f"waited {STOP_WAIT:.0f} s for the cluster named {asked.name!r} that is ending "
            f"({ending.reason}: {ending.message})",
            hint=f"Choose another name, or see what it is doing: {command('why', asked.name)}",
        )

    while (cluster := home.request(asked)).state is State.STOPPING and cluster.id != asked.id:
        until_ended(home, cluster.id, late)
    return cluster


def _tell_of_budgets(home: Home, request: Prepared) -> None:
    """Those that the cluster takes of, of which most is spent."""
    if not request.limits.budgeted or not isinstance(home, KeepsBudgets):
        return
    from shoal.quota import budgets

    with contextlib.suppress(ShoalError):  # it started; what it says besides can wait
        for each in budgets.warnings(home.budgets(request.user), request.plan):
            print(f"Warning: {each}", file=sys.stderr)


def _found(cluster: Cluster) -> str:
    times = cluster.plan.timeouts
    detached = times.no_client >= times.max
    return (
        f"{cluster.name} already exists: attached to it, and it keeps running when this handle is closed.\n"
        f"  It {ends(times, detach=detached)}; to end it now: {command('down', cluster.name)}"
    )


def _shared(cluster: Cluster) -> str:
    return (
        f"{cluster.name} is open in this process already: this is another handle of the same cluster.\n"
        "  It ends when the first handle is closed, or when all of them are gone."
    )


def _import(module: str) -> None:
    with contextlib.suppress(ImportError):  # told where it is needed
        importlib.import_module(module)


def _attached(engine: Engine, name: str, options: Mapping[str, Any]) -> DaskCluster | SparkCluster | None:
    """The cluster that `shoal submit` brought up for this script, if it is of this engine."""
    home = open_home(open_project(options.get("project"), options.get("target"), looking=True))
    cluster = find(home, name)
    if cluster.plan.engine is not engine:
        return None
    progress = bool(options.get("progress", True))
    return _handle(home, cluster, owns=False, quiet=True, progress=progress).wait()


def _handle(
    home: Home, cluster: Cluster, *, owns: bool, quiet: bool, progress: bool
) -> DaskCluster | SparkCluster:
    kind = DaskCluster if cluster.plan.engine is Engine.DASK else SparkCluster
    made = kind(home, cluster, owns=owns, quiet=quiet)
    made.progress = wanted(progress)
    return made


def _opened(handle: _Handle) -> _Handle:
    """Connect; a cluster that cannot be connected to is not left behind.

    One that ended meanwhile (idle, without a client) is told as that: how a client fails then says nothing.
    """
    try:
        try:
            handle.open()
        except Exception:
            handle.raise_if_ended()
            raise
    except BaseException:
        handle.close()
        raise
    return handle
