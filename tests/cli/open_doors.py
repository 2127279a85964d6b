"""The control of a scan: somebody's process that tells everybody everything, in each language of a cluster.

Prints one line of JSON, what each port speaks, and ends when its folder gets a file named ``stop``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import socketserver
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any


def serve(answer: Callable[[Any], None]) -> int:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(5)
            with suppress(OSError):
                answer(self.request)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def page(there: socket.socket) -> None:
    if there.recv(4096).startswith(b"GET /status "):
        there.sendall(b"HTTP/1.1 200 OK\r\n\r\n<title>Dask</title>")


def status(there: socket.socket) -> None:
    if there.recv(4096).startswith(b"GET /v1/status "):
        there.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"clients": 1}')


def file(there: socket.socket) -> None:
    """As Spark's driver answers: a header, then the file."""
    if (asked := there.recv(4096))[8:9] == b"\x06":
        there.sendall(bytes(16) + asked[13:] + Path("/etc/hostname").read_bytes())


def tls(folder: str) -> Callable[[socket.socket], None]:
    from shoal.machine.certificate import make_certificate

    pem = Path(folder, "own.pem")
    pem.write_text("".join(make_certificate("alice")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["h2"])

    def answer(there: socket.socket) -> None:
        with context.wrap_socket(there, server_side=True) as inside:
            inside.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            inside.recv(4096)

    return answer


def connect() -> int:
    import grpc
    from pyspark.sql.connect.proto import base_pb2, base_pb2_grpc

    class Open(base_pb2_grpc.SparkConnectServiceServicer):  # type: ignore[misc]
        def AnalyzePlan(self, request: Any, context: Any) -> Any:
            return base_pb2.AnalyzePlanResponse(session_id=request.session_id)

    server = grpc.server(ThreadPoolExecutor(2))
    base_pb2_grpc.add_SparkConnectServiceServicer_to_server(Open(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    connect.server = server  # type: ignore[attr-defined]  # a collected one stops
    return int(port)


async def main() -> None:
    from distributed.core import Server

    logging.disable()  # what strangers say is nonsense to most of these
    os.umask(0)
    with tempfile.TemporaryDirectory(prefix="shoal-open-") as folder:
        os.chmod(folder, 0o755)
        tempfile.tempdir = folder  # Dask's locks as well
        Path(folder, "diary").write_text("mine")
        dask = Server({})
        await dask.listen("tcp://127.0.0.1:0")
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(f"{folder}/socket")
        unix.listen()
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind(f"\0{folder}")
        abstract.listen()
        ports = {
            serve(lambda there: there.sendall(b"220 ready")): "nothing said",
            serve(page): "pages",
            serve(status): "status",
            serve(file): "file",
            serve(tls(folder)): "tls",
            dask.port: "dask",
            connect(): "connect",
        }
        print(json.dumps({"ports": ports, "folder": folder}), flush=True)
        while not Path("stop").exists():
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)
