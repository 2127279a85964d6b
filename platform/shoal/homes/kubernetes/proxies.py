"""By which proxy of the environment an API server is reached, by the rules of kubectl.

Why it exists: lightkube and kr8s look at other variables, or at none, and know no networks in ``NO_PROXY``. The rules
are those of Go's ``golang.org/x/net/http/httpproxy``, which are kubectl's.

What it must not do: look at a kubeconfig, whose ``proxy-url`` comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit


def from_environment(server: str, environment: Mapping[str, str]) -> str | None:
    """The proxy for this URL; None: it is reached directly, as whatever is on this machine always is."""
    url = urlsplit(server)
    host = (url.hostname or "").rstrip(".")
    proxy = _either(f"{url.scheme}_proxy", environment)
    if not proxy or host == "localhost" or _on_this_machine(host):
        return None
    port = url.port or (443 if url.scheme == "https" else 80)
    if any(_spared(host, port, each.strip().lower()) for each in _either("no_proxy", environment).split(",")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _either(name: str, environment: Mapping[str, str]) -> str:
    return environment.get(name.upper()) or environment.get(name) or ""


def _on_this_machine(host: str) -> bool:
    with suppress(ValueError):  # a name
        return ip_address(host).is_loopback
    return False


def _spared(host: str, port: int, rule: str) -> bool:
    """``rule``: ``*``, a network, or an address or a name with or without a port; a name counts for those below it."""
    if rule == "*":
        return True
    with suppress(ValueError):  # of names
        return ip_address(host) in ip_network(rule, strict=False)
    name, _, its_port = rule.rpartition(":") if rule.count(":") == 1 or "]" in rule else (rule, "", "")
    if its_port and its_port != str(port):
        return False
    name = name.strip("[]").removeprefix("*")
    if not name:
        return False
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")
