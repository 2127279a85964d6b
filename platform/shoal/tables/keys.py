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
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache

from pyiceberg.schema import Schema
from pyiceberg.types import NestedField, StringType

from shoal.tables.catalogs import opening as catalog
from shoal.tables.catalogs.reaching import reach
from shoal.tables.credentials import IMPLEMENTATION, TABLE
from shoal.tables.pyiceberg_commits import io_of
from shoal.tables.pyiceberg_private import FileIO, load_file_io

_Items = tuple[tuple[str, str], ...]
_CATALOG = "shoal.catalog"
_MOST = 256  # catalogs whose keys one process holds; those that were used longest ago go first

_LENT = 600.0  # s after which keys of a catalog that says nothing of their end are asked for again
_EARLY = 60.0  # s before the end that it says

_lock = threading.Lock()
_lent: dict[tuple[int, catalog.CatalogSettings, str, str], tuple[float, Mapping[str, str]]] = {}
_held: OrderedDict[_Items, _Items] = OrderedDict()


def _items(properties: Mapping[str, str]) -> _Items:
    return tuple(sorted(properties.items()))


def _stays(name: str, value: object) -> bool:
    """Whether a property is of this process alone. What a REST catalog logs in with stands among them as an object."""
    return not isinstance(value, str) or catalog.is_secret(name)


def hold_secrets(properties: Mapping[str, str]) -> dict[str, str]:
    """Keep the secret ones of a table's storage properties for tasks of this process; give back those that may
    travel in a graph: all others, but for the catalog's URI.

    The newest that were given for a catalog hold.
    """
    public = {
        name: value
        for name, value in properties.items()
        if not _stays(name, value)
        and name not in ("uri", "warehouse")
        # A worker of an older version would not find the class.
        and (name, value) != ("py-io-impl", IMPLEMENTATION)
    }
    # Two catalogs on one server may have keys of their own: what is sent tells them apart, without a secret.
    place = f"{catalog.without_password(properties.get('uri', ''))} {properties.get('warehouse', '')}"
    public[_CATALOG] = hashlib.sha256(place.encode()).hexdigest()[:16]
    with _lock:
        key = _items(public)
        _held[key] = _items({name: value for name, value in properties.items() if _stays(name, value)})
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
        own = catalog.settings()
        given = (
            _given(shipped[TABLE], location, own)
            if own.kind == "rest" and TABLE in shipped
            else own.for_storage
        )
        secrets = _items({name: value for name, value in given.items() if _stays(name, value)})
    return _file_io(location, key, secrets, os.getpid())


def _given(table: str, location: str, own: catalog.CatalogSettings) -> Mapping[str, str]:
    """The storage properties that a REST catalog gives this process for a table; asked again before its keys expire."""
    key = (os.getpid(), own, table, location)
    with _lock:
        known = _lent.get(key)
    if known is not None and time.time() < known[0]:
        return known[1]
    if (found := catalog.find(table, own)) is not None:
        properties = found.io.properties
    else:
        # It is just being made: whoever commits its first rows makes it. To be told its keys makes nothing.
        wanted = Schema(NestedField(1, "any", StringType()))
        opened, identifier = catalog.catalog(own), catalog.identifier(table, own)
        properties = reach(
            own,
            f"be given keys for the new table {table}",
            lambda: io_of(opened.create_table_transaction(identifier, wanted, location=location)).properties,
        )
    with _lock:
        _lent[key] = (_until(properties, time.time()), properties)
        while len(_lent) > _MOST:
            del _lent[next(iter(_lent))]
    return properties


def _until(properties: Mapping[str, str], now: float) -> float:
    """The time from which on keys that were given at ``now`` are asked for again."""
    expires = properties.get("s3.session-token-expires-at-ms")
    return min(now + _LENT, float(expires) / 1000 - _EARLY) if expires else now + _LENT


@lru_cache(maxsize=16)
def _file_io(location: str, shipped: _Items, secrets: _Items, _pid: int) -> FileIO:
    both = {**dict(secrets), **dict(shipped)}
    return load_file_io({**catalog.implementation(location, both), **both}, location)
