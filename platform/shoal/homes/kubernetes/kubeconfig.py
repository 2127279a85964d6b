"""Which API server, and as whom: what the kubeconfig says, as kubectl reads it, and what its credential programs give.

Why it exists: of what people have in theirs, lightkube reads no list of files, no broken one without a traceback, and
runs no program of today's ``client.authentication.k8s.io/v1``.

What it must not do: ask the API server anything.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import User, UserExec
from lightkube.core.exceptions import ConfigError as NoSuchConfig

from shoal.errors import UsageError
from shoal.homes.kubernetes.errors import RightsError
from shoal.words import listed

_DEFAULT = "~/.kube/config"
_SHOWN = "`kubectl config get-contexts` shows what is there."
# What is relative in a file is so to the folder that the file is in.
_PATHS = {
    "clusters": ("cluster", ("certificate-authority",)),
    "contexts": ("context", ()),
    "users": ("user", ("client-certificate", "client-key", "tokenFile")),
}


def configured(context: str | None = None) -> SingleConfig:
    """By kubectl's rules: the files of KUBECONFIG, else ``~/.kube/config``, else the account of the pod.

    Raises:
        UsageError: no such file or context, or one that is not what it should be.
    """
    named = [Path(each).expanduser() for each in os.environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    files = [each for each in named or [Path(_DEFAULT).expanduser()] if each.is_file()]
    if not files and not named:
        try:
            found = KubeConfig.from_service_account().get()
            assert found is not None, "from_service_account names its own context"
        except (NoSuchConfig, OSError, KeyError):
            pass  # not in a pod
        else:
            return found
    if not files:
        absent = listed([str(each) for each in named] or [_DEFAULT])
        raise UsageError(
            f"no Kubernetes configuration: there is no file {absent}",
            hint=f"Set KUBECONFIG, or have {_DEFAULT}; {_SHOWN}",
        )
    said: dict[str, Any] = {"current-context": None} | {kind: {} for kind in _PATHS}
    for file in files:
        _add(said, file)
    where = listed([str(each) for each in files])
    chosen = context or said["current-context"]
    if not chosen:
        raise UsageError(f"{where} has no current context", hint=f"kubectl config use-context NAME; {_SHOWN}")
    if chosen not in said["contexts"]:
        raise UsageError(f"{where} has no context {chosen!r}", hint=_SHOWN)
    try:
        whole = said | {kind: list(said[kind].values()) for kind in _PATHS}
        found = KubeConfig.from_dict(whole).get(chosen)
    except (KeyError, TypeError, ValueError, NoSuchConfig) as error:
        raise UsageError(f"context {chosen!r} of {where} cannot be used: {error}", hint=_SHOWN) from error
    assert found is not None, "it has this context"
    return found._replace(user=found.user or User())


def _add(said: dict[str, Any], file: Path) -> None:
    """What an earlier file says counts."""
    try:
        text = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(text, dict):
            raise TypeError("it is empty" if text is None else "it is not a mapping")
        said["current-context"] = said["current-context"] or text.get("current-context")
        for kind, (one, paths) in _PATHS.items():
            for each in text.get(kind) or ():
                inner = each.get(one) or {}
                for key in paths:
                    if inner.get(key):
                        inner[key] = str(file.absolute().parent / Path(inner[key]).expanduser())
                said[kind].setdefault(each["name"], {"name": each["name"], one: inner})
    except (OSError, UnicodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        fault = " ".join(str(error).split())
        raise UsageError(f"{file} is not a kubeconfig: {fault}", hint="Download it again.") from error


def without_keys(config: SingleConfig) -> dict[str, Any]:
    """The same as a kubeconfig, without certificates and their keys (``trust`` has these)."""
    user, its = config.user or User(), dict[str, Any]()
    if user.token_file:
        its["token"] = Path(user.token_file).read_text().strip()
    elif user.token:
        its["token"] = user.token
    elif user.exec is not None:
        its["exec"] = msgspec.to_builtins(user.exec)
    name = "chosen"
    context = {"cluster": name, "user": name, "namespace": config.namespace}
    cluster = {"server": config.cluster.server}
    return {
        "current-context": name,
        "contexts": [{"name": name, "context": context}],
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": its}],
    }


def trust(config: SingleConfig) -> ssl.SSLContext:
    """Whom it trusts, and what it shows of itself."""
    return verify_cluster(config.cluster, config.user or User(), config.abs_file, trust_env=False)


class CredentialProgram(httpx2.Auth):
    """A token of the program that the kubeconfig names; asked again when the API server no longer takes it."""

    def __init__(self, said: UserExec) -> None:
        self._said = said
        self._lock = threading.Lock()
        self._token = ""

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Its token with the request, and a new one after a 401."""
        with self._lock:
            used = self._token = self._token or self._ask()
        request.headers["Authorization"] = f"Bearer {used}"
        if (yield request).status_code != 401:
            return
        with self._lock:
            if self._token == used:
                self._token = self._ask()
            used = self._token
        request.headers["Authorization"] = f"Bearer {used}"
        yield request

    def _ask(self) -> str:
        said = self._said
        terminal = os.isatty(0) and os.isatty(2)  # it may tell its user where to log in, and ask
        told = {
            "apiVersion": said.apiVersion,
            "kind": "ExecCredential",
            "spec": {"interactive": terminal},
        }
        env = os.environ | {"KUBERNETES_EXEC_INFO": json.dumps(told)}
        line = [said.command, *(said.args or ())]
        try:
            done = subprocess.run(
                line,
                env=env | {each.name: each.value for each in said.env or ()},
                stdin=None if terminal else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if terminal else subprocess.PIPE,
                text=True,
                check=False,
            )
        except OSError as error:
            raise RightsError(
                f"the kubeconfig has credentials from {said.command!r}, which cannot be run: {error.strerror}",
                hint=said.installHint or f"Install {said.command}, or choose another context.",
            ) from error
        try:
            if done.returncode != 0:
                raise ValueError(f"exit code {done.returncode}: {(done.stderr or '').strip()}")
            return str(json.loads(done.stdout)["status"]["token"])
        except (ValueError, KeyError, TypeError) as error:
            fault = "its answer has no token" if isinstance(error, KeyError | TypeError) else str(error)
            raise RightsError(
                f"the kubeconfig has credentials from {said.command!r}, which gave none: {fault}",
                hint=f"Log in again, and see what it says: {' '.join(line)}",
            ) from error
