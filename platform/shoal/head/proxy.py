"""A TCP relay in front of Spark Connect that counts connections and bytes.

Why it exists: open connections are the clients, and bytes tell work from idleness: while a query runs,
Spark Connect reports progress at least every 2 s, and an idle client sends nothing at all. So neither
Spark's UI nor its log is needed to know whether a cluster is in use.

What it must not do: look into the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

_CHUNK = 256 * 1024
_QUIET = 4.0  # s without a byte after which nothing runs: twice Spark's progress interval


class CountingProxy:
    """Relays ``127.0.0.1:<free port>`` to ``127.0.0.1:target``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = 0
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
    def clients(self) -> int:
        """Open connections."""
        return self._open

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
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._open += 1
        try:
            pipes = [
                asyncio.create_task(self._pipe(reader, inner_writer)),
                asyncio.create_task(self._pipe(inner_reader, writer)),
            ]
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            for pipe in pipes:
                pipe.cancel()
        finally:
            self._open -= 1
            for side in (writer, inner_writer):
                side.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                self._last_byte = time.monotonic()
                writer.write(data)
                await writer.drain()
