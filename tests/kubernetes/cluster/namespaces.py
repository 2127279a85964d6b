"""A namespace for one test: makes things in it, looks at them, and sees that nothing of them stays."""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from . import waiting
from .api import Api, ApiError, Object
from .clusters import Cluster
from .errors import ClusterError, NotInTime

# What every namespace has by itself; events and leases of the past are no leftovers.
_ALWAYS = {("configmaps", "kube-root-ca.crt"), ("serviceaccounts", "default")}
_IGNORED = {"events", "endpoints", "endpointslices", "controllerrevisions", "localsubjectaccessreviews"}
_ENDED = ("Succeeded", "Failed")


class Namespace:
    """`name` on `cluster`, as admin. Objects made through it are deleted at the end, in reverse order."""

    def __init__(self, cluster: Cluster, admin: Api, labels: Mapping[str, str], hint: str = "") -> None:
        self.cluster, self.admin = cluster, admin
        plain = re.sub("[^a-z0-9]+", "-", hint.lower()).strip("-")[:40].strip("-") or "test"
        self.name = f"{plain}-{secrets.token_hex(3)}"
        self._made: list[str] = []
        metadata = {"name": self.name, "labels": {"shoal.test": "yes", **labels}}
        admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        accounts = self.path("serviceaccounts")
        waiting.until(
            f"the default service account of {self.name}", lambda: admin.items(accounts), seconds=30
        )

    def path(self, plural: str, name: str = "", group: str = "") -> str:
        """URL path of a collection here ("pods"), or of one object; group as in "apps/v1"."""
        root = f"/apis/{group}" if group else "/api/v1"
        return "/".join([root, "namespaces", self.name, plural, *([name] if name else [])])

    def here(self, item: Object) -> Object:
        """The same object, in this namespace."""
        return {**item, "metadata": {**item["metadata"], "namespace": self.name}}

    def create(self, item: Object, api: Api | None = None) -> Object:
        """Makes an object here (as `api`'s user) and remembers to delete it."""
        made = (api or self.admin).create(self.here(item))
        self._made.append(self.admin.path_of(made | {k: item[k] for k in ("apiVersion", "kind")}))
        return made

    def pod(self, name: str, image: str, command: list[str] | None = None, **more: Any) -> Object:
        """A pod of one container. more: `container={...}`, `spec={...}`, `labels={...}`, `env={...}`."""
        container = {
            "name": "main",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            **more.get("container", {}),
        }
        if command:
            container["command"] = command
        if "env" in more:
            container["env"] = [{"name": key, "value": value} for key, value in more["env"].items()]
        spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
        metadata = {"name": name, "labels": {"app": name, **more.get("labels", {})}}
        item = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {**spec, **more.get("spec", {})},
        }
        return self.create(item)

    def pods(self, selector: str = "") -> list[Object]:
        return self.admin.items(self.path("pods"), **({"labelSelector": selector} if selector else {}))

    def wait_pod(
        self,
        name: str,
        phase: str = "Running",
        seconds: float = 60,
        enough: Callable[[Object], bool] | None = None,
    ) -> Object:
        """The pod once it is in `phase` (Running: and ready), or `enough`. An early end is an error."""

        def look() -> Object:
            pod: Object = self.admin.get(self.path("pods", name))
            seen = pod["status"].get("phase")
            if enough is None and seen in _ENDED and seen != phase:
                raise ClusterError(f"pod {name} ended as {seen} instead of {phase}:\n{self.logs(name)}")
            return pod

        def done(pod: Object) -> bool:
            if pod["status"].get("phase") != phase:
                return False
            conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
            return phase != "Running" or conditions.get("Ready") == "True"

        return waiting.until(f"pod {name} is {phase}", look, enough or done, seconds)

    def logs(self, pod: str, **params: Any) -> str:
        """What the pod wrote; why there is nothing to read, where there is nothing."""
        try:
            return str(self.admin.get(self.path("pods", f"{pod}/log"), **params))
        except ApiError as refusal:
            return f"(no logs: {refusal.message})"

    def exec(self, pod: str, *command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs `command` in the pod; returns code, stdout and stderr."""
        line = self.cluster.kubectl("exec", f"--namespace={self.name}", pod, "--", *command)
        return subprocess.run(line, capture_output=True, text=True, timeout=seconds, check=False)

    @contextmanager
    def forward(self, target: str, port: int, seconds: float = 20) -> Iterator[int]:
        """Port-forwards to "pod/x" or "service/x"; gives the local port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            local = int(free.getsockname()[1])
        line = self.cluster.kubectl("port-forward", f"--namespace={self.name}", target, f"{local}:{port}")
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(line, stdout=said, stderr=said)
            try:

                def answers() -> bool:
                    if process.poll() is not None:
                        said.seek(0)
                        raise ClusterError(f"port-forward to {target} ended: {said.read().strip()}")
                    with suppress(OSError), socket.create_connection(("127.0.0.1", local), 1):
                        return True
                    return False

                waiting.until(f"port-forward to {target}:{port}", answers, seconds=seconds)
                yield local
            finally:
                process.kill()
                process.wait()

    def leftovers(self) -> list[str]:
        """What is here beyond what every namespace has, as plural/name."""
        found = []
        for path in self.admin.namespaced_resources():
            plural = path.rsplit("/", 1)[1]
            if plural in _IGNORED:
                continue
            names = [item["metadata"]["name"] for item in self.admin.items(path.format(self.name))]
            found += [f"{plural}/{name}" for name in names if (plural, name) not in _ALWAYS]
        return found

    def end(self, seconds: float = 60) -> None:
        """Deletes what was made here, waits until nothing is left, then deletes the namespace.

        Raises NotInTime naming what stayed: something that a test or its subject left behind.
        """
        try:
            for path in reversed(self._made):
                grace = {"gracePeriodSeconds": "1"} if "/pods/" in path else {}
                self.admin.delete(path, propagationPolicy="Background", **grace)
            try:
                waiting.until("empty", self.leftovers, lambda left: not left, seconds, 0.2)
            except NotInTime:
                raise NotInTime(
                    f"left behind in {self.name} after {seconds:.0f} s: {self.leftovers()}"
                ) from None
        finally:
            self.admin.delete(f"/api/v1/namespaces/{self.name}")

    def diagnosis(self) -> str:
        """Pods, their logs and the events, for the report of a failed test."""
        lines = []
        for pod in self.pods():
            name, status = pod["metadata"]["name"], pod["status"]
            states = [s.get("state") for s in status.get("containerStatuses", [])]
            lines.append(f"pod {name}: {status.get('phase')} {status.get('reason', '')} {states}")
            lines += [f"    | {line[:300]}" for line in self.logs(name, tailLines=40).splitlines()]
        for event in self.admin.items(self.path("events")):
            about = event["involvedObject"]
            lines.append(
                f"event {about['kind']}/{about['name']}: {event.get('reason')}: {event.get('message')}"
            )
        return "\n".join(lines) or "no pods and no events"
