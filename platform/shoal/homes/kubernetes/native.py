"""Limits that the API server holds by itself, as admission policies for users' namespaces.

Why it exists: with every process of Shoal stopped, or with rights on pods that somebody else gave them, nobody passes
by what quotas count. Each policy is of one concern: what it holds can be told, and tried with and without it.

What it must not do: speak to a server.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from shoal.homes.kubernetes.names import (
    ADMISSION,
    ADMISSION_BINDING,
    CLUSTER,
    GOVERNOR,
    GROUP,
    HEAD_ACCOUNT,
    OF_SYSTEM,
    POD,
    USER,
    Json,
    Object,
)
from shoal.homes.kubernetes.pods import CONTAINER_SECURITY, POD_SECURITY

# An annotation of a pod that is only tried: which policies are to refuse it. It is none of a cluster's marks.
PROBE = f"policies.{GROUP}/probe"
IN_FORCE = "in-force"  # the policy that does
# What the API server adds where it is left out: these parts have one owner as a whole, and who brings the same objects
# by another tool would be told of a conflict.
_WHOLE: Json = {"objectSelector": {}, "matchPolicy": "Equivalent"}
_EVERYWHERE = "kube-system"  # whoever may do something there, as no user may, may do it in every namespace


class Concern(NamedTuple):
    """One policy. ``on``: what it is asked about: group, resource, operations. ``says``: what has to be so, and what is
    said where it is not; a sentence in quotes is an expression itself. ``names``: expressions by name. ``each``: a kind
    each of whose objects it is held against (``params``).
    """

    name: str
    on: tuple[tuple[str, str, tuple[str, ...]], ...]
    says: tuple[tuple[str, str], ...]
    names: Mapping[str, str] = {}
    each: tuple[str, str] | None = None


def governs(system: str, *, anybody: bool = False) -> str:
    """Whether it is the governor who asks: its own account, or one that may write the state of clusters everywhere.

    ``anybody``: somebody runs it otherwise, as whoever may write that state in this namespace.
    """
    name = f"system:serviceaccount:{system}:{GOVERNOR}"
    where = "request.namespace" if anybody else text(_EVERYWHERE)
    state = f"authorizer.group({text(GROUP)}).resource({text(CLUSTER.plural)}).subresource('status')"
    return (
        f"request.userInfo.username == {text(name)} || {state}.namespace({where}).check('update').allowed()"
    )


def everywhere(verb: str) -> str:
    """Whether who asks may do it in every namespace, as Kubernetes' own parts and administrators may."""
    asked = "authorizer.group(request.resource.group).resource(request.resource.resource)"
    return f"{asked}.subresource(variables.part).namespace({text(_EVERYWHERE)}).check({text(verb)}).allowed()"


def text(value: str) -> str:
    """A text as expressions have it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def among(values: Iterable[str]) -> str:
    """A list of texts, without what is there twice."""
    return "[" + ", ".join(text(each) for each in dict.fromkeys(values)) + "]"


def compiled(system: str, concerns: Sequence[Concern]) -> list[Object]:
    """The policies and their bindings, for the users' namespaces of one governor. The last one tells by a probe that
    all before it are in force."""
    made = [_policy(system, each) for each in concerns]
    made.append(_policy(system, _last(digest(made))))
    params = {f"{system}-{each.name}": each.each is not None for each in concerns}
    return [
        *made,
        *(_binding(system, each, each=params.get(each["metadata"]["name"], False)) for each in made),
    ]


def digest(policies: Iterable[Json]) -> str:
    """What these policies say, in short."""
    said = json.dumps([each["spec"] for each in policies], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def probe(policies: Iterable[Json]) -> Object | None:
    """A pod that the policies among these objects refuse once all of them are in force; None where there is none."""
    last = [each for each in policies if each["kind"] == ADMISSION.name]
    if not last:
        return None
    return {
        "apiVersion": POD.group_version,
        "kind": POD.name,
        "metadata": {"name": "shoal-probe", "annotations": {PROBE: digest(last[:-1])}},
        "spec": {
            "serviceAccountName": HEAD_ACCOUNT,
            "securityContext": dict(POD_SECURITY),
            "containers": [{"name": "none", "image": "none", "securityContext": dict(CONTAINER_SECURITY)}],
        },
    }


def _last(mark: str) -> Concern:
    tried = f"object.metadata.?annotations[{text(PROBE)}].orValue('')"
    said = f"the policies of Shoal {mark} are in force"
    return Concern(IN_FORCE, (("", "pods", ("CREATE",)),), ((f"{tried} != {text(mark)}", said),))


def _policy(system: str, its: Concern) -> Object:
    spec: Object = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [group],
                    "apiVersions": ["*"],
                    "resources": [resource],
                    "operations": list(operations),
                    "scope": "*",
                }
                for group, resource, operations in its.on
            ],
            **_WHOLE,
            "namespaceSelector": {},
        },
        "validations": [_validation(*each) for each in its.says],
    }
    if its.names:
        spec["variables"] = [{"name": name, "expression": said} for name, said in its.names.items()]
    if its.each is not None:
        spec["paramKind"] = {"apiVersion": its.each[0], "kind": its.each[1]}
    return {
        "apiVersion": ADMISSION.group_version,
        "kind": ADMISSION.name,
        "metadata": {"name": f"{system}-{its.name}"},
        "spec": spec,
    }


def _validation(expression: str, said: str) -> Object:
    # Without a reason it would be 422, which reads as if the object were at fault.
    found: Object = {"expression": expression, "reason": "Forbidden"}
    return found | ({"messageExpression": said} if said.startswith("'") else {"message": said})


def _binding(system: str, policy: Json, *, each: bool) -> Object:
    name = policy["metadata"]["name"]
    ours = [
        {"key": USER, "operator": "Exists"},
        {"key": OF_SYSTEM, "operator": "In", "values": [system]},
    ]
    spec: Object = {
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchExpressions": ours}, **_WHOLE},
    }
    if each:
        spec["paramRef"] = {"selector": {}, "parameterNotFoundAction": "Allow"}
    return {
        "apiVersion": ADMISSION_BINDING.group_version,
        "kind": ADMISSION_BINDING.name,
        "metadata": {"name": name},
        "spec": spec,
    }
