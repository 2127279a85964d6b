"""A reverse proxy in front of the S3 server: it counts what is asked, and may throttle, refuse, cut and wait.

Signatures stay valid: what is signed, the host among it, is handed on as it came.
"""

from __future__ import annotations

import http.client
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it came in, and what became of it."""

    method: str
    bucket: str
    key: str
    query: str
    range: tuple[int, int] | None
    """The first and the last byte that were asked for."""
    signed_by: str
    """The access key."""
    status: int = 0
    sent: int = 0
    """Bytes of the answer's body."""
    received: int = 0
    """Bytes of the request's body."""

    @property
    def kind(self) -> str:
        """What S3 calls it, roughly: by the method, and by what the query says of multipart uploads."""
        for word in ("uploads", "partNumber", "uploadId", "list-type", "delete"):
            if re.search(rf"(?:^|&){word}(?:=|&|$)", self.query):
                return f"{self.method} {word}"
        return self.method


Answer = tuple[int, str]


@dataclass
class Fault:
    """What is done instead of handing a request on, to those that ``where`` is true of.

    ``answer``: a status and S3's code for it. ``cut``: the connection is closed, in the middle of the
    ``"request"``'s body or of the ``"answer"``'s. ``wait``: seconds before it is handed on. ``times``: how often
    in all (None: always); ``every``: only each so manieth of them, from the first on.
    """

    where: Callable[[Asked], bool]
    answer: Answer | None = None
    cut: str = ""
    wait: float = 0.0
    times: int | None = None
    every: int = 1
    seen: int = 0
    done: int = 0

    def fits(self, asked: Asked) -> bool:
        if (self.times is not None and self.done >= self.times) or not self.where(asked):
            return False
        self.seen += 1
        if (self.seen - 1) % self.every:
            return False
        self.done += 1
        return True


SLOW_DOWN: Answer = (503, "SlowDown")
ACCESS_DENIED: Answer = (403, "AccessDenied")
EXPIRED: Answer = (400, "ExpiredToken")


@dataclass
class S3Proxy:
    """``properties`` are what a catalog needs to go through it; ``asked`` is what it was asked since ``forget``."""

    behind: Any
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    most: int = 0
    """The most requests that were being answered at once."""
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _server: ThreadingHTTPServer | None = field(default=None, repr=False)

    @property
    def properties(self) -> dict[str, str]:
        return {**self.behind.properties, "s3.endpoint": f"http://127.0.0.1:{self.port}"}

    def forget(self) -> None:
        with self._lock:
            self.asked.clear()
            self.most = 0

    def of(self, kind: str = "", ending: str = "") -> list[Asked]:
        """The requests whose kind starts with ``kind`` and whose key ends with ``ending``."""
        with self._lock:
            return [a for a in self.asked if a.kind.startswith(kind) and a.key.endswith(ending)]

    def counts(self) -> Counter[str]:
        """How many there were of each kind."""
        return Counter(a.kind for a in self.of())

    @contextmanager
    def failing(self, *faults: Fault) -> Iterator[None]:
        """These faults, inside the block."""
        self.faults = list(faults)
        try:
            yield
        finally:
            self.faults = []

    def start(self) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def fault_of(self, asked: Asked) -> Fault | None:
        with self._lock:
            return next((fault for fault in self.faults if fault.fits(asked)), None)

    def note(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients that go away are nothing to tell
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: S3Proxy

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
            return
        if self.parse_request():
            with self.owner.counted():
                self._answer()
            self.wfile.flush()

    def log_message(self, *_: Any) -> None: ...

    def _answer(self) -> None:
        asked = self._parsed()
        fault = self.owner.fault_of(asked)
        if fault is not None and fault.wait:
            time.sleep(fault.wait)
        if fault is not None and fault.cut == "request":
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length // 2)
            self.owner.note(asked)
            self.close_connection = True
            return
        body = self._body()
        if fault is not None and fault.answer is not None:
            status, code = fault.answer
            content = (
                b""
                if self.command == "HEAD"
                else f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            )
            self.owner.note(_replaced(asked, status, len(content), len(body)))
            self._send(status, code, [("Content-Type", "application/xml")], content)
            return
        status, reason, headers, content = self._ask(body)
        if fault is not None and fault.cut == "answer" and self.command != "HEAD":
            self.owner.note(_replaced(asked, status, len(content) // 2, len(body)))
            # One more than there is: a lost answer without a body is noticed, too.
            self._head(status, reason, headers, len(content) or 1)
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        length = next((int(v) for k, v in headers if k.lower() == "content-length"), None)
        self.owner.note(_replaced(asked, status, len(content), len(body)))
        self._send(status, reason, headers, content, length if self.command == "HEAD" else None)

    def _parsed(self) -> Asked:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        signed = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization") or "")
        return Asked(
            self.command,
            bucket,
            key,
            parts.query,
            (int(wanted[1]), int(wanted[2])) if wanted else None,
            signed[1] if signed else "",
        )

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _ask(self, body: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
        onward = http.client.HTTPConnection("127.0.0.1", self.owner.behind.port, timeout=60)
        try:
            onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            chunked = "chunked" in (self.headers.get("Transfer-Encoding") or "")
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    onward.putheader(name, value)
            onward.putheader("Connection", "close")
            onward.endheaders(iter([body]) if chunked and body else body or None, encode_chunked=chunked)
            answer = onward.getresponse()
            return answer.status, answer.reason, answer.getheaders(), answer.read()
        finally:
            onward.close()

    def _head(self, status: int, reason: str, headers: list[tuple[str, str]], length: int) -> None:
        self.send_response_only(status, reason)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(
        self,
        status: int,
        reason: str,
        headers: list[tuple[str, str]],
        content: bytes,
        length: int | None = None,
    ) -> None:
        self._head(status, reason, headers, len(content) if length is None else length)
        self.wfile.write(content)


def _replaced(asked: Asked, status: int, sent: int, received: int) -> Asked:
    return replace(asked, status=status, sent=sent, received=received)
