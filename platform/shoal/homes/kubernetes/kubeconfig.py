"""Which API server, and as whom: what the kubeconfig says, as kubectl reads it, and how it is reached.

Why it exists: of what people have in theirs, lightkube reads no list of files, no proxy, no server name, no broken one
without a traceback. How its programs are asked is in ``credentials``.

What it must not do: ask the API server anything.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import msgspec
import yaml
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User, UserExec
from lightkube.core.exceptions import ConfigError as NoSuchConfig

from shoal.errors import UsageError
from shoal.homes.kubernetes.proxies import from_environment
from shoal.words import listed

_DEFAULT = "~/.kube/config"
_SHOWN = "`kubectl config get-contexts` shows what is there."
# What is relative in a file is so to the folder that the file is in.
_PATHS = {
    "clusters": ("cluster", ("certificate-authority",)),
    "contexts": ("context", ()),
    "users": ("user", ("client-certificate", "client-key", "tokenFile")),
}


class ApiServer(Cluster):
    """An API server, with how it is reached: by which proxy (``proxy-url``), and what name its certificate has to be
    for (``tls-server-name``), where that is not the address's."""

    proxy: str | None = msgspec.field(name="proxy-url", default=None)
    expected: str | None = msgspec.field(name="tls-server-name", default=None)


class Login(UserExec):
    """A program that gives credentials. ``wants_server``: it is told for which API server."""

    wants_server: bool = msgspec.field(name="provideClusterInfo", default=False)


class Person(User):
    """Who one is to an API server."""

    exec: Login | None = None


def proxy_of(config: SingleConfig) -> str | None:
    """By which proxy its server is reached; None: directly, as by the account of a pod."""
    if not isinstance(config.cluster, ApiServer):
        return None
    return config.cluster.proxy or from_environment(config.cluster.server, os.environ)


def name_of(config: SingleConfig) -> str | None:
    """What name its server's certificate has to be for; None: that of its address."""
    return (config.cluster.expected or None) if isinstance(config.cluster, ApiServer) else None


def told_to_program(config: SingleConfig) -> dict[str, object] | None:
    """What its program is told of the server, in the words of ``client.authentication.k8s.io``; None: nothing."""
    program = config.user.exec if config.user is not None else None
    if not isinstance(program, Login) or not program.wants_server:
        return None
    told: dict[str, object] = msgspec.to_builtins(config.cluster)
    if (file := told.pop("certificate-authority", None)) is not None:
        told.setdefault("certificate-authority-data", base64.b64encode(Path(str(file)).read_bytes()).decode())
    return told


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
        its = said["contexts"][chosen]["context"]
        server = msgspec.convert(said["clusters"][its["cluster"]]["cluster"], ApiServer)
        user = msgspec.convert(said["users"][its["user"]]["user"] if its.get("user") else {}, Person)
    except (KeyError, TypeError, ValueError, NoSuchConfig) as error:
        raise UsageError(f"context {chosen!r} of {where} cannot be used: {error}", hint=_SHOWN) from error
    assert found is not None, "it has this context"
    return found._replace(user=user, cluster=server)


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
                        inner[key] = _beside(file, inner[key])
                program = inner.get("exec") or {}
                if os.sep in program.get("command", ""):  # else it is looked for in PATH
                    program["command"] = _beside(file, program["command"])
                said[kind].setdefault(each["name"], {"name": each["name"], one: inner})
    except (OSError, UnicodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        fault = " ".join(str(error).split())
        raise UsageError(f"{file} is not a kubeconfig: {fault}", hint="Download it again.") from error


def _beside(file: Path, path: str) -> str:
    return str(file.absolute().parent / Path(path).expanduser())
