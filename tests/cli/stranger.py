"""What another user of the machine may try, and what they are told: run by them, with what was found as JSON.

Every port is spoken to in every language that a cluster speaks. Prints one line of JSON: ``told``, what was
attempted -> what came back, and ``done``, how many attempts were made.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

WAIT = 3.0  # s for an answer
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_REFUSED = (b"", b"Not Found", b'{"error": "the token is missing or wrong"}')


def harmless(data: bytes) -> bool:
    """An alert of TLS, HTTP/2's greeting and good-bye, or a refusal of HTTP: nothing that is anybody's."""
    if not data or data[:1] == b"\x15":
        return True
    if data.startswith(b"HTTP/"):
        status = int(data[9:12])
        return status in (400, 401, 403, 404) and data.partition(b"\r\n\r\n")[2].strip() in _REFUSED
    while data:  # frames: SETTINGS, PING, GOAWAY, WINDOW_UPDATE
        if len(data) < 9 or data[3] not in (4, 6, 7, 8):
            return False
        data = data[9 + int.from_bytes(data[:3], "big") :]
    return True


def said(port: int, first: bytes) -> bytes:
    """What comes back, as far as it is more than a refusal."""
    data = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as there:
            there.settimeout(WAIT)
            there.sendall(first)
            while len(data) < 1 << 20 and (part := there.recv(65536)):
                data += part
    except OSError:  # refused, or nothing more comes
        pass
    return b"" if harmless(data) else data


def get(path: str) -> Callable[[int], bytes]:
    return lambda port: said(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


def file_of_spark(port: int) -> bytes:
    """As Spark's executors ask their driver for a file, without a key."""
    name = b"/artifacts/../../../../../../../../etc/hostname"
    asked = bytes([6]) + len(name).to_bytes(4, "big") + name
    answer = said(port, (8 + len(asked)).to_bytes(8, "big") + asked)
    return answer if open("/etc/hostname", "rb").read().strip() in answer else b""


def tls(pem: str | None) -> Callable[[int], bytes]:
    """gRPC's first words over TLS; ``pem``: a key of their own, as for a cluster of their own."""

    def attempt(port: int) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        if pem:
            context.load_cert_chain(pem)
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=WAIT) as plain,
                context.wrap_socket(plain) as there,
            ):
                there.sendall(_GREETING)
                return there.recv(4096)  # after a handshake that both sides accept, anything is too much
        except OSError:
            return b""

    return attempt


async def dask(port: int) -> Any:
    from distributed.comm import connect

    try:
        comm = await connect(f"tcp://127.0.0.1:{port}", timeout=WAIT)
        await comm.write({"op": "identity", "reply": True})
        return await comm.read()
    except Exception:  # whatever else speaks there is not understood as Dask
        return None


async def dask_everywhere(ports: list[int]) -> dict[str, Any]:
    """Who neither answers nor hangs up is left alone: Dask's own timeout does not end that."""
    tasks = {port: asyncio.create_task(dask(port)) for port in ports}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=3 * WAIT)
    return {f"{port} dask": task.result() if task.done() else None for port, task in tasks.items()}


def connect_call(port: int) -> Any:
    """A call of Spark Connect, as PySpark makes it where there is no TLS."""
    import grpc
    from pyspark.sql.connect.proto import base_pb2, base_pb2_grpc

    request = base_pb2.AnalyzePlanRequest(session_id="00112233-4455-6677-8899-aabbccddeeff")
    request.spark_version.SetInParent()
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            return base_pb2_grpc.SparkConnectServiceStub(channel).AnalyzePlan(request, timeout=WAIT)
        except grpc.RpcError:
            return None


def own_key() -> str:
    from shoal.machine.certificate import make_certificate

    pem = os.path.join(tempfile.mkdtemp(), "own.pem")
    with open(pem, "w") as file:
        file.write("".join(make_certificate("bob")))
    return pem


def open_socket(path: str) -> str:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(socket.AF_UNIX, kind) as there:
                there.connect("\0" + path[1:] if path.startswith("@") else path)
            return "connected"
        except OSError:
            continue
    return ""


def reached(uid: int, folders: list[str], may: str) -> list[str]:
    """What belongs to that user below these folders and may be read or written by this one."""
    command = ["find", *folders, "-uid", str(uid), f"-{may}", "-not", "-type", "l", "-print0"]
    out = subprocess.run(
        command, capture_output=True, text=True, check=False
    ).stdout  # some cannot be entered
    return sorted(out.split("\0")[:-1])


def main() -> None:
    asked = json.loads(sys.argv[1])
    attempts: dict[str, Callable[[int], Any]] = {
        "nothing said": lambda port: said(port, b""),
        "pages": get("/status"),
        "status": get("/v1/status"),
        "file": file_of_spark,
        "tls": tls(None),
        "tls with a key": tls(own_key()),
        "connect": connect_call,
    }
    with ThreadPoolExecutor(16) as pool:
        tries = {
            f"{port} {what}": pool.submit(attempt, port)
            for port in asked["ports"]
            for what, attempt in attempts.items()
        }
        tries |= {path: pool.submit(open_socket, path) for path in asked["sockets"]}
        loop = asyncio.new_event_loop()
        answers = loop.run_until_complete(dask_everywhere(asked["ports"]))
        answers |= {what: answer.result() for what, answer in tries.items()}
    told = {what: repr(found)[:300] for what, found in answers.items() if found}
    files = {may: reached(asked["uid"], asked["folders"], may) for may in ("readable", "writable")}
    print(json.dumps({"told": told, "done": len(answers), **files}), flush=True)
    os._exit(0)  # what hangs is not waited for


if __name__ == "__main__":
    main()
