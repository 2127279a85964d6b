"""Whom an API server is taken for, and who one is to it: certificates, tokens, and what a kubeconfig's program gives.

Why it exists: the requests and the tunnels of a process are made by two clients, which do the same by this. lightkube
runs no program of today's ``client.authentication.k8s.io/v1`` and takes no certificate of one; kr8s leaves its key in a
file.

What it must not do: read a kubeconfig, or ask the API server anything.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Generator, Mapping
from functools import partial
from typing import NamedTuple

import httpx2
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import User, UserExec

from shoal.homes.kubernetes.errors import RightsError
from shoal.homes.kubernetes.kubeconfig import name_of, told_to_program

_HELD = 25  # connections, more than a client keeps, that may still show a certificate which has expired


def trust(config: SingleConfig) -> ssl.SSLContext:
    """Whom it trusts, and what it shows of itself."""
    context: ssl.SSLContext = verify_cluster(
        config.cluster, config.user or User(), config.abs_file, trust_env=False
    )
    if (name := name_of(config)) is not None:
        _expect(context, name)
    return context


def _expect(context: ssl.SSLContext, name: str) -> None:
    """The server's certificate has to be for this name. Said here, and not by request, it counts behind a proxy too."""
    for method in ("wrap_socket", "wrap_bio"):
        wrap = getattr(context, method)
        named = partial(lambda wrap, *args, **more: wrap(*args, **more | {"server_hostname": name}), wrap)
        setattr(context, method, named)


def auth_of(config: SingleConfig, context: ssl.SSLContext) -> httpx2.Auth | None:
    """What its requests bear. ``context``: of its connections, which may have to show a certificate."""
    found: httpx2.Auth | None = program_of(config, context) or user_auth(config.user)
    return found


def program_of(config: SingleConfig, context: ssl.SSLContext) -> CredentialProgram | None:
    """The program that gives its credentials, if one does."""
    said = None if config.user is None else config.user.exec
    if said is None:
        return None
    return CredentialProgram(said, context, told_to_program(config))


class Credential(NamedTuple):
    """What a program gave: a token, or a certificate with its key (PEM), or both."""

    token: str = ""
    certificate: str = ""
    key: str = ""

    def __repr__(self) -> str:
        return "Credential()"

    def shown_by(self, context: ssl.SSLContext) -> None:
        """From its next connection on, ``context`` shows the certificate, if there is one."""
        if not self.certificate:
            return
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # OpenSSL reads one from files alone
            file.write(f"{self.certificate}\n{self.key}\n")
            file.flush()
            context.load_cert_chain(file.name)


class CredentialProgram(httpx2.Auth):
    """What the program gives that the kubeconfig names; asked again when the API server no longer takes it."""

    def __init__(
        self, said: UserExec, context: ssl.SSLContext, server: Mapping[str, object] | None = None
    ) -> None:
        self._said, self._context, self._server = said, context, server
        self._lock = threading.Lock()
        self._known: Credential | None = None

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """What it gave with the request, and what it gives next after a 401."""
        used = self.credential()
        _bears(request, used)
        if (yield request).status_code != 401:
            return
        used = self.credential(other_than=used)
        _bears(request, used)
        if not used.certificate:
            yield request
            return
        # A connection shows what it was made with: those that are kept are given up, until one is new.
        request.headers["Connection"] = "close"
        for _ in range(_HELD):
            if (yield request).status_code != 401:
                return

    def credential(self, other_than: Credential | None = None) -> Credential:
        """What it gave last, unless that is ``other_than`` this, which is no longer taken.

        Raises:
            RightsError: it cannot be run, or gives none.
        """
        with self._lock:
            if self._known is None or self._known == other_than:
                self._known = _asked(self._said, self._server)
                try:
                    self._known.shown_by(self._context)
                except (OSError, ValueError) as error:
                    self._known = None
                    raise _none(self._said, f"its certificate is none: {error}") from error
            return self._known


def _bears(request: httpx2.Request, used: Credential) -> None:
    if used.token:
        request.headers["Authorization"] = f"Bearer {used.token}"


def _asked(said: UserExec, server: Mapping[str, object] | None) -> Credential:
    terminal = os.isatty(0) and os.isatty(2)  # it may tell its user where to log in, and ask
    told = {
        "apiVersion": said.apiVersion,
        "kind": "ExecCredential",
        "spec": {"interactive": terminal} | ({} if server is None else {"cluster": server}),
    }
    env = os.environ | {"KUBERNETES_EXEC_INFO": json.dumps(told)}
    try:
        done = subprocess.run(
            [said.command, *(said.args or ())],
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
        status = json.loads(done.stdout)["status"]
        names = ("token", "clientCertificateData", "clientKeyData")
        found = Credential(*(str(status.get(name) or "") for name in names))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        unread = isinstance(error, KeyError | TypeError | AttributeError)
        raise _none(said, "its answer has no token and no certificate" if unread else str(error)) from error
    if not found.token and not (found.certificate and found.key):
        raise _none(said, "its answer has no token, and no certificate with its key")
    return found._replace(certificate=_pem(found.certificate), key=_pem(found.key))


def _pem(data: str) -> str:
    """Some programs give it as a kubeconfig has it."""
    if not data or "-----" in data:
        return data
    try:
        return base64.b64decode(data, validate=True).decode()
    except ValueError:
        return data  # OpenSSL says what is wrong


def _none(said: UserExec, fault: str) -> RightsError:
    line = " ".join([said.command, *(said.args or ())])
    return RightsError(
        f"the kubeconfig has credentials from {said.command!r}, which gave none: {fault}",
        hint=f"Log in again, and see what it says: {line}",
    )
