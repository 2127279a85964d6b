"""The definitions of our resources (CustomResourceDefinitions), made of the types that the code uses.

Why it exists: an administrator installs them (``shoal render``), and what the API server accepts is what we can read.

What it must not do: import a client.
"""

from __future__ import annotations

from typing import Any

from shoal.homes.kubernetes.applied import ProjectStatus, applied_schema, template_schema
from shoal.homes.kubernetes.names import (
    ACCOUNT,
    CLUSTER,
    GROUP,
    PROJECT,
    RECORD,
    REPORT,
    VERSION,
    Kind,
)
from shoal.homes.kubernetes.objects import HeadReport, Spec, Status
from shoal.homes.kubernetes.structure import Schema, schema_of
from shoal.model.names import LONGEST
from shoal.quota.account import Account

MOST_CLUSTERS = 500  # entries of one account, so that it stays far below what etcd takes of one object
_CONDITION = {
    "type": "object",
    "required": ["type", "status"],
    "properties": {
        "type": {"type": "string", "maxLength": 64},
        "status": {"type": "string", "maxLength": 16},
        "reason": {"type": "string", "maxLength": 64},
        "message": {"type": "string", "maxLength": 1024},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
    },
}
# What of a request may not change once it was made, whoever asks.
_FIXED = ("workload", "id", "tags", "project", "run", "applied", "template")


def definitions() -> list[Schema]:
    """All of them, as they are installed."""
    return [_cluster(), _account(), _report(), _project(), _record()]


def _cluster() -> Schema:
    spec, status = schema_of(Spec), schema_of(Status)
    spec["required"] = ["workload"]
    spec["properties"]["workload"]["required"] = ["template"]
    spec["properties"]["workload"]["properties"]["template"]["maxLength"] = 63
    spec["properties"]["replicas"] |= {"minimum": 1, "maximum": 100_000}
    spec["properties"]["groups"]["additionalProperties"] |= {"minimum": 0, "maximum": 100_000}
    spec["properties"]["lifetime"] |= {"minimum": 0}
    spec["properties"]["applied"]["maxLength"] = 63
    spec["properties"]["template"] = template_schema() | {"nullable": True}
    spec["x-kubernetes-validations"] = [
        {
            "rule": f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
            "message": f"{name} cannot change: end this cluster and ask for another one",
        }
        for name in _FIXED
    ] + [
        {
            "rule": "!has(oldSelf.stop) || (has(self.stop) && self.stop == oldSelf.stop)",
            "message": "it was asked to stop already",
        }
    ]
    status["properties"]["conditions"] = {
        "type": "array",
        "items": _CONDITION,
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    root = _object(spec=spec, status=status)
    root["x-kubernetes-validations"] = [
        {
            "rule": f"size(self.metadata.name) <= {LONGEST}",
            "message": f"the name of a cluster has at most {LONGEST} characters",
        }
    ]
    columns = [
        ("Engine", "string", ".status.plan.engine"),
        ("State", "string", ".status.state"),
        ("Reason", "string", ".status.reason"),
        ("Workers", "integer", ".status.workers"),
        ("Age", "date", ".metadata.creationTimestamp"),
        ("Price", "string", ".status.plan.pricePerHour.amount"),
    ]
    return _definition(
        CLUSTER,
        root,
        columns,
        scale={
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.workers",
        },
    )


def _account() -> Schema:
    spec = {
        "type": "object",
        "required": ["scope", "holder"],
        "properties": {
            "scope": {"type": "string", "enum": ["user", "team", "place"]},
            "holder": {"type": "string", "maxLength": 253},
        },
        "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "an account keeps its holder"}],
    }
    status = schema_of(Account, items=MOST_CLUSTERS)
    columns = [("Scope", "string", ".spec.scope"), ("Holder", "string", ".spec.holder")]
    return _definition(ACCOUNT, _object(spec=spec, status=status), columns)


def _report() -> Schema:
    said = schema_of(HeadReport, text=500)
    columns = [("State", "string", ".said.state"), ("Workers", "integer", ".said.workers")]
    return _definition(REPORT, _object(said=said), columns)


def _record() -> Schema:
    name, asked = {"type": "string", "maxLength": LONGEST}, schema_of(Spec)
    del asked["properties"]["template"]  # what came of it is in the plan
    root = _object(name=name, asked=asked, outcome=schema_of(Status))
    columns = [
        ("Cluster", "string", ".name"),
        ("Template", "string", ".asked.workload.template"),
        ("State", "string", ".outcome.state"),
        ("Reason", "string", ".outcome.reason"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ]
    return _definition(RECORD, root, columns)


def _project() -> Schema:
    status = schema_of(ProjectStatus)
    status["properties"]["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    status["properties"]["fault"]["maxLength"] = 8192
    spec = applied_schema()
    spec["x-kubernetes-map-type"] = "atomic"  # it is one thing: who applies it replaces the whole
    root = _object(spec=spec, status=status)
    root["required"] = ["spec"]
    columns = [
        ("In force", "integer", ".status.inForce"),
        ("Fault", "string", ".status.fault"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ]
    return _definition(PROJECT, root, columns)


def _object(**parts: Schema) -> Schema:
    return {"type": "object", "properties": parts}


def _definition(
    kind: Kind, root: Schema, columns: list[tuple[str, str, str]], scale: Schema | None = None
) -> Schema:
    subresources: dict[str, Any] = {"status": {}} if "status" in root["properties"] else {}
    if scale is not None:
        subresources["scale"] = scale
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": root},
        "additionalPrinterColumns": [
            {"name": name, "type": what, "jsonPath": path} for name, what, path in columns
        ],
    }
    if subresources:
        version["subresources"] = subresources
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.plural.removesuffix("s"),
                "shortNames": [kind.short],
            },
            "versions": [version],
        },
    }
