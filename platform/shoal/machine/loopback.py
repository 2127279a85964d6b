"""HTTP calls to this machine's own loopback address, which no proxy ever sees.

Why it exists: the usual clients obey ``http_proxy`` for 127.0.0.1 too, and hand the token that goes with a call to
a company's proxy. This one does not know proxies.

What it must not do: speak to another machine.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

_NAMES = ("127.0.0.1", "localhost", "::1")


def get_json(url: str, token: str, timeout: float) -> Any:
    """What an address of this machine answers, with ``token`` as bearer.

    OSError when it does not answer within ``timeout`` seconds, or not with 200; ValueError when that is not JSON,
    or the address is not a loopback one: nothing is sent there.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or not ip_address(parts.hostname).is_loopback:
        raise ValueError(f"{parts.scheme}://{parts.netloc} is not a loopback address")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request("GET", parts.path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        said = answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"{parts.netloc} answered {answer.status}")
    return json.loads(said)


def spare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have the usual clients of this process, and of all that it starts, reach loopback addresses directly too."""
    for variable in ("no_proxy", "NO_PROXY"):
        known = [name for name in environment.get(variable, "").split(",") if name.strip()]
        environment[variable] = ",".join([*known, *(name for name in _NAMES if name not in known)])
