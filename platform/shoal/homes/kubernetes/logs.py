"""What the pods of a cluster wrote: its engine, and the script that runs beside it.

Why it exists: pods go with their cluster, connections are cut, nodes are away; whoever reads sees each line once.

What it must not do: judge lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from shoal.errors import InfrastructureError, NotFoundError, ShoalError
from shoal.homes.base import Wrote
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.errors import ObjectRefusedError
from shoal.homes.kubernetes.names import (
    CONTAINERS,
    HEAD,
    POD,
    ROLE,
    RUNNER,
    WORKER,
    Object,
    head_of,
    runner_of,
)
from shoal.homes.kubernetes.objects import status_of
from shoal.homes.kubernetes.sight import waits_for

_ROLES = {Wrote.ANYBODY: (HEAD, WORKER), Wrote.HEAD: (HEAD,), Wrote.WORKERS: (WORKER,)}
_AGAIN = 0.5  # s between two tries to follow


def engine(api: Api, found: Object, pods: Iterable[Object], lines: int, wrote: Wrote) -> str:
    """The last lines of the head and the workers of the cluster of this object."""
    metadata, status, roles = found["metadata"], status_of(found), _ROLES[wrote]
    parts = []
    if status is not None and HEAD in roles:
        parts += [f"{head_of(metadata['name'])} | {line}" for line in status.log]
    for pod in pods:
        if (role := pod["metadata"]["labels"].get(ROLE)) not in roles:
            continue
        name = pod["metadata"]["name"]
        if (why := waits_for(pod)) is not None:
            parts.append(f"{name} | {why}")
            continue
        try:
            path = POD.path(metadata["namespace"], name, "log")
            text = api.text(path, tailLines=str(lines), container=CONTAINERS[role])
        except ShoalError as error:
            parts.append(f"{name} | its log cannot be read: {error.message}")
        else:
            parts += [f"{name} | {line}" for line in text.splitlines()]
    return "\n".join(parts[-lines:])


def output(api: Api, look: Callable[[], Object], *, follow: bool) -> Iterator[str]:
    """What the script beside a cluster wrote, by line; ``look`` gives its object as it is now.

    ``follow``: until the cluster has ended, over connections that are cut. Kubernetes stamps each line with its time,
    so none comes twice.
    """
    last = ""
    while True:
        found = look()
        metadata, status = found["metadata"], status_of(found)
        over = status is not None and status.state.ended
        asked = {"timestamps": "true", "container": CONTAINERS[RUNNER]} | (
            {"sinceTime": last} if last else {}
        )
        if follow and not over:
            asked["follow"] = "true"
        before = last
        try:
            path = POD.path(metadata["namespace"], runner_of(metadata["name"]), "log")
            for line in api.lines(path, **asked):
                at, _, text = line.partition(" ")
                if at > before:
                    last = at
                    yield text
        except (NotFoundError, ObjectRefusedError):  # it has not started yet, or is gone
            if over and not last and status is not None:
                yield from status.output
        except InfrastructureError:
            if not follow:
                raise
        if over or not follow:
            return
        time.sleep(_AGAIN)
