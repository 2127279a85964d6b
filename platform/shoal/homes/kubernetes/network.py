"""NetworkPolicies of users' namespaces: whom their pods may reach, and who may reach them.

Why it exists: in one flat network every pod reaches every other, whoever's it is. The API server takes these objects
everywhere; whether anything goes by them is the network's affair, and no object tells it (see ``isolation``).

What it must not do: speak to a server, or resolve a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shoal.homes.kubernetes.names import (
    DASHBOARD_PORT,
    ENGINE_PORT,
    HEAD,
    HEADS_REACHED,
    NETWORK,
    REACHES_API,
    REACHES_OWN,
    ROLE,
    STATUS_PORT,
    WORKER,
    Object,
)
from shoal.model.workload import Via
from shoal.project.network import ANYWHERE, NetworkPeer, in_kubernetes
from shoal.project.policy import Subject
from shoal.project.targets import Cloud

_NAME = "kubernetes.io/metadata.name"  # a label that the API server itself puts on every namespace
_OPERATOR = "dask-operator"  # where dask-kubernetes' own instructions put its operator
_TCP, _UDP = "TCP", "UDP"
# A cloud gives credentials to whoever asks at these addresses.
_NEVER = {"0.0.0.0/0": ["169.254.0.0/16"], "::/0": ["fe80::/10", "fd00:ec2::254/128"]}
# Names are resolved by pods, by a cache on the node, which has an address of its own, or by the cloud; some networks
# see the Service's address, some the pod's.
_RESOLVERS = ("kube-system", "openshift-dns")
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7")
_DNS = (53, 5353)
_API = (443, 6443)


def network_policies(
    namespace: str, system: str, cloud: Cloud, addresses: Iterable[str], subjects: Iterable[Subject] = ()
) -> list[Object]:
    """Of one user's namespace. ``addresses``: where pods go by the project's own words (``host:port``); ``subjects``:
    whom of Kubernetes' the user is: who is a service account of another namespace connects from there.
    """
    said = cloud.network
    if said is not None and not said.isolated:
        return []
    homes = {each.service_account.partition("/")[0] for each in subjects if each.service_account}
    homes |= {_OPERATOR} if cloud.via is Via.OPERATOR else set()
    here: Object = {"podSelector": {}}
    egress = [
        {"to": [here]},
        {
            "to": [*map(_namespace, _RESOLVERS), *({"ipBlock": {"cidr": each}} for each in _PRIVATE)],
            "ports": [_port(number, by) for number in _DNS for by in (_UDP, _TCP)],
        },
        *(rule for each in sorted(addresses) for rule in _towards(each)),
        *(_rule("to", each) for each in (said.egress if said is not None else ())),
    ]
    ingress = [
        {"from": [here]},
        *(_rule("from", each) for each in (said.ingress if said is not None else ())),
    ]
    governor = _namespace(system) | {"podSelector": {"matchLabels": {ROLE: "governor"}}}
    status = {
        "from": [governor],
        "ports": [_port(STATUS_PORT)],
    }  # by which it tells that it is held elsewhere
    clients = {
        "from": [_namespace(each) for each in sorted(homes - {namespace})],
        "ports": [_port(each) for each in (ENGINE_PORT, DASHBOARD_PORT, STATUS_PORT)],
    }
    return [
        _policy(REACHES_OWN, namespace, {}, ingress=ingress, egress=egress),
        # The API server's address is none that a selector could name, and workers have nothing to ask it.
        _policy(
            REACHES_API,
            namespace,
            {"matchExpressions": [{"key": ROLE, "operator": "NotIn", "values": [WORKER]}]},
            egress=[{"ports": [_port(each) for each in _API]}],
        ),
        _policy(
            HEADS_REACHED,
            namespace,
            {"matchLabels": {ROLE: HEAD}},
            ingress=[status, *([clients] if clients["from"] else [])],
        ),
    ]


def _policy(name: str, namespace: str, whose: Object, **rules: list[Any]) -> Object:
    kinds = [kind for kind, part in (("Ingress", "ingress"), ("Egress", "egress")) if part in rules]
    return {
        "apiVersion": NETWORK.group_version,
        "kind": NETWORK.name,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": whose, "policyTypes": kinds, **rules},
    }


def _towards(address: str) -> list[Object]:
    """A Service is reached by its pods, which listen at ports of their own: their namespace is all that can be said."""
    host, _, port = address.rpartition(":")
    namespace, alone = in_kubernetes(host)
    rules: list[Object] = [{"to": [_namespace(namespace)]}] if namespace else []
    if alone or (
        "." not in host and ":" not in host and host != ANYWHERE
    ):  # a Service of the namespace itself
        return rules
    blocks = [_block(host)] if _is_address(host) else [_block(each) for each in _NEVER]
    return [*rules, {"to": blocks, "ports": [_port(int(port))]}]


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _block(said: str) -> Object:
    """Of a range of addresses, or of one."""
    cidr = said if "/" in said else f"{said}/{128 if ':' in said else 32}"
    never = {"except": _NEVER[cidr]} if cidr in _NEVER else {}
    return {"ipBlock": {"cidr": cidr, **never}}


def _rule(way: str, peer: NetworkPeer) -> Object:
    whom = _namespace(peer.namespace) if peer.namespace is not None else _block(peer.cidr or "")
    return {way: [whom]} | ({"ports": [_port(each) for each in peer.ports]} if peer.ports else {})


def _namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {_NAME: name}}}


def _port(number: int, protocol: str = _TCP) -> Object:
    return {"port": number, "protocol": protocol}
