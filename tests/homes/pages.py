"""How Dask's own pages are read by tests: as a browser does, websockets included."""

from __future__ import annotations

import asyncio
import json
import re
from http.client import HTTPConnection
from urllib.parse import urlsplit

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect


def get(url: str) -> tuple[int, str, str]:
    """Status, text, and where it sends the browser."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = HTTPConnection(parts.hostname, parts.port, timeout=120)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace"), answer.headers.get("Location", "")
    finally:
        connection.close()


def session_of(page: str) -> str:
    """Bokeh's, which a drawn page has in it."""
    code, text, _ = get(page)
    found = re.search(r'"token":"([^"]+)"', text)
    assert found is not None, (code, text[:300])
    return found[1]


def lives(page: str) -> bool:
    """Whether a page's websocket answers as Bokeh does."""
    session = session_of(page)

    async def first() -> str:
        url = page.replace("http", "ws", 1) + "/ws"
        asked = HTTPRequest(
            url, connect_timeout=120, request_timeout=120
        )  # the first page takes long to draw
        connection = await websocket_connect(asked, subprotocols=["bokeh", session])
        try:
            return str(await asyncio.wait_for(connection.read_message(), 60))
        finally:
            connection.close()
            while await connection.read_message() is not None:
                pass

    return bool(json.loads(asyncio.run(first()))["msgtype"] == "ACK")
