"""What stays of a cluster once its object is gone: a record of its own, opened when it is admitted, closed at its end.

Why it exists: an object goes an hour after its cluster's end, or when somebody deletes it; what the cluster took is
asked for, and paid, months later. Its user may read the record and not touch it. A record has the same two parts as the
object, and is read by the same rule: fields that are new have a default, unknown ones are left out.

What it must not do: decide.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from shoal.errors import NotFoundError, ShoalError, StaleRecordError
from shoal.homes.kubernetes.errors import ObjectRefusedError, RightsError
from shoal.homes.kubernetes.location import Location, namespaces_of_users
from shoal.homes.kubernetes.names import ASKED_AS, CLUSTER, NAMED, OVER, RECORD, Json, Object
from shoal.homes.kubernetes.objects import Status, spec_of, status_of
from shoal.homes.kubernetes.periods import KUBERNETES
from shoal.homes.kubernetes.structure import written
from shoal.model.cluster import Reason, State
from shoal.model.status import Event

if TYPE_CHECKING:
    from shoal.homes.kubernetes.api import Api

_log = logging.getLogger("shoal.homes")
MOST = 1000  # records of one namespace: the newest ones stay
_AGAIN = (
    60.0  # s between two tries of what is refused: a place with definitions, or rights, of an earlier Shoal
)
_REFUSED = (NotFoundError, RightsError, ObjectRefusedError)
_TRIM = 6 * 3600.0  # s between two looks for records that are too old
_DELETED = "its object was deleted"
_OVER = "/metadata/labels/" + OVER.replace("/", "~1")


def record_object(found: Json, status: Status) -> Object:
    """The record of the cluster of this object, as ``status`` says."""
    metadata = found["metadata"]
    labels = {NAMED: metadata["name"], OVER: _said(status.state.ended)}
    if asked_as := metadata.get("labels", {}).get(ASKED_AS):
        labels[ASKED_AS] = asked_as
    return {
        "apiVersion": RECORD.group_version,
        "kind": RECORD.name,
        "metadata": {"name": metadata["uid"], "namespace": metadata["namespace"], "labels": labels},
        "name": metadata["name"],
        "asked": written(replace(spec_of(found), template=None)),
        "outcome": written(status),
    }


def as_object(record: Json) -> Object:
    """The cluster's object as it was at last."""
    its = record["metadata"]
    metadata = its | {"uid": its["name"], "name": record["name"]}
    return {"metadata": metadata, "spec": record["asked"], "status": record["outcome"]}


def without_object(status: Status, now: float) -> Status:
    """How it ended whose object is gone, by what was said of it at last."""
    event = Event(State.STOPPED, Reason.STOPPED_BY_USER, _DELETED, now)
    its = replace(status, state=event.state, reason=event.reason, message=event.message, since=now)
    return replace(its, ended_at=now, workers=0, turn=None, history=(*status.history[-47:], event))


def past(api: Api, namespace: str | None, **labels: str) -> list[Object]:
    """Clusters that have ended, as objects, of a namespace or of all; none where none are kept, or may be seen."""
    selector = ",".join(f"{name}={value}" for name, value in {OVER: _said(True), **labels}.items())
    try:
        return [as_object(each) for each in api.list(RECORD.path(namespace), labelSelector=selector)[0]]
    except (NotFoundError, RightsError):  # definitions, or rights, of an earlier Shoal
        return []


def newest(api: Api, namespace: str, name: str) -> Object | None:
    """The last one of that name; None where there is none."""
    found = past(api, namespace, **{NAMED: name})
    return max(found, key=lambda each: each["status"].get("created", 0.0), default=None)


def of_uid(api: Api, namespace: str, uid: str) -> Object | None:
    """The one of that uid; None where there is none."""
    try:
        record = api.get(RECORD.path(namespace, uid))
    except (NotFoundError, RightsError):
        return None
    return as_object(record) if record["metadata"]["labels"].get(OVER) == _said(True) else None


def of_id(api: Api, namespace: str, cluster_id: str) -> Object | None:
    """The one that was asked for as that, or has it as its uid; None where there is none."""
    found = past(api, namespace, **{ASKED_AS: cluster_id})
    return found[0] if found else of_uid(api, namespace, cluster_id)


def every(api: Api, namespace: str | None, *, ended: bool) -> list[Object]:
    """Clusters of a namespace or of all (RightsError); ``ended``: and those whose objects are gone."""
    found, _ = api.list(CLUSTER.path(namespace))
    there = {each["metadata"]["uid"] for each in found}
    gone = past(api, namespace) if ended else []
    return found + [each for each in gone if each["metadata"]["uid"] not in there]


def _said(over: bool) -> str:
    return "true" if over else "false"


class History:
    """The records of a place, as who governs it keeps them. A place that has no such kind yet keeps none."""

    def __init__(self, api: Api, location: Location) -> None:
        self._api, self._location = api, location
        self._open: dict[str, tuple[Object, Status]] = {}
        self._looked = False
        self._over: set[str] = set()
        self._again: dict[str, float] = {}  # by uid: when to try again what was refused
        self._trimmed = time.monotonic()

    def remember(self, found: Object, status: Status | None, *, remains: bool) -> None:
        """Open or close its record; an object whose end is recorded goes after its time. ``remains``: it has pods."""
        uid = found["metadata"]["uid"]
        if status is None:
            return
        costs = status.admitted_at is not None
        if costs and not (uid in self._over or (not status.state.ended and uid in self._open)):
            if time.monotonic() >= self._again.get(uid, 0.0):
                (self.end if status.state.ended else self._begin)(found, status)
        elif uid in self._open:
            self._open[uid] = found, status
        if not status.state.ended or remains or (costs and uid not in self._over):
            return
        if status.ended_at is not None and self._api.clock.now() - status.ended_at > KUBERNETES.ended:
            self._api.delete(CLUSTER.path(found["metadata"]["namespace"], found["metadata"]["name"]), uid)

    def _begin(self, found: Object, status: Status) -> None:
        """It is admitted: from now on it costs, whatever becomes of its object."""
        try:
            self._api.create(RECORD.path(found["metadata"]["namespace"]), record_object(found, status))
        except StaleRecordError:
            pass  # it is there
        except _REFUSED as error:
            self._refused(found, error)
            return
        self._open[found["metadata"]["uid"]] = found, status

    def end(self, found: Object, status: Status) -> None:
        """How it ended; may be said again."""
        record, uid = record_object(found, status), found["metadata"]["uid"]
        try:
            if not self._close(record):
                self._api.create(RECORD.path(record["metadata"]["namespace"]), record)
        except _REFUSED as error:
            self._refused(found, error)
            return
        self._over.add(uid)
        self._open.pop(uid, None)

    def _refused(self, found: Object, error: ShoalError) -> None:
        """Its object stays meanwhile, and nobody waits for it."""
        self._again[found["metadata"]["uid"]] = time.monotonic() + _AGAIN
        _log.warning("%s is not recorded yet: %s", found["metadata"]["name"], error.message)

    def look(self, there: Collection[str]) -> None:
        """Close the records of clusters whose objects somebody deleted; ``there``: uids of those that exist."""
        if not self._looked:
            self._open, self._looked = self._opened(), True
        self._over &= set(there)
        self._again = {uid: at for uid, at in self._again.items() if uid in there}
        for uid in self._open.keys() - set(there):
            found, status = self._open[uid]
            try:
                if not self._is_there(found):
                    self._close(
                        record_object(found, without_object(status, self._api.clock.now())), first=True
                    )
            except ObjectRefusedError as error:  # another governor was quicker
                _log.debug("the record of %s is left as it is: %s", found["metadata"]["name"], error)
            except ShoalError as error:
                _log.warning(
                    "the end of %s is not recorded yet: %s", found["metadata"]["name"], error.message
                )
                continue
            del self._open[uid]
        if time.monotonic() - self._trimmed > _TRIM:
            self._trimmed = time.monotonic()
            try:
                self._trim()
            except ShoalError as error:
                _log.info("old records stay for now: %s", error)

    def _opened(self) -> dict[str, tuple[Object, Status]]:
        """By uid: those that no governor has closed, with what was said of them at first."""
        found = {}
        for namespace in self._location.namespaces or (None,):
            try:
                records, _ = self._api.list(RECORD.path(namespace), labelSelector=f"{OVER}={_said(False)}")
            except (NotFoundError, RightsError):
                continue
            for each in map(as_object, records):
                if (status := status_of(each)) is not None:
                    found[each["metadata"]["uid"]] = each, status
        return found

    def _is_there(self, found: Object) -> bool:
        metadata = found["metadata"]
        try:
            there = self._api.get(CLUSTER.path(metadata["namespace"], metadata["name"]))
        except NotFoundError:
            return False
        return bool(there["metadata"]["uid"] == metadata["uid"])

    def _close(self, record: Object, *, first: bool = False) -> bool:
        """Whether there is one to close. ``first``: ObjectRefusedError where it is closed already."""
        path = RECORD.path(record["metadata"]["namespace"], record["metadata"]["name"])
        change: list[Object] = [
            {"op": "replace", "path": _OVER, "value": _said(True)},
            {"op": "replace", "path": "/outcome", "value": record["outcome"]},
            # Who set which field is half of an object, and nobody sets one any more: so the server forgets it.
            {"op": "replace", "path": "/metadata/managedFields", "value": [{}]},
        ]
        if first:
            change.insert(0, {"op": "test", "path": _OVER, "value": _said(False)})
        try:
            self._api.patch(path, change, "json")
        except NotFoundError:
            return False
        return True

    def _trim(self) -> None:
        """What is too old goes, and the oldest where there are too many."""
        long_ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._api.clock.now() - KUBERNETES.kept))
        for namespace in self._location.namespaces or namespaces_of_users(self._api, self._location.system):
            every, _ = self._api.list(RECORD.path(namespace), labelSelector=f"{OVER}={_said(True)}")
            made = sorted((each["metadata"]["creationTimestamp"], each["metadata"]["name"]) for each in every)
            for number, (at, uid) in enumerate(made):
                if at < long_ago or number < len(made) - MOST:
                    self._api.delete(RECORD.path(namespace, uid))
