"""The way to a head: by its name inside of Kubernetes, else by a tunnel; and what lets in.

Why it exists: a handle is told an address, and need not know where it itself runs.

What it must not do: keep a secret longer than it is used.
"""

from __future__ import annotations

import os
from pathlib import Path

from shoal.errors import InfrastructureError
from shoal.homes.kubernetes import tunnel
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.containers import over
from shoal.homes.kubernetes.names import (
    ACCESS,
    DASHBOARD_PORT,
    ENGINE_PORT,
    HEAD,
    OF_CLUSTER,
    POD,
    ROLE,
    SECRET,
    STATUS_PORT,
    Object,
    head_of,
)
from shoal.homes.kubernetes.objects import status_of
from shoal.homes.kubernetes.pods import Pass
from shoal.homes.kubernetes.sight import going
from shoal.machine.loopback import get_json
from shoal.machine.pages import link, secret_of
from shoal.machine.processes import MARK
from shoal.model.codec import read
from shoal.model.endpoint import Endpoint
from shoal.model.status import HeadStatus
from shoal.model.workload import Engine, Via


def endpoint(api: Api, context: str | None, found: Object) -> Endpoint:
    """Where to connect to the cluster of this object, and with what.

    Raises:
        InfrastructureError: its pass is gone, or no tunnel can be opened.
    """
    its = _pass(api, found)
    security = {
        "tls_ca_file": its.certificate,
        "tls_client_cert": its.certificate,
        "tls_client_key": its.key,
    }
    host, port = _way(api, context, found, ENGINE_PORT)
    return Endpoint(f"tls://{host}:{port}", its.token, "", security)


def dashboard(api: Api, context: str | None, found: Object, *, lasting: bool) -> str:
    """The link to its scheduler's pages; a tunnel to them is opened unless one of this process is open.

    ``lasting``: "" where it would take a tunnel.

    Raises:
        InfrastructureError: its pass is gone, or no tunnel can be opened.
    """
    status = status_of(found)
    runs_dask = status is not None and status.plan is not None and status.plan.engine is Engine.DASK
    if not runs_dask or (lasting and not _inside(context)):
        return ""
    secret = secret_of(_pass(api, found).key)
    host, port = _way(api, context, found, DASHBOARD_PORT)
    return link(port, secret, host)


def status(api: Api, context: str | None, found: Object, timeout: float) -> HeadStatus:
    """What its head tells of itself now."""
    host, port = _way(api, context, found, STATUS_PORT)
    said = get_json(f"http://{host}:{port}/v1/status", _pass(api, found).token, timeout)
    return read(HeadStatus, said)


def _pass(api: Api, found: Object) -> Pass:
    metadata = found["metadata"]
    folder = os.environ.get("SHOAL_CERTIFICATE")
    if folder and os.environ.get(MARK) == metadata["uid"]:  # a pod of its own has it at hand
        return Pass(*(Path(folder, name).read_text() for name in ("token", "tls.crt", "tls.key")))
    data = api.get(SECRET.path(metadata["namespace"], ACCESS)).get("data", {})
    if (its := Pass.of(data, metadata["uid"])) is None:
        raise InfrastructureError(
            f"{metadata['name']} cannot be connected to: its entries in Secret {ACCESS} are gone",
            hint="It is ending, or somebody changed that Secret: end the cluster and ask for another one.",
        )
    return its


def _way(api: Api, context: str | None, found: Object, port: int) -> tuple[str, int]:
    """Host and port by which a port of the head is reached from here."""
    metadata = found["metadata"]
    if _inside(context):
        return f"{head_of(metadata['name'])}.{metadata['namespace']}.svc", port
    pod = _pod_of_head(api, found)
    return "127.0.0.1", tunnel.local_port(context, metadata["namespace"], pod, metadata["uid"], port)


def _pod_of_head(api: Api, found: Object) -> str:
    """Its name, which dask-kubernetes' operator chooses where it makes it."""
    metadata, status = found["metadata"], status_of(found)
    if status is None or status.plan is None or status.plan.via is Via.PODS:
        return head_of(metadata["name"])
    its = f"{OF_CLUSTER}={metadata['uid']},{ROLE}={HEAD}"
    pods = api.list(POD.path(metadata["namespace"]), labelSelector=its)[0]
    there = [pod["metadata"]["name"] for pod in pods if not over(pod) and not going(pod)]
    if not there:
        raise InfrastructureError(
            f"{metadata['name']} cannot be connected to: its head has no pod",
            hint="It is ending, or its head was lost: see `shoal why`.",
        )
    return str(there[0])


def _inside(context: str | None) -> bool:
    """Whether this process is in a pod of the Kubernetes that is meant."""
    return context is None and "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
