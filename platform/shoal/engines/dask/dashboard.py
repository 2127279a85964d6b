"""Dask's web pages behind a secret path; what draws them is imported when somebody first looks.

Why it exists: Dask's pages (``/status``, ``/info``, ``/json``, ``/metrics`` of scheduler and workers) have no login,
and a port of 127.0.0.1 is open to every user of the machine. Here the path begins with a secret, which only the
cluster's owner is told. A cookie would not do: browsers send those of one port of a machine to all others, also to
another user's. And Bokeh takes a second to import, which most clusters never need.

What it must not do: change what a page shows.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import importlib
import re
from collections.abc import Awaitable
from typing import Any

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.web import ErrorHandler

_FIRST = "status"  # the page that a link leads to
_WORKER = re.compile(r"/proxy/(\d+)/([^/]+)/([^?]*)")  # how Dask's pages link to a worker's own


def secret_of(key: str) -> str:
    """The secret of a cluster's pages, from its private key (PEM): scheduler and workers need not be told it."""
    digest = hmac.digest(key.encode(), b"dashboard", hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:18]).decode()


def link(port: int, secret: str, host: str = "127.0.0.1") -> str:
    """Where the pages are."""
    return f"http://{host}:{port}/{secret}/{_FIRST}"


class Guard(HTTPServerConnectionDelegate):
    """Stands before the pages of a Dask scheduler or worker (``server``), which listen on its ``http_server``."""

    def __init__(self, server: Any, secret: str, pages: str) -> None:
        self._server = server
        self._secret = secret
        self._pages = pages
        self._drawn: asyncio.Task[None] | None = None
        server.http_server.request_callback = self

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return _Passed(self, server_conn, request_conn)

    def inside(self, path: str) -> str | None:
        """The path as the pages know it; None without the secret."""
        given, _, rest = path.removeprefix("/").partition("/")
        return f"/{rest}" if hmac.compare_digest(given.encode(), self._secret.encode()) else None

    def elsewhere(self, path: str) -> str | None:
        """Where a request has to go instead, if it does."""
        if path == "/":
            return _FIRST
        if (found := _WORKER.match(path)) is None:
            return None
        port, host, page = found.groups()
        # Only to where a worker of this cluster shows its pages: the secret goes along.
        for worker in getattr(self._server, "workers", {}).values():
            if (worker.host, str(worker.services.get("dashboard"))) == (host, port):
                return f"http://{host}:{port}/{self._secret}/{page}"
        return None

    def has(self, request: HTTPServerRequest) -> bool:
        """Whether this is served without Bokeh: what Prometheus reads every few seconds is."""
        handler = self._server.http_application.find_handler(request)
        return not issubclass(handler.handler_class, ErrorHandler)

    async def drawn(self) -> str:
        """Until Bokeh's pages are there; why not, where they cannot be."""
        if self._drawn is None:
            self._drawn = asyncio.ensure_future(self._draw())
        try:
            await asyncio.shield(self._drawn)
        except ImportError as error:
            return f"Dask's pages need bokeh: python -m pip install 'bokeh>=3.6' ({error})"
        return ""

    async def _draw(self) -> None:
        module = await asyncio.to_thread(importlib.import_module, self._pages)
        server = self._server
        module.connect(server.http_application, server.http_server, server, prefix="/")

    def application(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        found: HTTPMessageDelegate = self._server.http_application.start_request(server_conn, request_conn)
        return found


class _Passed(HTTPMessageDelegate):
    """One request: refused, sent elsewhere, or handed on without the secret in its path."""

    def __init__(self, guard: Guard, server_conn: object, request_conn: HTTPConnection) -> None:
        self._guard, self._server_conn, self._connection = guard, server_conn, request_conn
        self._handler: HTTPMessageDelegate | None = None
        self._answer: tuple[int, str, dict[str, str]] = (404, "Not Found", {})

    async def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        assert isinstance(start_line, RequestStartLine)
        path = self._guard.inside(start_line.path)
        if path is None:
            return
        if (to := self._guard.elsewhere(path)) is not None:
            # A relative one starts from where the browser is, which may be behind a proxy.
            bare = to if start_line.path.endswith("/") or "/" in to else f"{start_line.path.lstrip('/')}/{to}"
            self._answer = 302, "Found", {"Location": bare}
            return
        inner = start_line._replace(path=path)
        request = HTTPServerRequest(start_line=inner, headers=headers, connection=self._connection)
        if not self._guard.has(request) and (missing := await self._guard.drawn()):
            self._answer = 503, missing, {}
            return
        self._handler = self._guard.application(self._server_conn, self._connection)
        waits = self._handler.headers_received(inner, headers)
        if waits is not None:
            await waits

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return None if self._handler is None else self._handler.data_received(chunk)

    def finish(self) -> None:
        if self._handler is not None:
            self._handler.finish()
            return
        code, said, more = self._answer
        body = f"{said}\n".encode()
        headers = HTTPHeaders(more | {"Content-Length": str(len(body)), "Content-Type": "text/plain"})
        self._connection.write_headers(
            ResponseStartLine("HTTP/1.1", code, said.partition(":")[0]), headers, body
        )
        self._connection.finish()

    def on_connection_close(self) -> None:
        if self._handler is not None:
            self._handler.on_connection_close()
