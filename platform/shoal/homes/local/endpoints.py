"""How a head tells its own user, and nobody else, where to connect.

Why it exists: tokens never go into the ledger, a command line or a log; they are in files of mode 0600
inside the cluster's run folder, which end with it.

What it must not do: be read for anything but connecting.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from shoal.machine.paths import SPARK_CONF, SPARK_KEYS, TOKEN
from shoal.model.codec import plain
from shoal.model.codec import read as read_value
from shoal.model.endpoint import Endpoint

_ENDPOINT = "endpoint.json"
_ADDED = "endpoint.added.json"  # Shoal 0.1.0 can read no field that it does not know: later ones stand here
_FIRST = ("address", "token", "dashboard", "security")


def write(folder: Path, endpoint: Endpoint) -> None:
    """Where clients connect, once it is Ready."""
    value = plain(endpoint)
    _write(folder / _ADDED, {name: part for name, part in value.items() if name not in _FIRST})
    _write(folder / _ENDPOINT, {name: value[name] for name in _FIRST})


def write_token(folder: Path, token: str) -> None:
    """The token of the status endpoint, from the head's first moment on."""
    _write(folder / TOKEN, {"token": token})


def read(folder: Path) -> Endpoint | None:
    """Where to connect; None before the cluster is Ready and after it ended."""
    try:
        said = json.loads((folder / _ENDPOINT).read_text())
        if (added := folder / _ADDED).exists():  # not of a head of 0.1.0
            said |= json.loads(added.read_text())
        return read_value(Endpoint, said)
    except FileNotFoundError:
        return None


def read_token(folder: Path) -> str | None:
    """The status token; None before the head runs and after it ended."""
    try:
        return str(json.loads((folder / TOKEN).read_text())["token"])
    except FileNotFoundError:
        return None


def forget(folder: Path) -> None:
    """Remove every secret of an ended cluster."""
    for name in (_ENDPOINT, _ADDED, TOKEN, SPARK_CONF, SPARK_KEYS):
        (folder / name).unlink(missing_ok=True)


def _write(file: Path, value: dict[str, Any]) -> None:
    fresh = file.with_name(f".{file.name}.new")
    descriptor = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(value, stream)
    fresh.replace(file)
