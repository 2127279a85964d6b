"""What of a kind is on the API server, kept by a list and then by watches: hints for who governs, never the last word.

Why it exists: to read a thousand clusters again at each look is what an API server and a governor cannot bear. Caches
of different kinds age separately, so whoever is about to do what cannot be undone reads that live
(``governor.cautious``).

What it must not do: know what the objects mean.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from shoal.errors import InfrastructureError, NotFoundError, ShoalError
from shoal.homes.kubernetes.errors import ApiClosedError, RightsError, WatchOverError
from shoal.homes.kubernetes.names import REPLICA_SET, Object

if TYPE_CHECKING:  # which needs a client of HTTP
    from shoal.homes.kubernetes.api import Api

_log = logging.getLogger("shoal.homes")
_LASTS = 60  # s of one watch
_TOGETHER = 50  # watches by one client, which opens no more than 100 connections
_BUSY = 15.0  # s, at most, that a server which is overloaded is left alone
_REFUSED = 5.0  # s until what may not be watched, or is not there, is listed again
_FIRST = 60.0  # s that the first list may take
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def slim(found: Object) -> Object:
    """An object without what nobody here reads: who set which field is half of it."""
    metadata = {name: its for name, its in found["metadata"].items() if name != "managedFields"}
    if _APPLIED in metadata.get("annotations", {}):
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != _APPLIED}
    return {**found, "metadata": metadata}


def slim_pod(found: Object) -> Object:
    """Of a pod, what tells whose it is and how it is: there may be ten thousand of them."""
    kept = ("name", "namespace", "uid", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds")
    its, status = found["metadata"], found.get("status", {})
    metadata: Object = {name: its[name] for name in kept if name in its}
    metadata["labels"] = its.get("labels", {})
    metadata["ownerReferences"] = [_owner(each) for each in its.get("ownerReferences", ())]
    said: Object = {name: status[name] for name in ("phase", "reason", "message") if name in status}
    if telling := [each for each in status.get("conditions", ()) if _tells_why(each)]:
        said["conditions"] = telling
    if stands := [_stands(each) for each in status.get("containerStatuses", ()) if _tells(each)]:
        said["containerStatuses"] = stands
    return {"metadata": metadata, "status": said}


def _owner(reference: Mapping[str, object]) -> Object:
    """A ReplicaSet's name tells the Deployment."""
    kept = ("uid", "kind", "name") if reference.get("kind") == REPLICA_SET.name else ("uid",)
    return {key: reference.get(key) for key in kept}


def _tells_why(condition: Mapping[str, object]) -> bool:
    """That no node takes it, or that its place takes it away."""
    return (condition["type"], condition["status"]) in (
        ("PodScheduled", "False"),
        ("DisruptionTarget", "True"),
    )


def _tells(container: Mapping[str, Mapping[str, object]]) -> bool:
    """One that just runs, and has never ended, tells nothing."""
    return bool(container.get("state", {}).keys() - {"running"} or container.get("restartCount"))


def _stands(container: Mapping[str, object]) -> Object:
    kept = ("restartCount", "lastState") if container.get("restartCount") else ()
    return {
        "image": container.get("image", ""),
        **{key: container.get(key) for key in ("name", "state", *kept)},
    }


class Cache:
    """The objects at some paths (of one kind, in one namespace each or in all), by uid.

    ``told`` is called, by whatever thread, with each object that changed or went, as it was kept last. ``owner``: the
    uid of what an object is a part of, if anybody asks for such parts. Safe to use from several threads.
    """

    def __init__(
        self,
        paths: Iterable[str],
        told: Callable[[Object], None],
        owner: Callable[[Object], str | None] | None = None,
        keep: Callable[[Object], Object] = slim,
        **params: str,
    ) -> None:
        self._told, self._owner, self._keep, self._params = told, owner, keep, params
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._parts = {path: _Part() for path in paths}
        self._owned: dict[str, dict[str, Object]] = {}
        self._apis: list[Api] = []

    def start(self, api: Api) -> None:
        """Follow from now on, until ``api`` is closed."""
        for number, path in enumerate(self._parts):
            if number and number % _TOGETHER == 0:
                api = api.again()
                self._apis.append(api)
            threading.Thread(target=self._follow, args=(api, path), name=f"watch {path}", daemon=True).start()

    def stop(self) -> None:
        """Follow no more: a watch by the client that was given ends when that is closed."""
        self._over.set()
        for api in self._apis:
            api.close()

    def owned(self, uid: str) -> list[Object]:
        """The parts of this one."""
        with self._lock:
            return list(self._owned.get(uid, {}).values())

    def owners(self) -> set[str]:
        """All that have parts."""
        with self._lock:
            return set(self._owned)

    def items(self) -> dict[str, Object]:
        """What is there, as far as is known.

        Raises:
            ShoalError: it cannot be followed now; or it was never listed.
        """
        found: dict[str, Object] = {}
        for path, part in self._parts.items():
            if not part.listed.wait(_FIRST):
                raise InfrastructureError(f"{path} was not listed within {_FIRST:.0f} s")
            with self._lock:
                if part.fault is not None:
                    raise part.fault
                found |= part.items
        return found

    def put(self, written: Object) -> None:
        """What the API server answered to a write of one's own."""
        namespace = f"/namespaces/{written['metadata'].get('namespace')}/"
        parts = [part for path, part in self._parts.items() if namespace in path]
        self._take((parts or list(self._parts.values()))[0], self._keep(written), own=True)

    def _follow(self, api: Api, path: str) -> None:
        part = self._parts[path]
        version, resumed, waits = "", False, 0.0
        while not self._over.is_set():
            pause = random.uniform(0.2, 1.0)  # noqa: S311 - so that those who failed together come apart
            try:
                if not version:
                    version = self._list(api, path, part)
                for event in api.watch(path, version, _LASTS, **self._params):
                    version, resumed = event["object"]["metadata"]["resourceVersion"], False
                    waits = 0.0
                    if event["type"] == "DELETED":
                        self._drop(part, event["object"]["metadata"]["uid"], version)
                    elif event["type"] != "BOOKMARK":
                        self._take(part, self._keep(event["object"]))
                self._well(part)
                resumed = False
                continue
            except ApiClosedError as error:
                self._failed(part, error)
                return
            except WatchOverError as error:
                _log.debug("watched again: %s", error)
                code = error.values.get("code") or 0
                busy = code == 429 or code >= 500
                # Cut once, it goes on where it was; else what was missed is told by a list alone. A server that is
                # overloaded is not asked for everything at once.
                if busy and waits < _BUSY / 2:
                    waits = max(1.0, 2 * waits)
                    pause = waits * random.uniform(0.5, 1.0)  # noqa: S311
                elif code or resumed:
                    version = ""
                    if code in (401, 403):
                        pause = _REFUSED  # to be listed, but not to be watched, by an older `shoal apply`
                    if busy:
                        pause = _BUSY
                        self._failed(part, error)
                resumed = not busy and not resumed
            except (RightsError, NotFoundError) as error:
                version, pause = "", _REFUSED
                self._failed(part, error)
            except ShoalError as error:
                version = ""
                self._failed(part, error)
            except Exception as error:  # a defect: it is told by the round, and nobody decides on what is old
                _log.exception("%s is listed again", path)
                version = ""
                self._failed(part, InfrastructureError(f"{path} cannot be followed: {error}"))
            self._over.wait(pause)

    def _list(self, api: Api, path: str, part: _Part) -> str:
        there: dict[str, Object] = {}
        version = ""
        for page, version in api.pages(path, **self._params):  # noqa: B007 - the last one's
            there |= {each["metadata"]["uid"]: self._keep(each) for each in page}
        with self._lock:
            before = part.items
            newer = {uid: its for uid, its in before.items() if _version(its) > int(version or 0)}
            part.items = there | newer
            part.at = max(part.at, int(version or 0))
            for its in before.values():
                self._owns(its, there=False)
            for its in part.items.values():
                self._owns(its, there=True)
            news = [its for uid, its in part.items.items() if before.get(uid) != its]
            news += [its for uid, its in before.items() if uid not in part.items]
            part.fault = None
            part.listed.set()
        for each in news:
            self._told(each)
        return version

    def _take(self, part: _Part, its: Object, *, own: bool = False) -> None:
        """``own``: by a write of one's own, whose answer may come when the object is long gone."""
        uid, version = its["metadata"]["uid"], _version(its)
        with self._lock:
            known = part.items.get(uid)
            if not own:
                part.at = max(part.at, version)
            if (own and version <= part.at) if known is None else _version(known) >= version:
                return
            if known is not None:
                self._owns(known, there=False)
            part.items[uid] = its
            self._owns(its, there=True)
        self._told(its)

    def _drop(self, part: _Part, uid: str, version: str) -> None:
        with self._lock:
            its = part.items.pop(uid, None)
            if its is not None:
                self._owns(its, there=False)
            part.at = max(part.at, int(version))
        if its is not None:
            self._told(its)

    def _owns(self, its: Object, *, there: bool) -> None:
        owner = self._owner(its) if self._owner is not None else None
        if owner is None:
            return
        uid = its["metadata"]["uid"]
        if there:
            self._owned.setdefault(owner, {})[uid] = its
        elif (parts := self._owned.get(owner)) is not None:
            parts.pop(uid, None)
            if not parts:
                del self._owned[owner]

    def _failed(self, part: _Part, error: ShoalError) -> None:
        with self._lock:
            part.fault = error
        part.listed.set()

    def _well(self, part: _Part) -> None:
        with self._lock:
            part.fault = None


class _Part:
    """What is known at one path; up to which version all is known; and why it cannot be followed."""

    def __init__(self) -> None:
        self.items: dict[str, Object] = {}
        self.at = 0
        self.fault: ShoalError | None = None
        self.listed = threading.Event()


def _version(its: Object) -> int:
    return int(its["metadata"]["resourceVersion"])
