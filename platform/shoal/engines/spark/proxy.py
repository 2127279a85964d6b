"""A TLS relay in front of Spark Connect that counts connections and bytes.

Why it exists: a port of 127.0.0.1 is open to every user of the machine. Only who holds the cluster's key gets
through, and only to the cluster's own JVM; who cannot show it is not a client. Open connections are the clients, and
bytes tell work from idleness: while a query runs, Spark Connect reports progress at least every 2 s, and an idle
client sends nothing at all. So neither Spark's UI nor its log is needed to know whether a cluster is in use.

What it must not do: look into the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

_CHUNK = 256 * 1024
_QUIET = 4.0  # s without a byte after which nothing runs: twice Spark's progress interval
_HANDSHAKE = 10.0  # s that a stranger may hold a connection for


class CountingProxy:
    """Relays TLS on ``127.0.0.1:<free port>`` to ``127.0.0.1:target``, for who holds the key of ``context``.

    ``is_ours``: whether who listens at the target is still the one to whom a client's token may go.
    """

    def __init__(self, target: int, context: ssl.SSLContext, is_ours: Callable[[], bool]) -> None:
        self._target = target
        self._context = context
        self._is_ours = is_ours
        self._open: set[int] = set()
        self._last_byte = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._listening = threading.Event()
        self.port = 0

    def start(self) -> int:
        """Listen; returns the port."""
        self._thread.start()
        if not self._listening.wait(10):
            raise RuntimeError("the relay in front of Spark Connect did not listen within 10 s")
        return self.port

    @property
    def peers(self) -> list[int]:
        """The other end's port of each open connection of those who showed the cluster's key."""
        return list(self._open)

    @property
    def busy(self) -> bool:
        """Bytes went through within the last seconds."""
        return time.monotonic() - self._last_byte < _QUIET

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(
                self._serve, "127.0.0.1", 0, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE
            )
        )
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        # Asked once it is connected: a listener that is there now was there then.
        if not self._is_ours():
            for side in (writer, inner_writer):
                side.close()
            return
        port = int(writer.get_extra_info("peername")[1])
        self._open.add(port)
        try:
            pipes = [
                asyncio.create_task(self._pipe(reader, inner_writer)),
                asyncio.create_task(self._pipe(inner_reader, writer)),
            ]
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            for pipe in pipes:
                pipe.cancel()
        finally:
            self._open.discard(port)
            for side in (writer, inner_writer):
                side.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                self._last_byte = time.monotonic()
                writer.write(data)
                await writer.drain()


def only_for(certificate: str, key: str) -> ssl.SSLContext:
    """The server's side of TLS: it shows this certificate, and accepts nobody who cannot show it too (PEM)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])  # gRPC refuses a server that does not choose it
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=certificate)
    with tempfile.TemporaryDirectory() as folder:  # Python's ssl reads a key from a file alone
        file = Path(folder) / "both.pem"
        file.touch(0o600)
        file.write_text(certificate + key)
        context.load_cert_chain(file)
    return context
