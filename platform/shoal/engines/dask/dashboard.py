"""Dask's web pages behind a secret path; what draws them is imported when somebody first looks.

Why it exists: Dask's pages (``/status``, ``/info``, ``/json``, ``/metrics`` of scheduler and workers) have no login,
and a port of 127.0.0.1 is open to every user of the machine. Here the path begins with a secret, which only the
cluster's owner is told. A cookie would not do: browsers send those of one port of a machine to all others, also to
another user's. And Bokeh takes a second to import, which most clusters never need.

A worker's pages are shown by way of the scheduler: a browser may have no way to the worker, and a link that leads past
the scheduler would tell the secret to whoever has the worker's address where the browser is.

What it must not do: change what a page shows.
"""

from __future__ import annotations

import asyncio
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
from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpclient import TCPClient
from tornado.web import ErrorHandler

from shoal.machine.pages import FIRST

_WORKER = re.compile(r"/proxy/(\d+)/([^/]+)/(.*)")  # how Dask's pages link to a worker's own
_REACHED = 5.0  # s that a worker's port may take to answer
_PIECE = 65536  # bytes that are passed on at once, at most


class Guard(HTTPServerConnectionDelegate):
    """Stands before the pages of a Dask scheduler or worker (``server``), which listen on its ``http_server``."""

    def __init__(self, server: Any, secret: str, pages: str) -> None:
        self._server = server
        self._secret = secret
        self._pages = pages
        self._drawn: asyncio.Task[None] | None = None
        self._flows: set[asyncio.Future[None]] = set()
        server.http_server.request_callback = self

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return _Passed(self, server_conn, request_conn)

    def inside(self, path: str) -> str | None:
        """The path as the pages know it; None without the secret."""
        given, _, rest = path.removeprefix("/").partition("/")
        return f"/{rest}" if hmac.compare_digest(given.encode(), self._secret.encode()) else None

    def of_worker(self, path: str) -> tuple[str, int, str] | None:
        """Host, port and path of the worker's page that is meant, if one is."""
        if (found := _WORKER.match(path)) is None:
            return None
        port, host, page = found.groups()
        # Only to where a worker of this cluster shows its pages: the secret goes along.
        for worker in getattr(self._server, "workers", {}).values():
            if (worker.host, str(worker.services.get("dashboard"))) == (host, port):
                return host, int(port), f"/{self._secret}/{page}"
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

    def keep(self, flow: asyncio.Future[None]) -> None:
        """Until it has ended: a loop alone would forget it."""
        self._flows.add(flow)
        flow.add_done_callback(self._flows.discard)

    def application(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        found: HTTPMessageDelegate = self._server.http_application.start_request(server_conn, request_conn)
        return found


class _Passed(HTTPMessageDelegate):
    """One request: refused, sent elsewhere, passed on to a worker, or handed on without the secret in its path."""

    def __init__(self, guard: Guard, server_conn: object, request_conn: HTTPConnection) -> None:
        self._guard, self._server_conn, self._connection = guard, server_conn, request_conn
        self._handler: HTTPMessageDelegate | None = None
        self._detached = False
        self._answer: tuple[int, str, dict[str, str]] = (404, "Not Found", {})

    async def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        assert isinstance(start_line, RequestStartLine)
        path = self._guard.inside(start_line.path)
        if path is None:
            return
        if path == "/":
            # A relative one starts from where the browser is, which may be behind a proxy.
            to = FIRST if start_line.path.endswith("/") else f"{start_line.path.lstrip('/')}/{FIRST}"
            self._answer = 302, "Found", {"Location": to}
            return
        if path.startswith("/proxy/"):
            if (worker := self._guard.of_worker(path)) is not None:
                await self._pass_on(start_line, headers, *worker)
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

    async def _pass_on(
        self, asked: RequestStartLine, headers: HTTPHeaders, host: str, port: int, path: str
    ) -> None:
        """To a worker, byte by byte from here on: so websockets go the same way."""
        try:
            there = await TCPClient().connect(host, port, timeout=_REACHED)
        except (OSError, StreamClosedError, TimeoutError) as error:
            self._answer = 502, f"The worker at {host}:{port} does not answer: {error}", {}
            return
        sent = headers.copy()
        if "Upgrade" not in sent:
            sent["Connection"] = "close"  # the next request may be another page's
        lines = [f"{asked.method} {path} {asked.version}", *(f"{k}: {v}" for k, v in sent.get_all()), "", ""]
        here = self._connection.detach()  # type: ignore[attr-defined]  # of HTTP/1, which this server speaks
        self._detached = True
        try:
            await there.write("\r\n".join(lines).encode("latin-1"))
        except StreamClosedError:
            here.close()
            return
        for one, other in ((here, there), (there, here)):
            self._guard.keep(asyncio.ensure_future(_flow(one, other)))

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return None if self._handler is None else self._handler.data_received(chunk)

    def finish(self) -> None:
        if self._handler is not None:
            self._handler.finish()
            return
        if self._detached:
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


async def _flow(one: IOStream, other: IOStream) -> None:
    """What comes from one side goes to the other, until either ends; then both do."""
    try:
        while True:
            await other.write(await one.read_bytes(_PIECE, partial=True))
    except StreamClosedError:
        one.close()
        other.close()
