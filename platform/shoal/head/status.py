"""``GET /v1/status``: what the head tells about itself, to who holds its token.

Why it exists: CLI, notebook and governor ask the head, never Dask's comms or Spark's UI.

What it must not do: change anything.
"""

from __future__ import annotations

import hmac
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from shoal.machine.addresses import in_url, reachable


class StatusServer:
    """Serves ``status()`` as JSON at ``host`` and ``port`` (0: a free one); 401 without the bearer token."""

    def __init__(
        self, status: Callable[[], dict[str, Any]], token: str, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        expected = f"Bearer {token}".encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "").encode()
                if not hmac.compare_digest(given, expected):
                    self._answer(401, {"error": "the token is missing or wrong"})
                elif self.path != "/v1/status":
                    self._answer(404, {"error": "only /v1/status is served"})
                else:
                    self._answer(200, status())

            def _answer(self, code: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass  # one line per look would drown the head's log

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True

        self._server = Server((host, port), Handler)
        self.url = f"http://{in_url(reachable(host))}:{self._server.server_address[1]}/v1/status"
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
