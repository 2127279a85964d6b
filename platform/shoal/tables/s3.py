"""Files on S3: opened with the keys of the moment, patiently, by connections that are shared.

Why it exists: PyIceberg makes a connection per table, with the keys as they were then, and gives up after three
tries. A job that runs for hours outlives its keys, and a store that is busy says so more often than that.

What it must not do: decide what a failure means (``storage`` does), or show a key.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from typing import Any

from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.typedef import EMPTY_DICT, Properties

from shoal.tables.credentials import SCHEMES, TIMEOUT, current_keys, timeout_of

_LONGEST = 20.0  # s between two tries, at most: the SDK's own limit


def tries_within(seconds: float) -> int:
    """How many tries the SDK makes in some ``seconds``: it waits up to 1, 2, 4, ... 20 s between two, half of that
    on average."""
    tries, waited = 1, 0.0
    while (waited := waited + min(2.0 ** (tries - 1), _LONGEST) / 2) <= seconds:
        tries += 1
    return max(2, tries)


class S3FileIO(PyArrowFileIO):
    """PyIceberg's access by PyArrow, with the keys of the moment, patience, and one connection per process."""

    def __init__(self, properties: Properties = EMPTY_DICT) -> None:
        super().__init__(properties)
        self._elsewhere = self.fs_by_scheme
        self.fs_by_scheme = self.choose

    def __reduce__(self) -> tuple[type[S3FileIO], tuple[Properties]]:
        return type(self), (self.properties,)

    def choose(self, scheme: str, netloc: str | None = None) -> Any:
        """The file system for a scheme and bucket."""
        if scheme not in SCHEMES:
            return self._elsewhere(scheme, netloc)
        asked = {name: self.properties[name] for name in _MATTERS if name in self.properties}
        region = asked.get("s3.region") or asked.get("client.region")
        resolve = region is None or asked.get("s3.resolve-region", "").lower() == "true"
        keys = current_keys(self.properties)
        return _connection(
            os.getpid(), tuple(sorted({**asked, **keys}.items())), (netloc or "") if resolve else ""
        )


_MATTERS = (
    "s3.endpoint",
    "s3.region",
    "s3.resolve-region",
    "s3.proxy-uri",
    "s3.connect-timeout",
    "s3.request-timeout",
    "s3.role-arn",
    "s3.role-session-name",
    "s3.force-virtual-addressing",
    "s3.anonymous",
    "client.region",
    "client.access-key-id",
    "client.secret-access-key",
    "client.session-token",
    "client.role-arn",
    "client.role-session-name",
    TIMEOUT,
)


@lru_cache(maxsize=32)
def _connection(_pid: int, items: tuple[tuple[str, str], ...], bucket: str) -> Any:
    """One connection per set of properties: a new one for each table would open sockets, and begin to count its
    tries, again."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    given = dict(items)

    def first(name: str) -> str | None:
        return given.get(f"s3.{name}") or given.get(f"client.{name}")

    region = first("region")
    if bucket and not given.get("s3.endpoint"):
        with suppress(OSError, ValueError):  # the first request will say what is wrong
            region = resolve_s3_region(bucket)
    options: dict[str, Any] = {
        "endpoint_override": given.get("s3.endpoint"),
        "access_key": first("access-key-id"),
        "secret_key": first("secret-access-key"),
        "session_token": first("session-token"),
        "region": region,
        "role_arn": first("role-arn"),
        "session_name": first("role-session-name"),
        "proxy_options": given.get("s3.proxy-uri"),
        "connect_timeout": _number(given.get("s3.connect-timeout")),
        "request_timeout": _number(given.get("s3.request-timeout")),
    }
    for name, option in (
        ("s3.force-virtual-addressing", "force_virtual_addressing"),
        ("s3.anonymous", "anonymous"),
    ):
        if name in given:
            options[option] = given[name].lower() == "true"
    return S3FileSystem(
        **{name: value for name, value in options.items() if value is not None},
        # A file that fits into one request then takes one, where three open and close it otherwise.
        allow_delayed_open=True,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=tries_within(timeout_of(given))),
    )


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def keys_used(io: FileIO) -> dict[str, str]:
    """The keys with which a file is opened by ``io`` now; empty where it is not by ours."""
    return current_keys(io.properties) if isinstance(io, S3FileIO) else {}
