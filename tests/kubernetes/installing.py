"""Puts rendered objects on an API server, as `kubectl apply --server-side` does."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shoal.errors import NotFoundError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.applied import Applied, name_of, project_object
from shoal.homes.kubernetes.manifests import held
from shoal.homes.kubernetes.names import (
    ACCESS,
    ADMISSION,
    ADMISSION_BINDING,
    API_VERSION,
    NAMESPACE,
    OF_SYSTEM,
    OURS,
    POD,
    REPORT,
    SECRET,
    SERVICE,
    USER,
)
from shoal.homes.kubernetes.native_clusters import notes
from shoal.project.loading import load

_PLURALS = {kind.name: kind.plural for kind in (*OURS, ADMISSION, ADMISSION_BINDING)}


def apply(api: Api, objects: Iterable[dict[str, Any]]) -> None:
    """Until they are there, and our kinds are served."""
    for each in objects:
        api.patch(_path(each), each, "apply", fieldManager="admin", force="true")
    deadline = time.monotonic() + 30
    while True:
        try:
            served = {one["name"] for one in api.get(f"/apis/{API_VERSION}")["resources"]}
        except NotFoundError:
            served = set()
        if {kind.plural for kind in OURS} <= served:
            return
        assert time.monotonic() < deadline, f"only {served} are served after 30 s"
        time.sleep(0.1)


def put_project(api: Api, folder: Path, system: str) -> None:
    """A project's files, as they are now, in the governor's namespace; and what the server is to refuse by them."""
    project = load(folder)
    for each in api.list(NAMESPACE.path(), labelSelector=f"{OF_SYSTEM}={system},{USER}")[0]:
        said = notes(project.policy.limits_of(each["metadata"]["annotations"][USER]))
        api.patch(NAMESPACE.path(name=each["metadata"]["name"]), {"metadata": {"annotations": said}})
    apply(api, [*held(project.target), project_object(name_of(project), system, Applied.of(project))])


def remove(api: Api, namespace: str, system: str) -> None:
    """A user's namespace, the governor's, its rights and its policies; the kinds stay."""
    for policies in (ADMISSION_BINDING, ADMISSION):
        for each in api.list(policies.path())[0]:
            if (name := each["metadata"]["name"]).startswith(f"{system}-"):
                api.delete(policies.path(name=name))
    for kind in ("clusterrolebindings", "clusterroles"):
        api.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{system}-governor")
    for name in (namespace, system):
        api.delete(f"/api/v1/namespaces/{name}")


def left_of_clusters(api: Api, namespace: str) -> list[str]:
    """What of clusters is there, by kind and name, but for their records."""
    found = []
    for kind in (POD, SERVICE, REPORT):
        listed, _ = api.list(kind.path(namespace))
        found += [f"{kind.plural}/{each['metadata']['name']}" for each in listed]
    entries = api.get(SECRET.path(namespace, ACCESS)).get("data", {})
    return found + [f"{ACCESS}/{entry}" for entry in entries]


def _path(each: dict[str, Any]) -> str:
    version, kind, metadata = each["apiVersion"], each["kind"], each["metadata"]
    plural = _PLURALS.get(kind, f"{kind.lower()}s")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    where = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{root}{where}/{plural}/{metadata['name']}"
