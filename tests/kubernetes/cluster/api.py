"""A thin client of the API server for tests: paths in, plain dictionaries out, typed refusals.

It hides nothing: no caches, no retries, so that a test sees what the server said.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from .errors import Unavailable

Object = dict[str, Any]
_PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class ApiError(Exception):
    """The API server refused: `status` is the HTTP code, `reason` its own word, the text its sentence."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


class Api:
    """One user's view of one API server."""

    def __init__(self, server: str, context: ssl.SSLContext, headers: dict[str, str] | None = None) -> None:
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=16)  # more make httpx slower
        self._server, self._context, self._headers = server, context, headers or {}
        self._http = httpx.Client(
            base_url=server, verify=context, headers=self._headers, limits=limits, timeout=30, trust_env=False
        )
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}

    @classmethod
    def from_kubeconfig(cls, file: Path) -> Api:
        """With the current context's certificate or token. Raises Unavailable for credential plugins."""
        config = yaml.safe_load(file.read_text())

        def named(kind: str, name: str) -> Object:
            return next(entry[kind] for entry in config[f"{kind}s"] if entry["name"] == name)

        chosen = named("context", config["current-context"])
        cluster, user = named("cluster", chosen["cluster"]), named("user", chosen["user"])
        if "exec" in user or "auth-provider" in user:
            raise Unavailable(
                f"{file}: a credential plugin; make a kubeconfig with a certificate or token for tests"
            )

        def pem(owner: Object, key: str) -> bytes | None:
            if f"{key}-data" in owner:
                return base64.b64decode(owner[f"{key}-data"])
            return (file.parent / owner[key]).read_bytes() if key in owner else None

        authority = pem(cluster, "certificate-authority")
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        certificate, key = pem(user, "client-certificate"), pem(user, "client-key")
        if certificate and key:
            with tempfile.NamedTemporaryFile() as both:  # ssl reads certificates from files alone
                both.write(certificate + b"\n" + key)
                both.flush()
                context.load_cert_chain(both.name)
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        return cls(cluster["server"], context, headers)

    def impersonating(self, user: str, groups: tuple[str, ...] = ()) -> Api:
        """The same server as another user, for clusters whose users we cannot make."""
        other = Api(self._server, self._context, {**self._headers, "Impersonate-User": user})
        other._http.headers = httpx.Headers(
            [*other._http.headers.multi_items(), *(("Impersonate-Group", group) for group in groups)]
        )
        return other

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, body: Any = None, content_type: str = "", **params: Any) -> Any:
        """The decoded JSON answer, or text where the server sends no JSON. Raises ApiError from 400 on."""
        headers = {"Content-Type": content_type or "application/json"} if body is not None else {}
        answer = self._http.request(method, path, json=body, params=params, headers=headers)
        if answer.status_code >= 400:
            try:
                said = answer.json()
            except ValueError:
                said = {}
            raise ApiError(answer.status_code, said.get("reason", ""), said.get("message", answer.text))
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text

    def get(self, path: str, **params: Any) -> Any:
        return self.request("GET", path, **params)

    def items(self, path: str, **params: Any) -> list[Object]:
        return list(self.get(path, **params)["items"])

    def create(self, item: Object, **params: Any) -> Object:
        """POST; the path follows from apiVersion, kind and namespace."""
        made: Object = self.request("POST", self.path_of(item, collection=True), item, **params)
        return made

    def apply(self, item: Object, **params: Any) -> Object:
        """Server-side apply as field manager "tests"."""
        params = {"fieldManager": "tests", "force": "true", **params}
        made: Object = self.request("PATCH", self.path_of(item), item, _PATCHES["apply"], **params)
        return made

    def patch(self, path: str, body: Any, kind: str = "merge", **params: Any) -> Object:
        """kind: merge, json or strategic."""
        patched: Object = self.request("PATCH", path, body, _PATCHES[kind], **params)
        return patched

    def delete(self, path: str, **params: Any) -> None:
        """Deletes; that there was nothing to delete is no error."""
        try:
            self.request("DELETE", path, **params)
        except ApiError as refusal:
            if refusal.status != 404:
                raise

    def path_of(self, item: Object, collection: bool = False) -> str:
        """The object's URL path, by the server's own discovery."""
        version, metadata = item["apiVersion"], item["metadata"]
        plural, namespaced = self._resource(version, item["kind"])
        parts = [self._root(version)]
        if namespaced:
            parts += ["namespaces", metadata.get("namespace", "default")]
        parts.append(plural)
        return "/".join(parts if collection else [*parts, metadata["name"]])

    @staticmethod
    def _root(version: str) -> str:
        return f"/apis/{version}" if "/" in version else f"/api/{version}"

    def _resource(self, version: str, kind: str) -> tuple[str, bool]:
        if kind not in self._resources.get(version, {}):
            found = self.get(self._root(version))["resources"]
            self._resources[version] = {
                each["kind"]: (each["name"], each["namespaced"]) for each in found if "/" not in each["name"]
            }
        return self._resources[version][kind]

    def namespaced_resources(self) -> Iterator[str]:
        """The collection paths, with "{}" for the namespace, of all that can be listed in a namespace."""
        groups = self.get("/apis")["groups"]
        for version in ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]:
            for each in self.get(self._root(version))["resources"]:
                if each["namespaced"] and "/" not in each["name"] and "list" in each["verbs"]:
                    yield f"{self._root(version)}/namespaces/{{}}/{each['name']}"
