"""Which process has which storage keys.

Why it exists: a table's files are opened by tasks in other processes, and no graph carries a key. What is sent to
them names the catalog; the key is found where the task runs: among those of the catalogs that this process was
given, else in its own settings.

What it must not do: let a key out of the process that was given it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache

from shoal.tables.catalogs import opening as catalog
from shoal.tables.credentials import IMPLEMENTATION
from shoal.tables.pyiceberg_private import FileIO, load_file_io

_Items = tuple[tuple[str, str], ...]
_CATALOG = "shoal.catalog"
_MOST = 256  # catalogs whose keys one process holds; those that were used longest ago go first

_lock = threading.Lock()
_held: OrderedDict[_Items, _Items] = OrderedDict()


def _items(properties: Mapping[str, str]) -> _Items:
    return tuple(sorted(properties.items()))


def hold_secrets(properties: Mapping[str, str]) -> dict[str, str]:
    """Keep the secret ones of a table's storage properties for tasks of this process; give back those that may
    travel in a graph: all others, but for the catalog's URI.

    The newest that were given for a catalog hold.
    """
    public = {
        name: value
        for name, value in properties.items()
        if not catalog.is_secret(name)
        and name not in ("uri", "warehouse")
        # A worker of an older version would not find the class.
        and (name, value) != ("py-io-impl", IMPLEMENTATION)
    }
    # Two catalogs on one server may have keys of their own: what is sent tells them apart, without a secret.
    place = f"{catalog.without_password(properties.get('uri', ''))} {properties.get('warehouse', '')}"
    public[_CATALOG] = hashlib.sha256(place.encode()).hexdigest()[:16]
    with _lock:
        key = _items(public)
        _held[key] = _items({name: value for name, value in properties.items() if catalog.is_secret(name)})
        _held.move_to_end(key)
        while len(_held) > _MOST:
            _held.popitem(last=False)
    return public


def file_io(location: str, shipped: Mapping[str, str]) -> FileIO:
    """Access to the table's files: what was sent, and the secrets that this process has for it.

    Asked again each time: a key that was replaced meanwhile makes a new one.
    """
    key = _items(shipped)
    with _lock:
        secrets = _held.get(key)
    if secrets is None:
        own = catalog.settings().for_storage
        secrets = _items({name: value for name, value in own.items() if catalog.is_secret(name)})
    return _file_io(location, key, secrets, os.getpid())


@lru_cache(maxsize=16)
def _file_io(location: str, shipped: _Items, secrets: _Items, _pid: int) -> FileIO:
    both = {**dict(secrets), **dict(shipped)}
    return load_file_io({**catalog.implementation(location, both), **both}, location)
