"""Whom pods of a user's namespace reach, and who reaches them, by what a network makes of NetworkPolicies."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from pydantic import ValidationError

from shoal.homes.kubernetes import isolation
from shoal.homes.kubernetes.isolation import Isolation, tried
from shoal.homes.kubernetes.names import HEADS_REACHED, ROLE
from shoal.homes.kubernetes.network import network_policies
from shoal.project.network import Network, addresses
from shoal.project.policy import Subject
from shoal.project.targets import Catalog, Cloud, Target

Json = dict[str, Any]
ADDRESSES = (
    "minio.storage.svc:9000",
    "catalog.example.com:8181",
    "10.9.0.7:5432",
    "*:443",
    "http.example.com:80",
)


@dataclass(frozen=True)
class End:
    """A pod, or (without a namespace) somebody outside."""

    address: str
    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)


HEAD, WORKER, NOTEBOOK = (
    End(f"10.244.0.{number}", "shoal-alice", {ROLE: role} if role else {})
    for number, role in ((1, "head"), (2, "worker"), (3, ""))
)
BOB = End("10.244.0.9", "shoal-bob", {ROLE: "head"})
HUB, DNS, GOVERNOR, STRANGER, MINIO, API, STORE, CLOUD, OUTSIDE = (
    End("10.244.1.1", "hub"),
    End("10.244.1.2", "kube-system"),
    End("10.244.1.3", "shoal-system", {ROLE: "governor"}),
    End("10.244.1.4", "elsewhere"),
    End("10.244.1.5", "storage"),
    End("172.18.0.2"),
    End("10.9.0.7"),
    End("169.254.169.254"),
    End("203.0.113.7"),
)


def selected(selector: Json, labels: dict[str, str]) -> bool:
    wanted = all(labels.get(key) == its for key, its in selector.get("matchLabels", {}).items())
    return wanted and all(
        (labels.get(each["key"]) in each["values"]) is (each["operator"] == "In")
        for each in selector.get("matchExpressions", ())
    )


def is_peer(peer: Json, namespace: str, other: End) -> bool:
    if "ipBlock" in peer:
        address, block = ip_address(other.address), peer["ipBlock"]
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(each) for each in block.get("except", ())
        )
    if not other.namespace:
        return False
    names = {"kubernetes.io/metadata.name": other.namespace}
    there = (
        selected(peer["namespaceSelector"], names)
        if "namespaceSelector" in peer
        else other.namespace == namespace
    )
    return there and selected(peer.get("podSelector", {}), other.labels)


def permits(policies: list[Json], which: str, way: str, here: End, other: End, port: int, by: str) -> bool:
    its = [
        each["spec"]
        for each in policies
        if each["metadata"]["namespace"] == here.namespace
        and which in each["spec"]["policyTypes"]
        and selected(each["spec"]["podSelector"], here.labels)
    ]
    return not its or any(
        (not rule.get(way) or any(is_peer(peer, here.namespace, other) for peer in rule[way]))
        and (not rule.get("ports") or {"port": port, "protocol": by} in rule["ports"])
        for spec in its
        for rule in spec[which.lower()]
    )


def reaches(policies: list[Json], one: End, other: End, port: int, by: str = "TCP") -> bool:
    """As the specification has it: what no policy selects is open, and permits add up."""
    out = permits(policies, "Egress", "to", one, other, port, by)
    return out and permits(policies, "Ingress", "from", other, one, port, by)


def both(cloud: Cloud | None = None) -> list[Json]:
    cloud, hub = cloud or Cloud(), [Subject(service_account="hub/alice")]
    alice = network_policies("shoal-alice", "shoal-system", cloud, ADDRESSES, hub)
    return [*alice, *network_policies("shoal-bob", "shoal-system", cloud, ADDRESSES)]


TRIES = {
    "a worker to its head": (WORKER, HEAD, 8786, True),
    "workers to each other, at any port": (HEAD, WORKER, 41234, True),
    "to another user's head": (WORKER, BOB, 8786, False),
    "to another user's pod, at the store's port": (WORKER, BOB, 443, False),
    "another user's head to ours": (BOB, HEAD, 8786, False),
    "a stranger's pod to a head": (STRANGER, HEAD, 8786, False),
    "to a stranger's pod": (WORKER, STRANGER, 8080, False),
    "her notebook's namespace to her head": (HUB, HEAD, 8786, True),
    "her notebook's namespace to her worker": (HUB, WORKER, 41234, False),
    "her notebook's namespace to another's head": (HUB, BOB, 8786, False),
    "the governor to a head's status": (GOVERNOR, HEAD, 8788, True),
    "the governor to a head's engine": (GOVERNOR, HEAD, 8786, False),
    "a head to the API server": (HEAD, API, 6443, True),
    "a notebook to the API server": (NOTEBOOK, API, 6443, True),
    "a worker to the API server": (WORKER, API, 6443, False),
    "a Service's pods, at a port of their own": (WORKER, MINIO, 9001, True),
    "a store by its address": (WORKER, STORE, 5432, True),
    "a store's address at another port": (WORKER, STORE, 22, False),
    "a catalog by a name outside": (WORKER, OUTSIDE, 8181, True),
    "outside at another port": (WORKER, OUTSIDE, 25, False),
    "the cloud's credentials, though the store is at that port": (WORKER, CLOUD, 80, False),
}


@pytest.mark.parametrize("name", TRIES)
def test_who_reaches_whom(name: str) -> None:
    one, other, port, may = TRIES[name]
    assert reaches(both(), one, other, port) is may
    assert reaches(both(Cloud(network=Network(isolated=False))), one, other, port), "without them everybody"


def test_names_are_resolved_wherever_a_place_has_that() -> None:
    for where in (DNS, End("169.254.20.10"), End("169.254.169.254"), End("10.96.0.10"), End("fd00::10")):
        for by in ("UDP", "TCP"):
            assert reaches(both(), WORKER, where, 53, by), where
    assert not reaches(both(), WORKER, OUTSIDE, 53, "UDP"), "what goes out by that port is no name"


def test_what_a_place_adds() -> None:
    said = {
        "egress": [{"cidr": "0.0.0.0/0", "ports": [8443]}, {"namespace": "elsewhere"}],
        "ingress": [{"namespace": "elsewhere", "ports": [9100]}],
    }
    policies = both(Cloud.model_validate({"network": said}))
    assert reaches(policies, WORKER, OUTSIDE, 8443)
    assert not reaches(policies, WORKER, CLOUD, 8443)
    assert reaches(policies, WORKER, STRANGER, 8080)
    assert reaches(policies, STRANGER, WORKER, 9100)
    assert not reaches(policies, STRANGER, WORKER, 8080)
    assert reaches(
        both(Cloud.model_validate({"via": "operator"})), End("10.1.1.1", "dask-operator"), HEAD, 8786
    )
    for wrong in (
        {"cidr": "10.0.0.1/8"},
        {"cidr": "10.0.0.0/8", "namespace": "a"},
        {"ports": [1]},
        {"ports": [0]},
    ):
        with pytest.raises(ValidationError):
            Network.model_validate({"egress": [wrong]})


def test_where_pods_go_follows_from_the_targets_own_words_and_tells_no_secret() -> None:
    catalog = Catalog(
        uri="postgresql+psycopg2://iceberg:p@ss@db.example.com/catalog",
        warehouse="s3://lake/tables",
        properties={
            "s3.endpoint": "http://minio.storage.svc:9000",
            "token": "abc",
            "oauth2": "https://[2001:db8::1]/t",
        },
    )
    env = [{"name": "HTTPS_PROXY", "value": "http://user:secret@proxy:3128"}, {"name": "A", "value": "b"}]
    cloud = Cloud.model_validate({"pod": {"spec": {"containers": [{"env": env}]}}})
    target = Target(name="t", home="kubernetes", catalog=catalog, kubernetes=cloud)
    found = ("proxy:3128", "db.example.com:5432", "minio.storage.svc:9000", "2001:db8::1:443")
    assert addresses(target) == found
    (plain,) = addresses(
        Target(name="t", home="kubernetes", catalog=Catalog(uri="sqlite:///c.db", warehouse="gs://b"))
    )
    assert plain == "*:443", "a cloud's own storage has no one address"
    assert addresses(Target(name="t", home="kubernetes", catalog=Catalog(uri="http://127.0.0.1:8181"))) == ()
    rest = {"uri": "https://rest.example.com/api", "warehouse": "lake"}
    told = addresses(Target(name="t", home="kubernetes", catalog=Catalog(**rest)))
    assert told == ("rest.example.com:443", "*:443"), "it alone knows where files are"
    rest["properties"] = {"s3.endpoint": "http://minio.storage.svc:9000"}
    told = addresses(Target(name="t", home="kubernetes", catalog=Catalog(**rest)))
    assert told == ("rest.example.com:443", "minio.storage.svc:9000")
    policies = network_policies("shoal-alice", "shoal-system", Cloud(), found)
    assert reaches(policies, WORKER, End("2001:db8::1"), 443)
    assert "secret" not in str(policies)


# -- whether a network goes by them --------------------------------------------------------------------------


@contextmanager
def listening(*, answers: bool = True) -> Iterator[int]:
    """A port at 127.0.0.1; without ``answers`` what is sent there is lost, as where a network holds it."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8 if answers else 0)
        waiting = [socket.socket() for _ in range(0 if answers else 4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(server.getsockname())
        yield server.getsockname()[1]
        for each in waiting:
            each.close()


def test_a_network_is_told_by_what_it_lets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_WAITS", 0.5)
    with listening() as status, listening() as engine, listening(answers=False) as held:
        assert tried("127.0.0.1", status, engine) is Isolation.OPEN
        assert tried("127.0.0.1", status, held) is Isolation.HELD
        assert tried("127.0.0.1", held, engine) is Isolation.UNKNOWN, "what cannot be reached proves nothing"
    assert tried("127.0.0.1", status, engine) is Isolation.UNKNOWN


def test_it_lets_in_to_the_one_port_by_which_the_governor_tries_it() -> None:
    (its,) = [each for each in both() if each["metadata"]["name"] == HEADS_REACHED and each in both()[:3]]
    (first, *_) = its["spec"]["ingress"]
    assert first["ports"] == [{"port": 8788, "protocol": "TCP"}]
