"""Proxies of the environment: for which API servers they count."""

from __future__ import annotations

import pytest

from shoal.homes.kubernetes.proxies import from_environment

PROXY = "http://proxy:3128"
SERVER = "https://api.there.example:6443"


@pytest.mark.parametrize(
    ("server", "environment"),
    [
        (SERVER, {"HTTPS_PROXY": PROXY}),
        (SERVER, {"https_proxy": PROXY}),
        (SERVER, {"HTTPS_PROXY": PROXY, "https_proxy": "http://other:1"}),
        (SERVER, {"HTTPS_PROXY": "proxy:3128"}),
        ("http://api.there.example", {"HTTP_PROXY": PROXY}),
        (SERVER, {"HTTPS_PROXY": PROXY, "NO_PROXY": "here.example, 10.0.0.0/8,.other.example,re.example"}),
        (SERVER, {"HTTPS_PROXY": PROXY, "NO_PROXY": "api.there.example:443,.api.there.example,, :6443"}),
        ("https://192.168.1.5", {"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8,192.168.1.50"}),
        ("https://[fd00::1]:6443", {"HTTPS_PROXY": PROXY, "NO_PROXY": "fd01::/16,[fd00::1]:443"}),
    ],
)
def test_a_server_elsewhere_is_reached_by_the_proxy(server: str, environment: dict[str, str]) -> None:
    assert from_environment(server, environment) == PROXY


@pytest.mark.parametrize(
    ("server", "environment"),
    [
        (SERVER, {}),
        (SERVER, {"HTTP_PROXY": PROXY, "ALL_PROXY": PROXY}),
        *(
            (SERVER, {"HTTPS_PROXY": PROXY, "NO_PROXY": spared})
            for spared in ("*", "there.example", "a, example")
        ),
        (SERVER, {"HTTPS_PROXY": PROXY, "no_proxy": ".there.example"}),
        (SERVER, {"HTTPS_PROXY": PROXY, "NO_PROXY": "API.there.example:6443"}),
        (SERVER, {"HTTPS_PROXY": PROXY, "NO_PROXY": "*.there.example"}),
        ("https://10.2.3.4:6443", {"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}),
        ("https://10.2.3.4:6443", {"HTTPS_PROXY": PROXY, "NO_PROXY": "10.2.3.4"}),
        ("https://[fd00::1]:6443", {"HTTPS_PROXY": PROXY, "NO_PROXY": "fd00::/16"}),
        ("https://[fd00::1]:6443", {"HTTPS_PROXY": PROXY, "NO_PROXY": "[fd00::1]:6443"}),
        ("https://[fd00::1]:6443", {"HTTPS_PROXY": PROXY, "NO_PROXY": "fd00::1"}),
        ("https://localhost:6443", {"HTTPS_PROXY": PROXY}),
        ("https://127.0.0.9:6443", {"HTTPS_PROXY": PROXY}),
        ("https://[::1]:6443", {"HTTPS_PROXY": PROXY}),
    ],
)
def test_one_that_is_spared_or_here_is_reached_directly(server: str, environment: dict[str, str]) -> None:
    assert from_environment(server, environment) is None
