"""Which connections are those of a cluster's own workers on other machines, by the address that they come from."""

from __future__ import annotations

import os

import pytest

from shoal.engines.limits import ENGINE
from shoal.engines.peers import Connection, Peers, by_address
from shoal.machine.addresses import POD_IP, every, in_url, parsed, reachable
from shoal.machine.measure import Tree

WORKERS = every(["10.0.0.5", "fd00::5", "127.0.0.1"])
OWN = every(["127.0.0.1", "::1", "10.0.0.1", "fe80::1%eth0"])


@pytest.mark.parametrize(
    ("what", "host", "inside"),
    [
        ("a worker, or what its task started", "10.0.0.5", True),
        ("the same, as IPv6 writes it", "::ffff:10.0.0.5", True),
        ("a worker by IPv6", "fd00:0::5", True),
        ("a person's pod", "10.0.0.7", False),
        ("another cluster's worker", "fd00::6", False),
        ("a forwarded port ends here, also where workers are here, too", "127.0.0.1", None),
        ("the same by IPv6", "::1", None),
        ("the head itself, by its own address", "10.0.0.1", None),
        ("the same by a link's", "fe80::1", None),
        ("no address at all", "somewhere", False),
    ],
)
def test_an_address_tells_workers_from_clients(what: str, host: str, inside: bool | None) -> None:
    assert by_address(host, WORKERS, OWN) is inside, what


def test_clients_of_other_machines_are_counted_by_their_address_and_their_silence() -> None:
    peers = Peers("c", Tree("c", os.getpid()))
    connections = [
        Connection(1, 2, 1.0, "198.51.100.7"),
        Connection(1, 3, 1.0, "198.51.100.7"),
        Connection(1, 4, ENGINE.silent_client, "198.51.100.8"),
        Connection(1, 5, 1.0, "198.51.100.9"),
        Connection(1, 6, 1.0, "127.0.0.1"),  # nobody's that can be seen: a tunnel's
    ]
    assert peers.clients(connections, ["198.51.100.9"]) == 3
    assert peers.clients(connections, []) == 4
    assert peers.clients(connections, ["198.51.100.7", "198.51.100.9"]) == 1


def test_what_listens_everywhere_is_told_by_the_pods_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(POD_IP, "10.0.0.1")
    assert reachable("127.0.0.1") == "127.0.0.1"
    assert reachable("0.0.0.0") == reachable("::") == "10.0.0.1"
    monkeypatch.delenv(POD_IP)
    assert parsed(reachable("0.0.0.0")) is not None
    assert (in_url("10.0.0.1"), in_url("fd00::1")) == ("10.0.0.1", "[fd00::1]")
