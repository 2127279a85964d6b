"""What a kubelet hears of the governor."""

from __future__ import annotations

import json
import time
from contextlib import closing
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from typing import Any, cast

import pytest

from shoal.errors import InfrastructureError, UsageError
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


def test_a_governor_tells_by_one_request_at_a_time_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    governing, told = GovernorProgram(cast(Any, None), Location()), list[str]()

    def renew(*what: object) -> None:
        told.append("it lives")
        governing._tell_that_it_lives()  # as another act does beside this one

    monkeypatch.setattr("shoal.homes.kubernetes.governing.renew", renew)
    governing._tell_that_it_lives()
    governing._tell_that_it_lives()
    assert told == ["it lives"]


def test_of_acts_beside_each_other_every_fault_is_told(caplog: pytest.LogCaptureFixture) -> None:
    governing = GovernorProgram(cast(Any, None), Location())

    def act(number: int) -> int:
        if number % 2:
            raise InfrastructureError(f"fault {number % 4}")
        return number

    assert governing._each(act, [0, 2]) == [0, 2]
    with pytest.raises(InfrastructureError, match="fault 1"):
        governing._each(act, range(8))
    assert [record.getMessage() for record in caplog.records] == [
        "beside the fault that ends this round: fault 3"
    ]
