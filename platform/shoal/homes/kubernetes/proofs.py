"""What home ``kubernetes`` proves of itself, for ``shoal doctor``: each by a call of its own, with what fixes it.

Why it exists: a person reads which right, which definition or which program is absent, not a traceback.

What it must not do: change anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from shoal.errors import NotFoundError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.errors import RightsError
from shoal.homes.kubernetes.in_force import NotAppliedError, standing_of
from shoal.homes.kubernetes.isolation import Isolation
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.names import (
    ACCESS,
    API_VERSION,
    CLUSTER,
    DASK_CLUSTER,
    DASK_WORKERS,
    GOVERNOR,
    GROUP,
    ISOLATION,
    LEASE,
    OURS,
    PROJECT,
    SECRET,
    VERSION,
)
from shoal.homes.kubernetes.periods import BEAT
from shoal.model.checks import Check, Failed, Warned
from shoal.model.workload import Via
from shoal.words import listed

OLDEST = (1, 30)  # ValidatingAdmissionPolicy is in its first stable version there
_ASKED = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_NEEDED = (
    ("create", CLUSTER.plural, GROUP, ""),
    ("patch", CLUSTER.plural, GROUP, ""),
    ("list", "pods", "", ""),
    ("create", "pods", "", "portforward"),
)


def _age(said: str) -> float:
    try:
        return time.time() - datetime.fromisoformat(said).timestamp()
    except ValueError:
        return float("inf")


def proofs(
    api: Callable[[], Api], location: Location, namespace: Callable[[], str], via: Via = Via.PODS
) -> Iterable[Check]:
    """Nothing is connected to before a check is called. ``via``: who makes pods there."""
    its = _Checks(api, location, namespace)
    return [
        ("API server", its.server),
        ("resource definitions", its.definitions),
        *([("Dask operator", its.operator)] if via is Via.OPERATOR else []),
        ("applied project", its.project),
        ("rights", its.rights),
        ("access", its.access),
        ("governor", its.governor),
        ("network", its.network),
    ]


class _Checks:
    """What is proved of one API server, as this account sees it."""

    def __init__(self, api: Callable[[], Api], location: Location, namespace: Callable[[], str]) -> None:
        self._api, self._location, self._namespace = api, location, namespace

    def server(self) -> str:
        answer = self._api().get("/version")
        version = int(answer["major"]), int("".join(each for each in answer["minor"] if each.isdigit()))
        if version < OLDEST:
            raise Failed(
                f"Kubernetes {answer['gitVersion']} is older than {OLDEST[0]}.{OLDEST[1]}: it has no "
                "ValidatingAdmissionPolicy",
                "Upgrade it, or choose another context in shoal.yaml.",
            )
        return f"{answer['gitVersion']} at {self._api().server}"

    def definitions(self) -> str:
        try:
            served = {each["name"] for each in self._api().get(f"/apis/{API_VERSION}")["resources"]}
        except NotFoundError:
            served = set()
        others = {each["version"] for each in self._group()} - {VERSION}
        if others and not served:
            raise Failed(
                f"{self._api().server} has our resources in {listed(sorted(others))}, and this Shoal speaks {VERSION}",
                "pip install --upgrade 'shoal[kubernetes]'",
            )
        absent = [kind.plural for kind in OURS if kind.plural not in served]
        if absent:
            raise Failed(
                f"{self._api().server} does not know {', '.join(absent)} ({API_VERSION})",
                "An administrator runs: shoal apply",
            )
        return f"{API_VERSION}: {', '.join(kind.plural for kind in OURS)}"

    def project(self) -> str:
        try:
            found, _ = self._api().list(PROJECT.path(self._location.system))
        except (RightsError, NotFoundError) as error:
            raise Failed(
                f"what is in force cannot be read: {error.message}",
                "An administrator runs `shoal apply`, which gives the right to.",
            ) from error
        if not found:
            error_ = NotAppliedError(self._location.system)
            raise Failed(error_.message, error_.hint)
        told, strays = list[str](), list[str]()
        for each in found:
            name, status = each["metadata"]["name"], standing_of(each)
            if status.fault:
                raise Failed(f"project {name}: {status.fault}", "Correct its files, then: shoal apply")
            if status.in_force != each["metadata"]["generation"]:
                raise Failed(
                    f"project {name} was applied, and no governor has taken it up",
                    "An administrator looks for the governor (see below).",
                )
            told.append(f"{name}, generation {status.in_force}")
            strays += status.drift
        if strays:
            raise Warned(
                f"somebody changed what was applied: {'; '.join(strays)}",
                "An administrator looks at it (shoal apply --dry-run) and puts it right: shoal apply",
            )
        return f"in force: {listed(told)}"

    def rights(self) -> str:
        lacking = []
        for verb, resource, group, sub in _NEEDED:
            asked = {"namespace": self._namespace(), "verb": verb, "resource": resource, "group": group}
            review = {"spec": {"resourceAttributes": asked | ({"subresource": sub} if sub else {})}}
            if not self._api().create(_ASKED, review)["status"]["allowed"]:
                lacking.append(f"{verb} {resource}{'/' + sub if sub else ''}")
        if lacking:
            raise Failed(
                f"in namespace {self._namespace()} this account may not: {', '.join(lacking)}",
                "An administrator names you in policies/users.yaml (with `subjects:`), then: shoal apply",
            )
        return f"all that is needed, in namespace {self._namespace()}"

    def access(self) -> str:
        try:
            self._api().get(SECRET.path(self._namespace(), ACCESS))
        except RightsError as error:
            raise Failed(
                f"this account may not read Secret {ACCESS} in {self._namespace()}: nothing can be connected to",
                "An administrator runs: shoal apply",
            ) from error
        except NotFoundError:
            return f"Secret {ACCESS} comes with the first cluster"
        return f"Secret {ACCESS} in namespace {self._namespace()}"

    def governor(self) -> str:
        system = self._location.system
        path = LEASE.path(system, GOVERNOR)
        fix = f"An administrator looks at it: kubectl describe deployment {GOVERNOR} --namespace {system}"
        try:
            seen = str(self._api().get(path)["spec"].get("renewTime", "never"))
        except (RightsError, NotFoundError) as error:
            raise Failed(f"no governor is seen in namespace {system}: {error.message}", fix) from error
        if _age(seen) > BEAT:  # by another machine's clock: whether it beats is seen here
            begin = time.monotonic()
            while (now := str(self._api().get(path)["spec"].get("renewTime", "never"))) == seen:
                if time.monotonic() - begin > BEAT:
                    raise Failed(f"the governor was last seen {seen}, and said nothing for {BEAT:.0f} s", fix)
                time.sleep(0.5)
            seen = now
        return f"last seen {seen} in namespace {system}"

    def network(self) -> str:
        try:
            lease = self._api().get(LEASE.path(self._location.system, GOVERNOR))
        except (RightsError, NotFoundError):
            lease = {"metadata": {}}
        said = str(lease["metadata"].get("annotations", {}).get(ISOLATION, ""))
        if not said:
            return (
                "whether NetworkPolicies are enforced here is not known: the governor tries it from its pod while a "
                "cluster is Ready"
            )
        if said.startswith(Isolation.OPEN.value):
            raise Warned(
                f"NetworkPolicies are {said}: pods of other users reach this place's clusters, and tokens and "
                "certificates alone keep them out",
                "An administrator installs or switches on a network plugin that enforces NetworkPolicies.",
            )
        return f"NetworkPolicies are {said}: the governor's pod reached what they permit, and nothing else"

    def operator(self) -> str:
        version = DASK_CLUSTER.group_version
        try:
            served = {each["name"] for each in self._api().get(f"/apis/{version}")["resources"]}
        except NotFoundError:
            served = set()
        if absent := [kind.plural for kind in (DASK_CLUSTER, DASK_WORKERS) if kind.plural not in served]:
            raise Failed(
                f"{self._api().server} does not know {', '.join(absent)} ({version}), and this target's clusters "
                "are made by dask-kubernetes' operator",
                "An administrator installs dask-kubernetes-operator; or write `via: pods` into shoal.yaml.",
            )
        return f"{version} is served; whether dask-kubernetes' operator runs is not seen from here"

    def _group(self) -> Any:
        try:
            return self._api().get(f"/apis/{GROUP}")["versions"]
        except NotFoundError:
            return []
