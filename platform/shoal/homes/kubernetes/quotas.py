"""The quota of a user's namespace that follows what is admitted: an account that the API server itself goes by.

Why it exists: whoever makes pods there, and by whatever way, has no more of them than the governor admitted, also
while no governor runs. It is charged before a record says so and freed after the pods are gone, as every account; what
it counts is noted on the object itself, with a version of its own, so that of two governors one fails.

What it must not do: decide, or count what a policy counts (accounts do): it counts pods as they are.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from shoal.errors import InfrastructureError, NotFoundError, RefusedError, StaleRecordError
from shoal.governor.actions import Scope
from shoal.governor.ports import AccountKey
from shoal.homes.kubernetes.caches import slim
from shoal.homes.kubernetes.errors import ObjectRefusedError, RightsError
from shoal.homes.kubernetes.names import (
    ADMITTED,
    GOVERNOR,
    GROUP,
    MANAGED,
    OF_PROJECT,
    OF_SYSTEM,
    QUOTA,
    Json,
    Object,
)
from shoal.homes.kubernetes.quantities import amount, spelled
from shoal.homes.kubernetes.structure import read, written
from shoal.project.targets import Beside
from shoal.quota.account import Account, Amounts

if TYPE_CHECKING:
    from shoal.homes.kubernetes.api import Api

_log = logging.getLogger("shoal.homes")
_ENTRIES, _COUNT = f"{GROUP}/admitted", f"{GROUP}/version"  # annotations
_AGAIN = 60.0  # s until a namespace is tried again whose quota may not be written
_IN_FORCE, _PAUSE = 0.2, 0.02  # s that the API server gets to go by what was written; until it is asked again


NOTHING = Beside()


def hard(held: Amounts, beside: Beside = NOTHING) -> dict[str, str]:
    """What the quota of a namespace gives where clusters hold that much (``quota.account.in_pods``)."""
    cores, memory = spelled(held.cores + beside.cores), spelled(held.memory + beside.memory)
    disk = spelled(held.scratch + beside.scratch)
    return {
        "pods": spelled(held.workers + beside.pods),
        "requests.cpu": cores,
        "limits.cpu": cores,
        "requests.memory": memory,
        "limits.memory": memory,
        "requests.ephemeral-storage": disk,
        "limits.ephemeral-storage": disk,
        "requests.nvidia.com/gpu": spelled(held.gpus),
    }


def quota_object(namespace: str, account: Account, version: int, beside: Beside = NOTHING) -> Object:
    """The quota that counts what the account holds."""
    entries = {uid: _sparse(its) for uid, its in account.admitted.items()}
    notes = {_ENTRIES: json.dumps(entries, separators=(",", ":")), _COUNT: str(version)}
    return {
        "apiVersion": QUOTA.group_version,
        "kind": QUOTA.name,
        "metadata": {
            "name": ADMITTED,
            "namespace": namespace,
            "annotations": notes,
        },
        "spec": {"hard": hard(account.held, beside)},
    }


def quota_read(found: Json) -> tuple[Account, int]:
    """What a quota counts, and its version; nothing, where somebody made its notes unreadable."""
    notes = found["metadata"].get("annotations", {})
    try:
        entries = json.loads(notes.get(_ENTRIES, "{}"))
        return Account({uid: read(Amounts, its) for uid, its in entries.items()}), int(notes[_COUNT])
    except (ValueError, KeyError, AttributeError, TypeError, InfrastructureError):
        return Account(), 0


def strays_from(found: Json, beside: Beside = NOTHING) -> bool:
    """Whether it gives anything else than what it counts: somebody edited it, or it is to give more ``beside`` that."""
    given, wanted = found["spec"].get("hard", {}), hard(quota_read(found)[0].held, beside)
    return _amounts(given) != _amounts(wanted)


def in_force(found: Json) -> bool:
    """Whether the API server goes by what it says: it does so a moment later."""
    said = _amounts(found.get("status", {}).get("hard", {}))
    return said == _amounts(found["spec"].get("hard", {}))


def _sparse(its: Amounts) -> Object:
    return {name: value for name, value in written(its).items() if value}


def _amounts(hard_: Json) -> dict[str, float | None]:
    return {name: amount(its) for name, its in hard_.items()}


class Quotas:
    """Those of all governed namespaces: ``there`` says which there are; ``wrote`` is told of each that is written."""

    def __init__(
        self, api: Api, system: str, there: Callable[[], Iterable[Object]], wrote: Callable[[Object], None]
    ) -> None:
        self._api, self._there, self._wrote = api, there, wrote
        self._labels, self._beside = {MANAGED: "shoal", OF_SYSTEM: system}, NOTHING
        self._seen: dict[str, Object] = {}
        self._lock = threading.Lock()
        self._right: dict[str, tuple[str, Beside]] = {}  # the version that gave what it counts
        self._counted: dict[str, tuple[Json, Account, int]] = {}
        self._apart: dict[str, float] = {}  # namespaces whose quota may not be written, and since when
        self._unlisted = False
        self.pending = False

    def look(
        self, project: str | None = None, beside: Beside = NOTHING
    ) -> dict[AccountKey, tuple[Account, int]]:
        """What each counts, with its version. ``project``: the one whose users' they are: `shoal apply` takes a quota
        away with its user. ``beside``: what else each is to give."""
        self.pending, self._beside = False, beside
        self._labels |= {OF_PROJECT: project} if project is not None else {}
        try:
            found = list(self._there())
        except RightsError as error:  # of an older Shoal
            if error.values.get("code") == 401:
                raise
            if not self._unlisted:
                _log.warning("no namespace's quota follows what is admitted there: %s", error)
            self._unlisted, self._seen = True, {}
            return {}
        self._unlisted = False
        self._seen = {each["metadata"]["namespace"]: each for each in found}
        self._counted = {namespace: self._read(namespace, each) for namespace, each in self._seen.items()}
        return {(Scope.QUOTA, namespace): its[1:] for namespace, its in self._counted.items()}

    def _read(self, namespace: str, found: Object) -> tuple[Json, Account, int]:
        """Once for as long as its notes stay as they are: what runs is counted there at every change of a pod."""
        notes, known = found["metadata"].get("annotations", {}), self._counted.get(namespace)
        return known if known is not None and known[0] == notes else (notes, *quota_read(found))

    def has(self, namespace: str) -> bool:
        """Whether clusters there are to be counted."""
        since = self._apart.get(namespace)
        return not self._unlisted and (since is None or time.monotonic() - since > _AGAIN)

    def bounding(self, clusters: Iterable[Json]) -> dict[str, str]:
        """Of these objects, by uid, the namespace whose quota counts them."""
        where = {each["metadata"]["uid"]: each["metadata"]["namespace"] for each in clusters}
        return {uid: namespace for uid, namespace in where.items() if self.has(namespace)}

    def write(self, namespace: str, account: Account, version: int) -> int:
        """Replace it if it still has the version that was seen (0: there is none).

        Raises:
            StaleRecordError: it has not; or it may not be written, and clusters there are counted nowhere for a while.
        """
        try:
            seen = self._seen.get(namespace)
            if version != (0 if seen is None else quota_read(seen)[1]):
                raise StaleRecordError(
                    f"quota {ADMITTED} of namespace {namespace} was changed by somebody else"
                )
            wanted = quota_object(namespace, account, version + 1, self._beside)
            if seen is None:
                self._saw(self._made(wanted))
            else:
                self._put(seen, wanted)
        except (RightsError, RefusedError, NotFoundError) as error:
            if error.values.get("code") == 401:
                raise
            _log.warning("the quota of namespace %s does not follow what is admitted: %s", namespace, error)
            self._apart[namespace] = time.monotonic()
            raise StaleRecordError(error.message) from error
        return version + 1

    def repair(self, namespaces: Iterable[str] = ()) -> None:
        """Those that somebody edited; and make one in each of ``namespaces`` that has none, which gives nothing."""
        for namespace, seen in list(self._seen.items()):
            here = seen["metadata"]["resourceVersion"], self._beside
            if self._right.get(namespace) == here:
                continue
            if not strays_from(seen, self._beside):
                self._right[namespace] = here
            elif self.has(namespace):
                account, version = quota_read(seen)
                _log.warning(
                    "the quota of namespace %s gave anything else: it gives what is admitted", namespace
                )
                self._write_or_not(namespace, account, version)
        for namespace in namespaces:
            if namespace not in self._seen and self.has(namespace):
                self._write_or_not(namespace, Account(), 0)

    def wait_for(self, namespace: str) -> None:
        """Before pods are made: until the API server goes by what it says. It does so in a moment, after each write.

        Raises:
            StaleRecordError: it did not in that time.
        """
        seen, begin, pause = self._seen.get(namespace), time.monotonic(), _PAUSE
        if seen is None or not self.has(namespace) or in_force(seen):
            return
        with contextlib.suppress(NotFoundError):  # where it is gone, it is in nobody's way
            while not in_force(seen := self._api.get(QUOTA.path(namespace, ADMITTED))):
                if time.monotonic() - begin > _IN_FORCE:
                    self._saw(seen)
                    self.pending = True
                    raise StaleRecordError(f"quota {ADMITTED} of namespace {namespace} is not in force yet")
                time.sleep(pause)
                pause *= 2
            self._saw(seen)

    def _write_or_not(self, namespace: str, account: Account, version: int) -> None:
        try:
            self.write(namespace, account, version)
        except (StaleRecordError, InfrastructureError) as error:
            _log.debug("the quota of %s is looked at again: %s", namespace, error)

    def _made(self, made: Object) -> Object:
        # Its name is in this request, so the right to make it is for that name alone. As nobody's before: where
        # another governor was quicker, and says anything else, this fails.
        path, who = QUOTA.path(made["metadata"]["namespace"], ADMITTED), f"{GOVERNOR}-{secrets.token_hex(4)}"
        made["metadata"]["labels"] = self._labels
        return self._api.patch(path, made, "apply", fieldManager=who, fieldValidation="Strict")

    def _saw(self, found: Object) -> None:
        """Several clusters' acts may be told of one, in any order: the last one counts."""
        namespace = found["metadata"]["namespace"]
        with self._lock:
            known = self._seen.get(namespace)
            same = known is not None and known["metadata"]["uid"] == found["metadata"]["uid"]
            if known is None or not same or _version(known) < _version(found):
                self._seen[namespace] = found
        self._wrote(found)

    def _put(self, seen: Object, wanted: Object) -> None:
        # By its uid and its notes alone: whenever pods come and go, what is used is counted in it.
        metadata = seen["metadata"]
        path, new = QUOTA.path(metadata["namespace"], ADMITTED), wanted["metadata"]["annotations"]
        notes = {name: metadata.get("annotations", {}).get(name) for name in new}
        paths = {name: "/metadata/annotations/" + name.replace("/", "~1") for name in new}
        change = [
            {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
            *({"op": "test", "path": paths[name], "value": its} for name, its in notes.items()),
            *({"op": "add", "path": paths[name], "value": its} for name, its in new.items()),
            {"op": "add", "path": "/spec/hard", "value": wanted["spec"]["hard"]},
        ]
        try:
            written = self._api.patch(path, change, "json")
        except ObjectRefusedError:  # a test failed; also where somebody took all of its annotations
            live = self._api.get(path)
            its = live["metadata"]
            there = its.get("annotations", {})
            if its["uid"] != metadata["uid"] or any(there.get(name) != was for name, was in notes.items()):
                namespace = metadata["namespace"]
                raise StaleRecordError(
                    f"quota {ADMITTED} of namespace {namespace} was changed by somebody else"
                ) from None
            its = its | {"annotations": there | new}
            written = self._api.replace(path, live | {"metadata": its, "spec": live["spec"] | wanted["spec"]})
        self._saw(slim(written))


def _version(found: Object) -> int:
    return int(found["metadata"]["resourceVersion"])
