"""The keys of S3: where they stand, and which are in force now.

Why it exists: a job that runs for hours outlives its keys. A file with them, which whoever renews them writes again,
is looked at whenever a file of a table is opened.

What it must not do: show a key, or import what opens files (a command that asks for a catalog's name needs it not).
"""

from __future__ import annotations

import configparser
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from shoal.tables.errors import StorageRefusedError

SCHEMES = ("s3", "s3a", "s3n")
IMPLEMENTATION = "shoal.tables.s3.S3FileIO"
"""What ``py-io-impl`` is where nobody says otherwise."""
CREDENTIALS = "shoal.credentials"
"""The property with the credentials file's path: that of this process, so it never travels."""
TABLE = "shoal.table"
"""The property with the name of the table whose files are opened, where its catalog gives keys for each table."""
TIMEOUT = "shoal.timeout"
"""The property with the seconds for which a request is tried."""
_DEFAULT_TIMEOUT = 30.0
_IN_FILE = {
    "aws_access_key_id": "s3.access-key-id",
    "aws_secret_access_key": "s3.secret-access-key",
    "aws_session_token": "s3.session-token",
}
_KEYS = tuple(_IN_FILE.values())
_LOOK = 0.5  # s between looks at a credentials file whose keys have expired

_lock = threading.Lock()
_read: dict[tuple[str, str], tuple[tuple[int, int, int], dict[str, str]]] = {}


def on_s3(location: str) -> bool:
    """Whether a file's or a warehouse's URI is one of S3's."""
    return location.split("://", 1)[0] in SCHEMES


def keys_in_file(path: str, profile: str = "default") -> dict[str, str]:
    """The keys that stand in an AWS credentials file now, as PyIceberg's properties.

    Read only if it changed. While it cannot be read, as it is just being written, the keys from before hold.
    Raises StorageRefusedError where there were none.
    """
    try:
        found = os.stat(path)
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        with _lock:
            known = _read.get((path, profile))
        if known is not None and known[0] == stamp:
            return known[1]
        parser = configparser.RawConfigParser()
        parser.read_string(Path(path).read_text(encoding="utf-8"))
        keys = {name: parser.get(profile, said, fallback="") for said, name in _IN_FILE.items()}
        keys = {name: value for name, value in keys.items() if value}
        if not {"s3.access-key-id", "s3.secret-access-key"} <= set(keys):
            raise ValueError(f"no aws_access_key_id and aws_secret_access_key in its part [{profile}]")
    except (OSError, configparser.Error, ValueError) as error:
        with _lock:
            known = _read.get((path, profile))
        if known is not None:
            return known[1]
        # A parser's error shows the line, which may be a key.
        said = f"{type(error).__name__}" if isinstance(error, configparser.Error) else str(error)
        raise StorageRefusedError(
            f"The credentials file {path} cannot be used: {said}.",
            hint="It is written as AWS's own: a line [default], then aws_access_key_id = ... and "
            "aws_secret_access_key = ...; s3.profile-name in the catalog's properties names another part.",
            file=path,
        ) from None
    with _lock:
        _read[path, profile] = (stamp, keys)
    return keys


def current_keys(properties: Mapping[str, str]) -> dict[str, str]:
    """The keys that these storage properties mean now. Empty: those that the AWS SDK finds by itself."""
    if file := properties.get(CREDENTIALS):
        return keys_in_file(file, properties.get("s3.profile-name", "default"))
    return {name: properties[name] for name in _KEYS if name in properties}


def await_other_keys(properties: Mapping[str, str], used: Mapping[str, str], *, wait: bool) -> bool:
    """Whether there are other keys than ``used``, which were refused. ``wait``: for as long as the timeout says."""
    deadline = time.monotonic() + (timeout_of(properties) if wait and properties.get(CREDENTIALS) else 0.0)
    while current_keys(properties) == used:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK)
    return True


def timeout_of(properties: Mapping[str, str]) -> float:
    """Seconds for which a request is tried."""
    try:
        return float(properties.get(TIMEOUT, _DEFAULT_TIMEOUT))
    except ValueError:
        return _DEFAULT_TIMEOUT
