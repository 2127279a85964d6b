"""What home ``kubernetes`` proves of itself, for ``shoal doctor``: each by a call of its own, with what fixes it.

Why it exists: a person reads which right, which definition or which program is absent, not a traceback.

What it must not do: change anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shoal.errors import NotFoundError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.errors import RightsError
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.names import (
    ACCESS,
    API_VERSION,
    CLUSTER,
    GOVERNOR,
    GROUP,
    LEASE,
    OURS,
    SECRET,
)
from shoal.model.checks import Check, Failed

OLDEST = (1, 30)  # ValidatingAdmissionPolicy is in its first stable version there
_ASKED = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_NEEDED = (
    ("create", CLUSTER.plural, GROUP, ""),
    ("patch", CLUSTER.plural, GROUP, ""),
    ("list", "pods", "", ""),
    ("create", "pods", "", "portforward"),
)


def proofs(api: Callable[[], Api], location: Location, namespace: Callable[[], str]) -> Iterable[Check]:
    """Nothing is connected to before a check is called."""

    def server() -> str:
        answer = api().get("/version")
        version = int(answer["major"]), int("".join(each for each in answer["minor"] if each.isdigit()))
        if version < OLDEST:
            raise Failed(
                f"Kubernetes {answer['gitVersion']} is older than {OLDEST[0]}.{OLDEST[1]}: it has no "
                "ValidatingAdmissionPolicy",
                "Upgrade it, or choose another context in shoal.yaml.",
            )
        return f"{answer['gitVersion']} at {api().server}"

    def definitions() -> str:
        try:
            served = {each["name"] for each in api().get(f"/apis/{API_VERSION}")["resources"]}
        except NotFoundError:
            served = set()
        absent = [kind.plural for kind in OURS if kind.plural not in served]
        if absent:
            raise Failed(
                f"{api().server} does not know {', '.join(absent)} ({API_VERSION})",
                "An administrator runs: shoal render --target TARGET | kubectl apply --server-side -f -",
            )
        return f"{API_VERSION}: {', '.join(kind.plural for kind in OURS)}"

    def rights() -> str:
        lacking = []
        for verb, resource, group, sub in _NEEDED:
            asked = {"namespace": namespace(), "verb": verb, "resource": resource, "group": group}
            review = {"spec": {"resourceAttributes": asked | ({"subresource": sub} if sub else {})}}
            if not api().create(_ASKED, review)["status"]["allowed"]:
                lacking.append(f"{verb} {resource}{'/' + sub if sub else ''}")
        if lacking:
            raise Failed(
                f"in namespace {namespace()} this account may not: {', '.join(lacking)}",
                "Ask the administrator for a namespace of your own (`shoal render` prints its rights).",
            )
        return f"all that is needed, in namespace {namespace()}"

    def access() -> str:
        try:
            api().get(SECRET.path(namespace(), ACCESS))
        except RightsError as error:
            raise Failed(
                f"this account may not read Secret {ACCESS} in {namespace()}: nothing can be connected to",
                "Ask the administrator for the rights that `shoal render` prints.",
            ) from error
        except NotFoundError:
            return f"Secret {ACCESS} comes with the first cluster"
        return f"Secret {ACCESS} in namespace {namespace()}"

    def governor() -> str:
        try:
            lease = api().get(LEASE.path(location.system, GOVERNOR))
        except (RightsError, NotFoundError) as error:
            raise Failed(
                f"no governor is seen in namespace {location.system}: {error}",
                "An administrator runs `shoal governor`, or its Deployment (shoal render).",
            ) from error
        return f"last seen {lease['spec'].get('renewTime', 'never')} in namespace {location.system}"

    return [
        ("API server", server),
        ("resource definitions", definitions),
        ("rights", rights),
        ("access", access),
        ("governor", governor),
    ]
