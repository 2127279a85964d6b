"""Connections to the API server are given back without touching anybody else's."""

from __future__ import annotations

import threading

import pytest

from shoal.errors import ShoalError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.errors import ApiClosedError, WatchOverError
from shoal.homes.kubernetes.names import POD

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]
PODS = POD.path("default")


def watch(api: Api, began: threading.Event, failed: list[ShoalError]) -> None:
    try:
        _, version = api.list(PODS)
        began.set()
        for _ in api.watch(PODS, version, 60):
            pass
    except ShoalError as error:
        failed.append(error)


def test_closing_ends_watches_and_leaves_others_alone(fleet_admin: Api) -> None:
    """A descriptor closed under a reader becomes the next connection's, and the reader takes what is not its own."""
    for _ in range(10):
        watching, other = fleet_admin.again(), fleet_admin.again()
        began, failed = threading.Event(), list[ShoalError]()

        threads = [threading.Thread(target=watch, args=(watching, began, failed)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert began.wait(20)
        watching.close()
        for _ in range(20):
            other.list(PODS)
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
        assert all(isinstance(error, WatchOverError | ApiClosedError) for error in failed), failed
        other.close()


def test_what_was_closed_says_so(fleet_admin: Api) -> None:
    api = fleet_admin.again()
    api.close()
    for ask in (lambda: api.list(PODS), lambda: api.delete(f"{PODS}/none"), lambda: api.text(PODS)):
        with pytest.raises(ApiClosedError, match="were closed"):
            ask()
    with pytest.raises(ApiClosedError):
        next(api.watch(PODS, "0"))
