"""The address by which others reach what listens here.

Why it exists: a server that listens at every address of its machine has to be told about by one of them.

What it must not do: connect to anything.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

import psutil

POD_IP = "SHOAL_POD_IP"  # in the environment of a pod: its own address
Address = IPv4Address | IPv6Address
_ANY = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not listened at


def reachable(host: str) -> str:
    """``host``, or this machine's own address where that stands for all of them: the pod's, if this is one."""
    return host if host not in _ANY else os.environ.get(POD_IP) or _outward()


def in_url(host: str) -> str:
    """As it stands in a URL, before the port."""
    return f"[{host}]" if ":" in host else host


def parsed(host: str) -> Address | None:
    """An address, that of IPv4 also where IPv6 writes it (``::ffff:10.0.0.1``); None for a name."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def every(hosts: Iterable[str]) -> frozenset[Address]:
    """Those of these that are addresses."""
    return frozenset(address for host in hosts if (address := parsed(host)) is not None)


def own() -> Collection[str]:
    """Every address of this machine."""
    return {each.address for its in psutil.net_if_addrs().values() for each in its}


def _outward() -> str:
    """The one that leads out of this machine. Nothing is sent: UDP connects without a packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of nobody (RFC 5737)
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
