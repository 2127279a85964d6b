"""A proxy on loopback, as the gate of a network is: it carries what CONNECT asks for, and notes who is asked for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class ConnectProxy:
    """``to``: where it leads, whoever is asked for: a name that only a proxy knows, for one."""

    to: tuple[str, int]
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def carry(self, client: socket.socket) -> None:
        """One connection, both ways."""
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (some := client.recv(4096)):
                    return
                head += some
            method, whom, _ = head.split(b"\r\n", 1)[0].split(b" ")
            if method != b"CONNECT":
                client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
                return
            self.asked.append(whom.decode())
            with socket.create_connection(self.to) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(65536):
            target.sendall(some)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def connect_proxy(host: str, port: int) -> Iterator[ConnectProxy]:
    """It listens inside the block, and leads to ``host`` and ``port``."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = ConnectProxy((host, port), url=f"http://127.0.0.1:{server.getsockname()[1]}")

        def serve() -> None:
            with suppress(OSError):  # it is closed
                while True:
                    client, _ = server.accept()
                    threading.Thread(target=proxy.carry, args=(client,), daemon=True).start()

        threading.Thread(target=serve, name="proxy", daemon=True).start()
        yield proxy
        server.shutdown(socket.SHUT_RDWR)
