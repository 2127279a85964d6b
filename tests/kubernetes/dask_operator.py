"""dask-kubernetes' operator for one namespace: its definitions on the server, and its program as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from shoal.errors import NotFoundError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.names import DASK, DEFINITION

_KINDS = ("daskcluster", "daskworkergroup", "daskjob", "daskautoscaler")

_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_PORT = {**_OPEN, "properties": {"targetPort": {"type": "string"}}}  # as in theirs, which takes no number
_SERVICE = {**_OPEN, "properties": {"ports": {"type": "array", "items": _PORT}}}
_SPEC = {**_OPEN, "properties": {"scheduler": {**_OPEN, "properties": {"service": _SERVICE}}}}
_SCHEMA = {**_OPEN, "properties": {"spec": _SPEC}}


def define(api: Api) -> None:
    """Its kinds, as the package has them; until they are served.

    Their schemas refer to files that only its makers have, so here they take nearly anything.
    """
    folder = files("dask_kubernetes.operator.customresources")
    for name in _KINDS:
        found: dict[str, Any] = yaml.safe_load(folder.joinpath(f"{name}.yaml").read_text())
        for version in found["spec"]["versions"]:
            version["schema"] = {"openAPIV3Schema": _SCHEMA}
        path = DEFINITION.path(name=found["metadata"]["name"])
        api.patch(path, found, "apply", fieldManager="admin", force="true")
    deadline = time.monotonic() + 30
    while True:
        try:
            served = {each["kind"].lower() for each in api.get(f"/apis/{DASK}/v1")["resources"]}
        except NotFoundError:
            served = set()
        if served.issuperset(_KINDS):
            return
        assert time.monotonic() < deadline, f"only {served} are served after 30 s"
        time.sleep(0.1)


@contextmanager
def operator(kubeconfig: Path, namespace: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program, as its image runs it, for one namespace."""
    command = [sys.executable, "-m", "kopf", "run", "-m", "dask_kubernetes.operator.controller"]
    with log.open("ab") as said:
        running = subprocess.Popen(
            [*command, "--namespace", namespace],
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
            stdout=said,
            stderr=said,
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait(30)
