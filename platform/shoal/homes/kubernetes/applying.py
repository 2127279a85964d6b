"""Puts a project on a server: looks, says what would change, and changes it in an order in which nobody has too much.

Why it exists: what is in force is what an administrator applied, with their own rights, and nothing is half-made:
faults, owners and rights are looked at before anything is sent.

What it must not do: decide what is wanted (``manifests``) or what differs (``changes``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from shoal.errors import DeadlineError, NotFoundError, ShoalError, UsageError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.applied import name_of
from shoal.homes.kubernetes.changes import (
    KINDS,
    MANAGER,
    ObjectKey,
    Running,
    changes,
    kept,
    key_of,
    kind_of,
    others_of,
    path_of,
    refuse_other_release,
)
from shoal.homes.kubernetes.errors import ObjectRefusedError, RightsError
from shoal.homes.kubernetes.in_force import standing_of
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.manifests import cluster_wide, held, of_project
from shoal.homes.kubernetes.names import (
    ADMISSION,
    ADMISSION_BINDING,
    API_VERSION,
    BINDING,
    CLUSTER,
    DEFINITION,
    DEPLOYMENT,
    GOVERNOR,
    LEASE,
    MANAGED,
    NAMESPACE,
    NETWORK,
    OF_PROJECT,
    OF_SYSTEM,
    OURS,
    POD,
    PROJECT,
    QUOTA,
    ROLE_OF,
    SERVICE_ACCOUNT,
    Object,
)
from shoal.homes.kubernetes.native import PROBE, probe
from shoal.homes.kubernetes.objects import status_of
from shoal.model.outlook import Change, Outlook, What
from shoal.project.loading import Project
from shoal.words import listed

_log = logging.getLogger("shoal.homes")
_PRUNED = (
    NAMESPACE,
    SERVICE_ACCOUNT,
    QUOTA,
    NETWORK,
    ADMISSION,
    ADMISSION_BINDING,
    ROLE_OF,
    BINDING,
    DEPLOYMENT,
)
_HOLDING = (ADMISSION.name, ADMISSION_BINDING.name)
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_SERVED = 30.0  # s until the API server serves a kind that is new to it, or goes by a policy
_BLIND = 3.0  # s that it gets where this account may not try


class Applying:
    """One project, and one server as this account sees it."""

    def __init__(self, project: Project) -> None:
        self._location = Location.of(project.target)
        self._project, self.name = project, name_of(project)
        self._api = Api.of(self._location.context)

    def outlook(self) -> Outlook:
        """What would change; nothing is changed.

        Raises:
            UsageError: the policies there are another project's; the definitions are of another Shoal.
            RightsError: what this account may not, of all that would have to be done.
        """
        wanted = [*cluster_wide(self._location.system), *of_project(self._project)]
        live = {key_of(each): each for each in self._labelled()}
        mine = self.name, self._location.system
        ours = [
            key for key, each in live.items() if (_label(each, OF_PROJECT), _label(each, OF_SYSTEM)) == mine
        ]
        for each in wanted:
            key = key_of(each)
            if key not in live and (found := self._get(key)) is not None:
                live[key] = found
        refuse_other_release(live.values(), version("shoal"))
        self._refuse_second_owner(wanted)
        wanted = [kept(each, live.get(key_of(each))) for each in wanted]
        found_, waits = changes(wanted, live, ours, self._running())
        self._refuse_without_rights(found_)
        return Outlook(self.name, self._api.server, tuple(found_), tuple(waits))

    def apply(self, outlook: Outlook) -> None:
        """Do it. What can be tried before anything is changed is tried first, by the server itself."""
        there = {each["metadata"]["name"] for each in self._api.list(NAMESPACE.path())[0]}
        new = any(change.kind == DEFINITION.name for change in outlook.changes)
        ready = not new and self._served() >= {kind.plural for kind in OURS}
        for change in outlook.changes:
            known = (not change.namespace or change.namespace in there) and (
                ready or change.kind != PROJECT.name
            )
            if known and change.what is not What.REMOVED:
                self._send(change, dryRun="All")
        defined = holding = False
        for change in outlook.changes:
            if defined and change.kind != DEFINITION.name:
                self._wait_until_served()
                defined = False
            if holding and change.kind not in _HOLDING:
                self._wait_until_held()
                holding = False
            defined = defined or change.kind == DEFINITION.name
            holding = holding or (change.kind in _HOLDING and change.what is not What.REMOVED)
            if change.what is What.REMOVED:
                self._api.delete(path_of(change))
            else:
                self._send(change)

    def in_force(self, seconds: float = 0.0) -> tuple[int, int, str]:
        """The generation that is applied, the one that is in force, and the fault; waits for a governor to look."""
        begin = time.monotonic()
        if self._get((LEASE.name, self._location.system, GOVERNOR)) is None:
            seconds = 0.0  # there never was one
        while True:
            found = self._api.get(PROJECT.path(self._location.system, self.name))
            standing, applied = standing_of(found), int(found["metadata"]["generation"])
            if standing.observed >= applied or time.monotonic() - begin > seconds:
                return applied, standing.in_force, standing.fault
            time.sleep(0.2)

    def _send(self, change: Change, **more: str) -> None:
        said = {"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict", **more}
        if change.what is What.CHANGED and (others := others_of(change.kind)):
            self._api.patch(path_of(change), {"spec": others}, **more)
        self._api.patch(path_of(change), change.object, "apply", **said)

    def _labelled(self) -> Iterable[Object]:
        going = set[str]()  # namespaces, with what is in them
        for kind in _PRUNED:
            for each in self._api.list(kind.path(), labelSelector=f"{MANAGED}=shoal")[0]:
                metadata = each["metadata"]
                if "deletionTimestamp" in metadata:
                    going |= {metadata["name"]} if kind == NAMESPACE else set()
                elif metadata.get("namespace") not in going:
                    yield {"apiVersion": kind.group_version, "kind": kind.name} | each

    def _get(self, key: ObjectKey) -> Object | None:
        kind, namespace, name = key
        try:
            return self._api.get((LEASE if kind == LEASE.name else KINDS[kind]).path(namespace or None, name))
        except NotFoundError:
            return None

    def _running(self) -> list[Running]:
        try:
            found, _ = self._api.list(CLUSTER.path())
        except NotFoundError:
            return []
        running = []
        for each in found:
            status = status_of(each)
            if status is not None and not status.state.ended:
                metadata = each["metadata"]
                running.append(Running(metadata["namespace"], metadata["name"], status.owner))
        return running

    def _refuse_second_owner(self, wanted: Iterable[Object]) -> None:
        mine = next(each for each in wanted if each["kind"] == PROJECT.name)
        if "policies" not in mine["spec"]:
            return
        try:
            found, _ = self._api.list(PROJECT.path(self._location.system))
        except NotFoundError:
            return
        owners = [each["metadata"]["name"] for each in found if each["spec"].get("policies")]
        if others := [name for name in owners if name != self.name]:
            raise UsageError(
                f"the policies of this place are those of project {others[0]!r}, and project {self.name!r} brings "
                "policies, too: one project alone may",
                hint=f"Take policies/ out of this folder; or, if it is that project, write `kubernetes: {{project: "
                f"{others[0]}}}` into its target in shoal.yaml.",
            )

    def _refuse_without_rights(self, found: Iterable[Change]) -> None:
        """All that is lacking, before anything is sent."""
        asked = dict.fromkeys(
            (verb, kind_of(each), each.namespace)
            for each in found
            for verb in (("delete",) if each.what is What.REMOVED else ("patch", "create"))
        )
        everywhere: dict[tuple[str, str], bool] = {}
        lacking = []
        for verb, kind, namespace in asked:
            if (verb, kind.plural) not in everywhere:
                everywhere[verb, kind.plural] = self._may(verb, kind.plural, kind.group_version, "")
            if everywhere[verb, kind.plural] or (
                namespace and self._may(verb, kind.plural, kind.group_version, namespace)
            ):
                continue
            lacking.append(f"{verb} {kind.plural}" + (f" in {namespace}" if namespace else ""))
        if lacking:
            raise RightsError(
                f"{self._who()} may not: {listed(lacking)}. Nothing was changed.",
                hint="An administrator of that cluster runs `shoal apply`, or applies what `shoal render` prints.",
                lacking=lacking,
            )

    def _may(self, verb: str, plural: str, group_version: str, namespace: str) -> bool:
        group = group_version.partition("/")[0] if "/" in group_version else ""
        asked = {"verb": verb, "resource": plural, "group": group, "namespace": namespace}
        answer: Any = self._api.create(_REVIEWS, {"spec": {"resourceAttributes": asked}})
        return bool(answer["status"]["allowed"])

    def _who(self) -> str:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        return str(self._api.create(_WHO, review)["status"]["userInfo"]["username"])

    def _served(self) -> set[str]:
        try:
            return {each["name"] for each in self._api.get(f"/apis/{API_VERSION}")["resources"]}
        except NotFoundError:
            return set()

    def _wait_until_held(self) -> None:
        """Rights come after what restricts them: until a pod that is only tried is refused for that."""
        users = [each for each in of_project(self._project) if each["kind"] == NAMESPACE.name]
        tried = probe(held(self._project.target))
        if not users or tried is None:
            return
        path, begin = POD.path(users[0]["metadata"]["name"]), time.monotonic()
        while True:
            try:
                self._api.create(path, tried, dryRun="All")
            except RightsError:
                time.sleep(_BLIND)
                return
            except ObjectRefusedError as error:
                if tried["metadata"]["annotations"][PROBE] in error.message:
                    return
            except ShoalError as error:
                _log.debug("it is tried again: %s", error)
            if time.monotonic() - begin > _SERVED:
                raise DeadlineError(
                    f"{self._api.server} does not go by the admission policies of {self._location.system} after "
                    f"{_SERVED:.0f} s, so no rights were given",
                    hint="Run `shoal apply` again: it goes on from there.",
                )
            time.sleep(0.1)

    def _wait_until_served(self) -> None:
        begin, needed = time.monotonic(), {kind.plural for kind in OURS}
        while not needed <= self._served():
            if time.monotonic() - begin > _SERVED:
                raise DeadlineError(
                    f"{self._api.server} does not serve {listed(sorted(needed))} after {_SERVED:.0f} s",
                    hint="Run `shoal apply` again: it goes on from there.",
                )
            time.sleep(0.1)


def _label(each: Object, name: str) -> str:
    return str(each["metadata"].get("labels", {}).get(name, ""))
