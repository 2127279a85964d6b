"""A package index of the test's own, with wheels that it makes."""

from __future__ import annotations

import base64
import functools
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Handler(SimpleHTTPRequestHandler):
    password = ""

    def do_GET(self) -> None:
        known = base64.b64encode(f"reader:{self.password}".encode()).decode()
        if self.password and self.headers.get("Authorization") != f"Basic {known}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path, host: str = "127.0.0.1", password: str = "") -> Iterator[str]:
    """Serves the folder as an index, to who knows its password; its URL, as pip is told it."""
    handler = type("Handler", (_Handler,), {"password": password})
    server = ThreadingHTTPServer((host, 0), functools.partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        reader = f"reader:{password}@" if password else ""
        yield f"http://{reader}{host}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def publish(folder: Path, name: str, version: str, *needs: str) -> None:
    """A wheel with one module, named as it is."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    facts += "".join(f"Requires-Dist: {each}\n" for each in needs)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / name / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}")
        wheel.writestr(f"{info}/METADATA", facts)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
