"""A script to a home that runs it beside its cluster: what travels, and how it gets there.

Why it exists: the cluster has to be there before the script's code can come to it, and from then on nobody has to stay.

What it must not do: follow the script; anybody may, later (``homes.base.RunsScripts``).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from shoal.client.clusters import start
from shoal.client.dask_handle import DaskCluster
from shoal.client.preparing import Prepared
from shoal.errors import InfrastructureError, UsageError
from shoal.homes.choose import open_home
from shoal.machine.parcel import Parcel, pack
from shoal.model.cluster import Cluster
from shoal.model.endpoint import Endpoint
from shoal.model.workload import Engine, ScriptRun
from shoal.project.loading import Project

_SENDING = 180.0  # s
_ARGUMENTS, _LONGEST = 64, 1024  # how many, and characters of each: they are part of the record
_FOLDERS = ("clusters", "policies", "images")


def submitted(
    request: Prepared, name: str, file: Path, function: str | None, arguments: Sequence[str], *, quiet: bool
) -> Cluster:
    """Start the cluster, and give it the script. From then on nobody needs to look: it runs, and ends it.

    An end before that leaves nothing.

    Raises:
        UsageError: it is too large, or a live cluster has that name.
    """
    if request.plan.engine is not Engine.DASK:
        raise UsageError(
            f"scripts run beside Dask clusters at target {request.plan.target}, not {request.plan.engine.value} ones",
            hint="Use --engine dask, or --target local.",
        )
    if len(arguments) > _ARGUMENTS or any(len(each) > _LONGEST for each in (*arguments, str(file))):
        raise UsageError(
            f"a script gets at most {_ARGUMENTS} arguments of {_LONGEST} characters there",
            hint="Put them into a module beside the script, which travels with it.",
        )
    project = request.project
    told = {"SHOAL_PROJECT": os.path.abspath(project.folder), "SHOAL_TARGET": project.target.name}
    parcel = pack(file, _files(project), **told)
    for text in parcel.left:
        print(f"Warning: {text}", file=sys.stderr)
    run = ScriptRun(str(file), function or "", tuple(arguments), parcel.digest)
    handle = start(request, name=name, quiet=quiet, run=run)
    assert isinstance(handle, DaskCluster)
    try:
        _send(open_home(project).endpoint(handle.id), parcel)
    except BaseException:
        handle.close()
        raise
    handle.release()
    handle.close()
    return handle.record


def _files(project: Project) -> Iterator[Path]:
    """What the script's own `shoal.dask()` reads of the project."""
    yield project.folder / "shoal.yaml"
    for folder in _FOLDERS:
        yield from sorted((project.folder / folder).glob("*.yaml"))


def _send(endpoint: Endpoint, parcel: Parcel) -> None:
    from shoal.engines.dask.script import PUT, ask
    from shoal.engines.dask.security import security

    tls = security(endpoint.security["tls_client_cert"], endpoint.security["tls_client_key"])
    said = asyncio.run(ask(endpoint.address, tls, _SENDING, op=PUT, content=parcel.content))
    if said:
        raise InfrastructureError(f"the cluster did not take the script: {said}")
