"""The API server, as this home speaks to it: paths and plain objects, typed refusals, bounded retries.

Why it exists: 429, 5xx and cut connections are everyday there. What only reads is tried again; a write that got no
answer is of unknown outcome, and is looked up by whoever wrote it. Certificates and tokens are lightkube's, which reads
expired ones again.

What it must not do: know any kind of object.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError as NoSuchConfig

from shoal.errors import (
    InfrastructureError,
    NotFoundError,
    OutcomeUnknownError,
    ShoalError,
    StaleRecordError,
    UsageError,
)
from shoal.homes.kubernetes.clock import ServerClock
from shoal.homes.kubernetes.credentials import auth_of, trust
from shoal.homes.kubernetes.errors import ApiClosedError, ObjectRefusedError, RightsError, WatchOverError
from shoal.homes.kubernetes.kubeconfig import configured, proxy_of
from shoal.homes.kubernetes.names import Object

_log = logging.getLogger("shoal.homes")
Objects = list[Object]
_known: dict[tuple[int, str | None, str | None], Api] = {}
_TRIES = 15.0  # s for which a read is tried again
# A connection that is followed and silent: asked after 10 s, given up after three times 5 s without an answer.
_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
_SILENT = 60.0  # s without a byte, after which what is followed counts as cut
_LACKING = re.compile(r'\bUser "[^"]*" cannot ')  # how the API server begins what is about rights
_PATCHES = {
    "merge": "application/merge-patch+json",
    "apply": "application/apply-patch+yaml",
    "json": "application/json-patch+json",
}


class Api:
    """One account's view of one API server. Safe to use from several threads."""

    def __init__(self, config: SingleConfig) -> None:
        self.config = config
        self.server = str(config.cluster.server)
        context = trust(config)
        self.clock = clock = ServerClock()
        self._http = httpx2.Client(
            base_url=self.server,
            verify=context,
            auth=auth_of(config, context),
            timeout=httpx2.Timeout(20, connect=5),
            trust_env=False,
            proxy=proxy_of(config),
            event_hooks={"response": [lambda answer: clock.heard(answer.headers.get("date"))]},
            max_redirects=50,  # tries with another credential count as such; redirects are not followed
        )
        self._finalizer = weakref.finalize(self, self._http.close)
        self._lock = threading.Lock()
        self._in_use, self._closed = 0, threading.Event()
        self._watched: set[socket.socket] = set()

    @classmethod
    def of(cls, context: str | None = None) -> Api:
        """By kubectl's rules (``configured``).

        One for all in this process who ask for the same; a forked child makes its own.

        Raises:
            UsageError: no such file or context, or one that says too little.
        """
        key = os.getpid(), context, os.environ.get("KUBECONFIG")
        if (known := _known.get(key)) is not None:
            return known
        found = configured(context)
        try:
            return _known.setdefault(key, cls(found))
        except ImportError as error:  # of a package that a proxy of this kind needs
            raise UsageError(
                f"context {found.context_name!r} cannot be used: its proxy {proxy_of(found)} needs the package socksio",
                hint="pip install socksio",
            ) from error
        except (NoSuchConfig, OSError, ValueError) as error:  # a certificate or a proxy that is none
            raise UsageError(f"context {found.context_name!r} cannot be used: {error}") from error

    def again(self) -> Api:
        """Another one with connections of its own."""
        return Api(self.config)

    def close(self) -> None:
        """Give its connections back: watches end, and whoever asks from now on fails.

        A connection is closed once nobody is using it: under a thread that reads from it, its descriptor would become
        another connection's, of which that thread would then read.
        """
        with self._lock:
            self._closed.set()
            for each in self._watched:
                with suppress(OSError):  # the reader sees the end, and closes it itself
                    socket.socket.shutdown(each, socket.SHUT_RDWR)
            idle = self._in_use == 0
        if idle:
            self._finalizer()

    @contextmanager
    def _using(self) -> Iterator[None]:
        with self._lock:
            if self._closed.is_set():
                raise ApiClosedError(f"the connections to the API server at {self.server} were closed")
            self._in_use += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_use -= 1
                last = self._closed.is_set() and self._in_use == 0
            if last:
                self._finalizer()

    @contextmanager
    def _watching(self, answer: httpx2.Response) -> Iterator[None]:
        """What ``close`` wakes, and the kernel looks after: a way that is gone may say nothing for good."""
        connection = answer.extensions["network_stream"].get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _ALIVE.items():
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        with self._lock:
            if self._closed.is_set():
                raise ApiClosedError(f"the connections to the API server at {self.server} were closed")
            self._watched.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._watched.discard(connection)

    def _request(self, method: str, path: str, **more: Any) -> httpx2.Response:
        with self._using():
            return self._http.request(method, path, **more)

    def get(self, path: str, **params: str) -> Object:
        """One object; NotFoundError."""
        return dict(self._read("GET", path, params))

    def text(self, path: str, **params: str) -> str:
        """What is not JSON, as a log: one try, since a node that is away stays away for a while."""
        try:
            return str(_answer("GET", path, self._request("GET", path, params=params)))
        except (_AgainError, httpx2.HTTPError) as error:
            raise InfrastructureError(f"GET {path}: {error}") from error

    def lines(self, path: str, **params: str) -> Iterator[str]:
        """What is not JSON, line by line as it comes; InfrastructureError where it is cut, or long silent."""
        silent = httpx2.Timeout(_SILENT, connect=5)
        try:
            with (
                self._using(),
                self._http.stream("GET", path, params=params, timeout=silent) as answer,
                self._watching(answer),
            ):
                if answer.status_code >= 400:
                    answer.read()
                    _answer("GET", path, answer)
                rest = b""
                for some in answer.iter_bytes():
                    # At line feeds alone: what a progress bar writes over itself is one line.
                    *whole, rest = (rest + some).split(b"\n")
                    yield from (line.decode(errors="replace") for line in whole)
                if rest:
                    yield rest.decode(errors="replace")
        except (_AgainError, httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise InfrastructureError(f"GET {path}: {error}") from error

    def list(self, path: str, **params: str) -> tuple[list[Object], str]:
        """All objects, as they are now, and the version at which a watch goes on from there."""
        items: list[Object] = []
        version = ""
        for page, version in self.pages(path, **params):  # noqa: B007 - the last one's
            items += page
        return items, version

    def pages(self, path: str, **params: str) -> Iterator[tuple[Objects, str]]:
        """The same, a part after the other: of many objects nobody need hold all."""
        params = {"limit": "500", **params}
        while True:
            page = self._read("GET", path, params)
            yield page["items"], str(page["metadata"].get("resourceVersion", ""))
            if not (rest := page["metadata"].get("continue")):
                return
            params["continue"] = rest

    def create(self, path: str, body: Mapping[str, Any], **params: str) -> Object:
        """A new object; StaleRecordError where one of that name is."""
        return dict(self._write("POST", path, body, fieldValidation="Strict", **params))

    def replace(self, path: str, body: Mapping[str, Any]) -> Object:
        """The object as it is to be, if it still has the version that ``body`` says; else StaleRecordError."""
        return dict(self._write("PUT", path, body, fieldValidation="Strict"))

    def patch(self, path: str, body: Any, kind: str = "merge", **params: str) -> Object:
        """Some of its fields. ``kind``: merge, json, or apply."""
        return dict(self._write("PATCH", path, body, _PATCHES[kind], **params))

    def delete(self, path: str, uid: str | None = None, grace: int | None = None) -> Object | None:
        """End an object, and in the background what it owns; nothing happens where it is gone (None).

        ``uid``: of the one that is meant: another one of its name stays. ``grace``: seconds that it gets. What comes
        back of one that gets some is how it is now.
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            return dict(self._write("DELETE", path, options))
        except (NotFoundError, StaleRecordError):
            return None

    def watch(self, path: str, version: str, seconds: int = 60, **params: str) -> Iterator[Object]:
        """Changes since that version, as they come; ends after some time.

        Raises:
            WatchOverError: ``code`` is 410 where that version is too old, and 0 where the connection was cut.
        """
        asked = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", **params}
        asked["timeoutSeconds"] = str(seconds)
        timeout = httpx2.Timeout(seconds + 10, connect=5)
        try:
            with (
                self._using(),
                self._http.stream("GET", path, params=asked, timeout=timeout) as answer,
                self._watching(answer),
            ):
                if answer.status_code >= 400:
                    raise WatchOverError(f"watch of {path}: {answer.status_code}", code=answer.status_code)
                for line in answer.iter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        said = event["object"]
                        raise WatchOverError(
                            f"watch of {path}: {said.get('message')}", code=said.get("code", 0)
                        )
                    yield event
        except (httpx2.HTTPError, httpx2.StreamError, OSError, ValueError) as error:
            raise WatchOverError(f"watch of {path}: {error}", code=0) from error

    def _refuse_untrusted(self, error: BaseException) -> None:
        """InfrastructureError where trying again cannot help: a certificate stays as it is."""
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, ssl.SSLCertVerificationError):
            reason = reason.__cause__ or reason.__context__
        if reason is not None:
            raise InfrastructureError(
                f"{self.server} is not who the kubeconfig expects: {reason.verify_message}",
                hint="Its certificate-authority-data may be another cluster's, or an earlier one's: get it again.",
            ) from error

    def _read(self, method: str, path: str, params: Mapping[str, str]) -> Any:
        begin, pause = time.monotonic(), 0.1
        while True:
            try:
                return _answer(method, path, self._request(method, path, params=dict(params)))
            except (_AgainError, httpx2.HTTPError) as error:
                self._refuse_untrusted(error)
                if time.monotonic() - begin > _TRIES:
                    raise InfrastructureError(
                        f"the API server at {self.server} did not answer for {_TRIES:.0f} s: {error}",
                        hint="`kubectl get --raw /readyz` asks it the same way.",
                    ) from error
                wait = error.after if isinstance(error, _AgainError) and error.after else pause
                time.sleep(wait * _spread())
                pause = min(2.0, pause * 2)

    def _write(self, method: str, path: str, body: Any, kind: str = "application/json", **params: str) -> Any:
        begin, pause = time.monotonic(), 0.1
        while True:
            try:
                sent = self._request(
                    method, path, content=json.dumps(body), params=params, headers={"Content-Type": kind}
                )
                return _answer(method, path, sent)
            except httpx2.ConnectError as error:  # it was never sent
                self._refuse_untrusted(error)
                failed: Exception = error
            except httpx2.HTTPError as error:
                raise OutcomeUnknownError(
                    f"{method} {path}: no answer from {self.server}: {error}"
                ) from error
            except _AgainError as error:
                if not error.refused:
                    raise OutcomeUnknownError(f"{method} {path}: {error}", said=str(error)) from error
                failed = error
            if time.monotonic() - begin > _TRIES:
                raise InfrastructureError(
                    f"the API server at {self.server} did not take a change for {_TRIES:.0f} s: {failed}"
                ) from failed
            time.sleep(pause * _spread())
            pause = min(2.0, pause * 2)


def _spread() -> float:
    """So that those who failed together do not come again together."""
    return random.uniform(0.5, 1.5)  # noqa: S311 - no secret


class _AgainError(Exception):
    """It may be tried again. ``refused``: it was surely not done."""

    def __init__(self, text: str, *, refused: bool, after: float | None) -> None:
        super().__init__(text)
        self.refused, self.after = refused, after


def _answer(method: str, path: str, answer: httpx2.Response) -> Any:
    if answer.status_code < 400:
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text
    try:
        said = dict(answer.json())
    except ValueError:
        said = {}
    text = str(said.get("message") or answer.text.strip() or answer.reason_phrase)
    if answer.status_code == 429 or answer.status_code >= 500:
        after = answer.headers.get("retry-after", "")
        refused = answer.status_code == 429
        raise _AgainError(
            f"{answer.status_code} {text}", refused=refused, after=float(after) if after.isdigit() else None
        )
    if answer.status_code == 401:
        url = answer.request.url
        text = f"{url.scheme}://{url.netloc.decode()} does not take the kubeconfig's credentials: {text}"
    raise _refusal(method, path, answer.status_code, str(said.get("reason", "")), text)


def _refusal(method: str, path: str, code: int, reason: str, text: str) -> ShoalError:
    if code == 404:
        return NotFoundError(text, path=path)
    if code == 409:
        return StaleRecordError(text, reason=reason, path=path)
    if code == 403 and not _LACKING.search(text):
        return ObjectRefusedError(text, path=path)  # a policy or a quota, not a lack of rights
    if code in (401, 403):
        return RightsError(
            text,
            hint="`shoal doctor` tells which rights are lacking; `kubectl config current-context` says as whom."
            if code == 403
            else "They have expired, or are another cluster's: log in again, as `kubectl` needs it, too.",
            verb=method,
            path=path,
            code=code,
        )
    if code in (400, 422) or method != "GET":  # a webhook may say no with any of them
        return ObjectRefusedError(text, path=path)
    return InfrastructureError(f"{method} {path}: {code} {text}")
