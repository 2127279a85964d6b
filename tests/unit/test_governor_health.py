"""What a kubelet hears of the governor."""

from __future__ import annotations

import json
import time
from contextlib import closing
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from typing import Any, cast

import pytest

from shoal.errors import UsageError
from shoal.homes.kubernetes.governing import GovernorProgram, serve_health
from shoal.homes.kubernetes.location import Location

Json = dict[str, Any]


def test_the_governor_tells_whether_it_lives_and_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alive while it goes round, also where its rounds fail: starting it again would not help."""
    governing = GovernorProgram(cast(Any, None), Location())

    def asked(server: ThreadingHTTPServer, path: str) -> tuple[int, Json]:
        connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        with closing(connection):
            return answer.status, json.loads(answer.read())

    server = serve_health(governing, "127.0.0.1", 0)
    try:
        assert asked(server, "/healthz") == (200, {"ok": True, "fault": ""})
        assert asked(server, "/readyz") == (503, {"ok": False, "fault": "it has not run a round yet"})
        now = time.monotonic()
        monkeypatch.setattr("shoal.homes.kubernetes.governing.time.monotonic", lambda: now + 100)
        assert asked(server, "/healthz")[0] == 503
        assert asked(server, "/metrics")[0] == 404
        with pytest.raises(UsageError, match=r"cannot be listened at.*\n.*--health"):
            serve_health(governing, "127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
