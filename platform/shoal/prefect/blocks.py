"""``with dask_cluster(...)`` and ``with spark_session(...)``: a cluster for a part of a flow.

Why it exists: see the package. These are the two names that flows use.

What it must not do: decide what happens to leftovers (``leftovers`` does).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from shoal.client.clusters import Prepared, prepare
from shoal.client.dask_handle import DaskCluster
from shoal.client.front import dask, spark
from shoal.client.handles import ClusterHandle
from shoal.client.spark_handle import SparkCluster
from shoal.display.following import said_by
from shoal.display.run_report import RunCluster, RunReport
from shoal.errors import ClusterEndedError, UsageError, WaitsForItselfError
from shoal.homes.base import Home
from shoal.homes.choose import open_home
from shoal.model.workload import Engine
from shoal.planning.asking import refuse_unknown
from shoal.prefect.leftovers import Takeover, clear
from shoal.prefect.publish import publish
from shoal.prefect.runs import Run, cluster_name, current
from shoal.project.loading import look_up
from shoal.project.policy import Limits
from shoal.quota.admission import Claim, beside
from shoal.quota.queueing import least

_Handle = TypeVar("_Handle", bound=ClusterHandle)
_TRIES = 3  # an adopted cluster may end (idle, without a client) while it is being connected to

# Names of clusters that this process has open: a second one of the same role must not take over the first.
_open: set[str] = set()
_lock = threading.Lock()

# Ids of the clusters in whose blocks this code runs: they end only after whatever is inside.
_around: ContextVar[tuple[str, ...]] = ContextVar("shoal_around", default=())


def dask_cluster(
    template: str = "etl", *, role: str | None = None, **options: Any
) -> AbstractContextManager[DaskCluster]:
    """A Dask cluster for the block; gives the handle of :func:`shoal.dask`, with ``.client``.

    Inside a flow its name follows from the flow run's id and ``role`` (default: the template's name; two
    clusters that a flow has open at once need different roles). So a retry takes over the cluster that a
    crashed attempt left, or ends it first when it was asked for differently or is still in use. It carries
    the run's ids as tags, and its report becomes an artifact of the run, ``shoal-<role>``.

    In a flow ``queue`` is True by default. Outside of one it is :func:`shoal.dask`. Options and errors are
    those of :func:`shoal.dask`; ``detach`` has no meaning here, for the cluster ends with its block
    (UsageError).
    """
    return _block("dask_cluster", Engine.DASK, dask, template, role, options)


def spark_session(
    template: str = "analytics", *, role: str | None = None, **options: Any
) -> AbstractContextManager[SparkCluster]:
    """A Spark Connect server for the block; gives the handle of :func:`shoal.spark`: ``.session``, ``.sql``,
    ``.table``. All else as :func:`dask_cluster`."""
    return _block("spark_session", Engine.SPARK, spark, template, role, options)


@contextmanager
def _block(
    public: str,
    engine: Engine,
    start: Callable[..., _Handle],
    template: str,
    role: str | None,
    options: dict[str, Any],
) -> Iterator[_Handle]:
    if options.pop("detach", False):
        raise UsageError(
            "detach=True contradicts `with`: the cluster ends with its block",
            hint="Use shoal.up(..., detach=True) for a cluster that outlives the flow.",
        )
    refuse_unknown(f"shoal.prefect.{public}", options, "name", "quiet", "tags", "project", "target")
    run = current()
    if run is None:
        with start(template, **options) as handle:
            yield handle
        return
    role = role or template
    options.setdefault("queue", True)  # nobody watches a flow: it queues instead of failing
    name = options.pop("name", None) or cluster_name(run.flow_run_id, role, run.task_key)
    options["tags"] = run.tags | dict(options.get("tags") or {})
    with _claimed(name, role):
        from prefect.logging import get_run_logger

        with said_by(get_run_logger().warning):
            handle, limits = _obtain(engine, start, template, name, run, options)
        _around.set((*_around.get(), handle.id))
        try:
            yield handle
        finally:
            _around.set(tuple(each for each in _around.get() if each != handle.id))
            try:
                handle.close()
            finally:
                phase = RunCluster.of(handle.record, handle.report(), limits)
                report = RunReport(f"Cluster {handle.name}", [phase])
                publish(f"shoal-{role}", report.markdown(), "What this cluster took")


def _obtain(
    engine: Engine,
    start: Callable[..., _Handle],
    template: str,
    name: str,
    run: Run,
    options: dict[str, Any],
) -> tuple[_Handle, Limits]:
    """Adopt, replace or start. A cluster that ends just as it is adopted is started again."""
    asked = {key: value for key, value in options.items() if key not in ("quiet", "progress", "tags")}
    for left in reversed(range(_TRIES)):
        request = prepare(template, engine=engine, **asked)
        home = open_home(request.project)
        if request.workload.queue:
            _refuse_to_wait_for_oneself(request, home, name)
        quiet = bool(options.get("quiet", False))
        verdict, left_id = clear(home, name, request.user, request.plan, run, quiet=quiet)
        try:
            # What an earlier attempt left is this one's now: it ends with this block.
            return start(template, name=name, _adopt=left_id, **options), request.limits
        except ClusterEndedError:
            if verdict is not Takeover.ADOPT or not left:
                raise
    raise AssertionError("not reached: the last try raises or returns")


def _refuse_to_wait_for_oneself(request: Prepared, home: Home, name: str) -> None:
    """WaitsForItselfError where it cannot start before a block ends that ends only after this one."""
    around = [cluster for each in _around.get() if not (cluster := home.get(each)).state.ended]
    machine = request.project.target.machine
    claim = Claim("", name, least(request.plan), request.workload.priority)
    own = {cluster.id: cluster.plan for cluster in around}
    if not own or not (
        shortages := beside(claim, request.limits, own, look_up(machine) if machine is not None else None)
    ):
        return
    names = {cluster.id: cluster.name for cluster in around}
    held = ", ".join(names.values())
    why = "\n".join(shortage.sentence(name, names) for shortage in shortages)
    raise WaitsForItselfError(
        f"{why}\nThis code runs inside the block of {held}, so it would wait for its own end",
        hint="Let the first block end before this one begins, or ask for less in one of them.",
        shortages=shortages,
        own=tuple(names.values()),
    )


@contextmanager
def _claimed(name: str, role: str) -> Iterator[None]:
    """The name is this block's until it ends."""
    with _lock:
        if name in _open:
            raise UsageError(
                f"this run has a cluster of role {role!r} open already",
                hint="Give the second one a role of its own: dask_cluster(..., role='...').",
                role=role,
            )
        _open.add(name)
    try:
        yield
    finally:
        with _lock:
            _open.discard(name)
