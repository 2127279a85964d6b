"""Whom pods of a user's namespace may reach, and who may reach them (``network:`` of a target's ``kubernetes:``).

Why it exists: what a cluster needs follows from the project's files; what else a place has, its administrator knows.

What it must not do: know how Kubernetes says it (``homes.kubernetes.network``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_network
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, model_validator

from shoal.errors import ContradictionError
from shoal.project.settings import Checked, ObjectName

if TYPE_CHECKING:
    from shoal.project.targets import Catalog, Target

ANYWHERE = "*"  # a host that has no one address
_PORTS = {
    "http": 80,
    "https": 443,
    "thrift": 9083,
    "postgresql": 5432,
    "postgres": 5432,
    "mysql": 3306,
    "hdfs": 8020,
}
_STORES = {"s3", "s3a", "s3n", "gs", "abfs", "abfss", "oss"}
_HERE = ("localhost", "127.", "::1")
_URL = re.compile(
    r"(?P<scheme>[a-z0-9]+)[a-z0-9+.-]*://(?:[^/?#]*@)?(?:\[(?P<v6>[^]]+)\]|(?P<host>[^:/?#]*))(?::(?P<port>\d+))?",
    re.I,
)


def _addresses(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ContradictionError(
            f"{text!r} is not a range of addresses: {error}", hint="write it as 10.20.0.0/16, or 10.20.0.7/32"
        ) from None


class NetworkPeer(Checked):
    """Addresses (``cidr``) or all pods of a namespace, and at which ports (none: all)."""

    cidr: Annotated[str, AfterValidator(_addresses)] | None = None
    namespace: ObjectName | None = None
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()

    @model_validator(mode="after")
    def _one_of_both(self) -> NetworkPeer:
        if (self.cidr is None) is (self.namespace is None):
            raise ContradictionError("says either cidr or namespace", hint="write one entry for each")
        return self


class Network(Checked):
    """``isolated``: whether users' namespaces have NetworkPolicies at all. ``egress``: whom their pods may reach beside
    what follows from the project; ``ingress``: who may reach their pods beside those of the same namespace.
    """

    isolated: bool = True
    egress: tuple[NetworkPeer, ...] = ()
    ingress: tuple[NetworkPeer, ...] = ()


def addresses(target: Target) -> tuple[str, ...]:
    """Where pods go by the target's own words, as ``host:port``: catalog, storage, and URLs in the environment that is
    added to pods (proxies, an index of packages, an endpoint of S3). No secret is in them.
    """
    catalog, cloud = target.catalog, target.kubernetes
    said: dict[str, str] = {}
    if cloud is not None and cloud.pod is not None:
        containers = cloud.pod.spec.containers
        said |= {each.name: each.value or "" for one in containers for each in one.env or ()}
    if catalog is not None:
        said |= {"uri": catalog.uri or "", "warehouse": catalog.warehouse or "", **catalog.properties}
        if _is_told_by(catalog):
            said["storage"] = "s3://"
    return tuple(dict.fromkeys(_found(said)))


def _is_told_by(catalog: Catalog) -> bool:
    """Whether only the catalog knows where files are, as a REST catalog does: in a cloud, if no endpoint is named."""
    url = _URL.match(catalog.uri or "")
    if url is None or url["scheme"].lower() not in ("http", "https"):
        return False
    return not (url["host"] or "").startswith(_HERE) and "://" not in (catalog.warehouse or "")


def _found(said: dict[str, str]) -> Iterable[str]:
    elsewhere = any(name.lower().endswith("endpoint") or "endpoint_url" in name.lower() for name in said)
    for text in said.values():
        if (url := _URL.match(text)) is None:
            continue
        scheme, host = url["scheme"].lower(), url["v6"] or url["host"] or ""
        if scheme in _STORES:
            if not elsewhere:
                yield f"{ANYWHERE}:443"
        elif scheme in _PORTS and host and not host.startswith(_HERE):
            yield f"{host}:{url['port'] or _PORTS[scheme]}"


def in_kubernetes(host: str) -> tuple[str, bool]:
    """The namespace that a name of a Service means, and whether it can mean nothing else; ("", False): it is none."""
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        return "", False
    parts = host.split(".")
    if len(parts) > 2 and parts[2] == "svc":
        return parts[1], True
    return (parts[1], False) if len(parts) == 2 else ("", False)
