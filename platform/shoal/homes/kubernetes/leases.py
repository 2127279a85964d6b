"""Leases that a process renews to tell that it lives: the governor's, and those of clients that wait.

Why it exists: both are renewed in one way, and made again where somebody deleted them.

What it must not do: decide what an expiry means.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shoal.errors import NotFoundError, StaleRecordError
from shoal.homes.kubernetes.names import LEASE, Object

if TYPE_CHECKING:  # which needs a client of HTTP
    from shoal.homes.kubernetes.api import Api


def renew(api: Api, metadata: Object, spec: dict[str, Any]) -> None:
    """Renew the Lease of this metadata as of now, or make it where it is not there.

    Raises:
        ShoalError: the API server did not take it.
    """
    now = (
        datetime.fromtimestamp(api.clock.now(), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )
    renewed, path = spec | {"renewTime": now}, LEASE.path(metadata["namespace"])
    try:
        notes = metadata.get("annotations")
        noted = {"metadata": {"annotations": notes}} if notes else {}
        api.patch(f"{path}/{metadata['name']}", {"spec": renewed} | noted)
    except NotFoundError:
        lease = {"apiVersion": LEASE.group_version, "kind": LEASE.name, "metadata": metadata, "spec": renewed}
        with suppress(StaleRecordError):  # somebody made it meanwhile
            api.create(path, lease)
