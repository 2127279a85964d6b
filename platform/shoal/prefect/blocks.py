"""``with dask_cluster(...)`` and ``with spark_session(...)``: a cluster for a part of a flow.

Why it exists: see the package. These are the two names that flows use.

What it must not do: decide what happens to leftovers (``leftovers`` does).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

from shoal.client import around
from shoal.client.dask_handle import DaskCluster
from shoal.client.front import dask, spark
from shoal.client.handles import ClusterHandle
from shoal.client.preparing import prepare
from shoal.client.spark_handle import SparkCluster
from shoal.display.following import said_by
from shoal.display.run_report import RunCluster, RunReport
from shoal.errors import ClusterEndedError, UsageError
from shoal.homes.choose import open_home
from shoal.model.workload import Engine
from shoal.planning.asking import refuse_unknown
from shoal.prefect.events import Telling
from shoal.prefect.leftovers import Takeover, clear
from shoal.prefect.publish import publish
from shoal.prefect.runs import Run, cluster_name, current
from shoal.project.policy import Limits

_Handle = TypeVar("_Handle", bound=ClusterHandle)
_TRIES = 3  # an adopted cluster may end (idle, without a client) while it is being connected to

# Names of clusters that this process has open: a second one of the same role must not take over the first.
_open: set[str] = set()
_lock = threading.Lock()


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
    refuse_unknown(
        f"shoal.prefect.{public}",
        options,
        *("name", "quiet", "tags", "project", "target", "max_cost", "max_price"),
    )
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

        with ExitStack() as told:
            with said_by(get_run_logger().warning):
                handle, limits = _obtain(engine, start, template, name, run, options, told)
            around.enter(handle.id)
            try:
                yield handle
            finally:
                around.leave(handle.id)
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
    told: ExitStack,
) -> tuple[_Handle, Limits]:
    """Adopt, replace or start. A cluster that ends just as it is adopted is started again.

    ``told``: until it is closed, Prefect is told what happens to the cluster.
    """
    asked = {key: value for key, value in options.items() if key not in ("quiet", "progress", "tags")}
    for left in reversed(range(_TRIES)):
        request = prepare(template, engine=engine, **asked)
        home = open_home(request.project)
        if request.workload.queue:
            around.refuse_to_wait_for_oneself(
                request.plan,
                request.workload.priority,
                request.limits,
                request.project.target.machine,
                home,
                name,
            )
        quiet = bool(options.get("quiet", False))
        verdict, left_id = clear(home, name, request.user, request.plan, run, quiet=quiet)
        told.close()
        told.callback(Telling(home, name, request.user, run).end)
        try:
            # What an earlier attempt left is this one's now: it ends with this block.
            return start(template, name=name, _adopt=left_id, **options), request.limits
        except ClusterEndedError:
            if verdict is not Takeover.ADOPT or not left:
                raise
    raise AssertionError("not reached: the last try raises or returns")


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
