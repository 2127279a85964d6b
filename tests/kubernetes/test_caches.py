"""What a cache has is what the API server has, whatever becomes of its watch."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from shoal.errors import InfrastructureError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.caches import Cache
from shoal.homes.kubernetes.errors import WatchOverError
from shoal.homes.kubernetes.names import LEASE

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]
LEASES = LEASE.path("default")


class Watching(Api):
    """Its watches can be cut, and told that they are too old; its server can be away."""

    too_old = away = False
    watches = lists = 0

    def watch(self, path: str, version: str, seconds: int = 60, **params: str) -> Iterator[dict[str, Any]]:
        self.watches += 1
        if self.too_old:
            self.too_old = False
            raise WatchOverError("too old", code=410)
        if self.away:
            raise WatchOverError("connection refused", code=0)
        return super().watch(path, version, seconds, **params)

    def pages(self, path: str, **params: str) -> Iterator[tuple[list[dict[str, Any]], str]]:
        self.lists += 1
        if self.away:
            raise InfrastructureError("the API server is away")
        return super().pages(path, **params)

    def cut(self) -> None:
        for each in list(self._watched):
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)


def test_a_cache_follows_through_cuts_and_gaps(fleet_admin: Api, eventually: Callable[..., Any]) -> None:
    mark = secrets.token_hex(4)
    api, told = Watching(fleet_admin.config), list[str]()
    cache = Cache(
        [LEASES],
        lambda found: told.append(found["metadata"]["name"]),
        lambda found: found["metadata"]["labels"]["of"],
        labelSelector=f"mark={mark}",
    )

    def made(name: str, of: str = "one") -> dict[str, Any]:
        labels = {"mark": mark, "of": of}
        body = {"apiVersion": LEASE.group_version, "kind": "Lease", "spec": {}}
        return fleet_admin.create(LEASES, body | {"metadata": {"name": f"{name}-{mark}", "labels": labels}})

    def holds(found: dict[str, Any], who: str) -> dict[str, Any]:
        return fleet_admin.patch(f"{LEASES}/{found['metadata']['name']}", {"spec": {"holderIdentity": who}})

    def has() -> dict[str, str]:
        its = (each for each in cache.items().values())
        return {
            each["metadata"]["name"].split("-")[0]: each["spec"].get("holderIdentity", "") for each in its
        }

    def comes(what: dict[str, str]) -> None:
        eventually(lambda: has() == what, 20, lambda: f"{has()} is {what}")

    first = made("first")
    cache.start(api)
    comes({"first": ""})
    second = made("second", "two")
    comes({"first": "", "second": ""})
    assert "managedFields" not in cache.owned("two")[0]["metadata"]

    # What was written by oneself is there at once, what is older than that never again.
    newer = holds(first, "me")
    cache.put(newer)
    assert has()["first"] == "me"
    cache.put(first)
    assert has()["first"] == "me"

    # A watch that is cut goes on where it was; one that is too old begins with a list, which tells of what went.
    lists = api.lists
    api.cut()
    holds(second, "you")
    comes({"first": "me", "second": "you"})
    assert api.lists == lists
    api.too_old = True
    api.cut()
    fleet_admin.delete(f"{LEASES}/{second['metadata']['name']}")
    told.clear()
    third = made("third")
    comes({"first": "me", "third": ""})
    eventually(lambda: second["metadata"]["name"] in told, 20, "it is told what went")
    assert cache.owners() == {"one"}
    assert api.lists == lists + 1

    # What is gone does not come back by an answer that comes late.
    fleet_admin.delete(f"{LEASES}/{third['metadata']['name']}")
    comes({"first": "me"})
    cache.put(third)
    assert has() == {"first": "me"}

    # Nobody goes by what cannot be followed.
    api.away = True
    api.cut()
    with pytest.raises(InfrastructureError, match="is away"):
        eventually(lambda: cache.items() is None, 20, "it says so")
    api.away = False
    eventually(lambda: not _fails(cache), 20, "it goes on")
    comes({"first": "me"})
    cache.stop()
    api.close()
    fleet_admin.delete(f"{LEASES}/{first['metadata']['name']}")


def _fails(cache: Cache) -> bool:
    try:
        cache.items()
    except InfrastructureError:
        return True
    return False
