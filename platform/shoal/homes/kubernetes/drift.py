"""What of an applied project is on the server otherwise than it was applied: somebody changed it by hand.

Why it exists: limits that hold without us are objects, and who edits one of them lifts a limit for everybody without a
word. The governor compares them with the project in force, and says so; it may not write them, and ``shoal apply`` puts
them right.

What it must not do: write any of them, or judge what another Shoal applied: that knows other fields.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from shoal.errors import ShoalError
from shoal.homes.kubernetes.applied import applied_of
from shoal.homes.kubernetes.changes import ObjectKey, changes, kept, key_of
from shoal.homes.kubernetes.manifests import limiting
from shoal.homes.kubernetes.names import (
    ADMISSION,
    ADMISSION_BINDING,
    BINDING,
    NAMESPACE,
    NETWORK,
    OF_SYSTEM,
    QUOTA,
    RELEASE,
    ROLE_OF,
    Json,
    Object,
)
from shoal.model.outlook import Change, What

if TYPE_CHECKING:  # which needs a client of HTTP
    from shoal.homes.kubernetes.api import Api

_log = logging.getLogger("shoal.homes")
KINDS = (NAMESPACE, QUOTA, NETWORK, ADMISSION, ADMISSION_BINDING, ROLE_OF, BINDING)
_COMPARED = {kind.name for kind in KINDS}
_EVERY, _AGAIN = 300.0, 20.0  # s between two looks, and until the second one
_MOST, _LONG = 20, 200  # of what is told


def drift(project: Json, live: Mapping[ObjectKey, Json], system: str) -> tuple[str, ...]:
    """What differs from a Project as it was applied, a sentence each; nothing where that cannot be judged.

    Raises:
        ConfigError: the Project is at fault.
    """
    labels = project["metadata"].get("labels", {})
    if (labels.get(OF_SYSTEM), labels.get(RELEASE)) != (system, version("shoal")):
        return ()
    name = project["metadata"]["name"]
    every = limiting(name, system, applied_of(project["spec"]))
    wanted = [kept(each, live.get(key_of(each))) for each in every if each["kind"] in _COMPARED]
    found, _ = changes(wanted, live, (), ())
    told = [_told(each)[:_LONG] for each in found]
    more = len(told) - _MOST
    return (*told[:_MOST], *((f"and {more} more",) if more > 0 else ()))


def _told(change: Change) -> str:
    where = f" in {change.namespace}" if change.namespace else ""
    said = "is gone" if change.what is What.ADDED else f"was changed (there -> applied): {change.lines[0]}"
    return f"{change.kind} {change.name}{where} {said}"


class DriftWatch:
    """Looks now and then, beside the governor's rounds. ``found``: by Project, what two looks in a row saw: one alone
    may have come in the middle of a `shoal apply`.
    """

    def __init__(self, api: Api, system: str) -> None:
        self._api, self._system = api, system
        self._next, self._running = 0.0, threading.Lock()
        self._last: dict[str, tuple[str, ...]] = {}
        self.found: dict[str, tuple[str, ...]] = {}

    def look(self, projects: Callable[[], Iterable[Json]]) -> None:
        """Look, if it is time to. ``projects`` is called only then."""
        if time.monotonic() < self._next:
            return
        there = [each for each in projects() if OF_SYSTEM in each["metadata"].get("labels", {})]
        if not self._running.acquire(blocking=False):
            return
        self._next = time.monotonic() + _EVERY
        threading.Thread(target=self._look, args=(there,), name="drift", daemon=True).start()

    def _look(self, projects: list[Json]) -> None:
        try:
            live = {key_of(each): each for each in self._live()} if projects else {}
            seen = {each["metadata"]["name"]: drift(each, live, self._system) for each in projects}
            found = {
                name: tuple(its for its in seen[name] if its in self._last.get(name, ())) for name in seen
            }
            for name, told in found.items():
                if told and told != self.found.get(name):
                    _log.warning("changed by hand since project %s was applied: %s", name, "; ".join(told))
            if seen != found:
                self._next = time.monotonic() + _AGAIN
            self._last, self.found = seen, {name: told for name, told in found.items() if told}
        except ShoalError as error:  # by an older Role it may not look
            _log.info("whether somebody changed applied objects is not known: %s", error)
        finally:
            self._running.release()

    def _live(self) -> Iterable[Object]:
        for kind in KINDS:
            for each in self._api.list(kind.path(), labelSelector=f"{OF_SYSTEM}={self._system}")[0]:
                yield {"apiVersion": kind.group_version, "kind": kind.name} | each
