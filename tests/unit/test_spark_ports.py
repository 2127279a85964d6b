"""The port of a Spark Connect server: none that the JVM's own other services may be given while it starts."""

from __future__ import annotations

import socket

from shoal.engines.spark.host import _chosen_ports, _free_port


def test_a_port_is_free_and_none_of_those_that_are_given_to_whoever_asks_for_any() -> None:
    """Spark's driver was given the one that its server was to have, and the start failed."""
    given = set()
    held = [socket.socket() for _ in range(50)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
            given.add(each.getsockname()[1])
        ports = [_free_port() for _ in range(50)]
        assert not set(_chosen_ports()) & given
        assert set(ports) <= set(_chosen_ports())
        assert len(set(ports)) > 25, "starts at the same moment do not meet"
    finally:
        for each in held:
            each.close()
