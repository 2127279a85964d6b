"""What a failed access to files means, in words that say what to do.

Why it exists: PyArrow and the AWS SDK tell a wrong key, a bucket that is not there and a server that is down by
words inside one ``OSError``, or by nothing but a number; a person needs to know which, and which setting to change,
and a flow has to tell "later" from "never".

What it must not do: try again for a reason that stays (the file systems try again while a server is busy), or change
any file. It asks the server once more where a failure came without words.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO

from shoal.errors import ShoalError
from shoal.tables.credentials import await_other_keys, on_s3
from shoal.tables.errors import (
    CredentialsExpiredError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
    TableChangedError,
)
from shoal.tables.s3 import keys_used

T = TypeVar("T")

_KEYS = "s3.access-key-id and s3.secret-access-key in the catalog's properties, or its credentials file"
_Meaning = tuple[str, type[StorageError], str, str]
# Read in this order: the first that fits says it.
_MEANINGS: tuple[_Meaning, ...] = (
    (
        r"ExpiredToken|EXPIRED_TOKEN|TokenRefreshRequired|RequestExpired",
        CredentialsExpiredError,
        "the credentials have expired",
        "Renew them. With `credentials:` in the catalog's settings they are read again when that file changes; "
        "otherwise start the cluster again so that its workers have the new ones.",
    ),
    (
        r"Anonymous|Unable to load credentials|No credentials",
        StorageRefusedError,
        "no keys were found for it",
        f"Set {_KEYS}, or the AWS environment variables, where the workers run.",
    ),
    (
        r"NoSuchBucket|NO_SUCH_BUCKET|bucket does not exist|[Bb]ucket .{0,80}not found",
        StorageRefusedError,
        "there is no such bucket",
        "Create the bucket, or correct the catalog's warehouse.",
    ),
    (
        r"PermanentRedirect|IllegalLocationConstraint|AuthorizationHeaderMalformed|HTTP status 301",
        StorageRefusedError,
        "the bucket is in another region",
        "Set s3.region in the catalog's properties to the bucket's region.",
    ),
    (
        r"InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|SIGNATURE_DOES_NOT_MATCH|InvalidToken|"
        r"INVALID_CLIENT_TOKEN_ID|ACCESS_DENIED|AccessDenied|UserNotFound|access denied|Forbidden|HTTP status 403",
        StorageRefusedError,
        "the server refused these keys there",
        f"Check {_KEYS}, and that they may read and write this path.",
    ),
    (
        r"SlowDown|SLOW_DOWN|Throttl|THROTTL|TooManyRequests|RequestLimitExceeded|HTTP status (?:503|429)|"
        r"ServiceUnavailable|SERVICE_UNAVAILABLE",
        StorageUnavailableError,
        "the server asked to slow down, again and again",
        "Run it again later, with fewer workers, or with a longer timeout in the catalog's settings.",
    ),
    (
        r"SSL connect error|TLS connect|certificate",
        StorageUnavailableError,
        "no TLS connection to the server could be made",
        "Check s3.endpoint in the catalog's properties: https:// for a server with TLS, http:// without.",
    ),
    (
        r"NETWORK_CONNECTION|[Cc]ould not connect|Couldn't resolve|[Tt]imed? ?out|curlCode|"
        r"Connection (?:refused|reset)",
        StorageUnavailableError,
        "the server did not answer",
        "Check s3.endpoint in the catalog's properties, and that the server is running.",
    ),
    (
        r"checksums? mismatch|ChecksumMismatch",
        StorageError,
        "it is damaged, as its checksum says",
        "Restore it, or go back to a snapshot before it: shoal.rollback().",
    ),
    (
        r"INTERNAL_FAILURE|InternalError|HTTP status 5\d\d",
        StorageUnavailableError,
        "the server failed",
        "Run it again later; the server's own log says more.",
    ),
)
# A path in an error's words may hold anything that is looked for: it is random in part.
_PATHS = re.compile(r"(?:key|bucket|path|file|object) '[^']*'|'[^']*/[^']*'|s3[an]?://\S+")
_BUCKET = re.compile(r"in bucket '([^']+)'|s3[an]?://([^/\s]+)/|does not exist '([^/']+)/")
# The last: of a 404 of which AWS's library could not read the rest.
_GONE = re.compile("NO_SUCH_KEY|NoSuchKey|RESOURCE_NOT_FOUND")
# An answer was longer than the bytes that were asked for, as a refusal may be; what it says is lost.
_CUT = "Failed to flush response stream"
RENEWALS = 5
"""How often one action goes through new keys: more often, the keys are not what is wrong."""
_DIAGNOSIS = "shoal-nothing-is-here"


def storage_error(
    error: Exception, location: str, what: str, *, io: FileIO | None = None, table: str = ""
) -> StorageError:
    """The StorageError for an access that failed.

    ``what``: what could not be done, as in "A file of nyc.flights could not be written". ``io``: through what it was
    tried; with it, a failure without words is looked into. ``table``: kept in ``values``, beside ``bucket``.
    """
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return StorageError(
            f"No space is left at {location}. {what}: {error}",
            hint="Free some and run it again; the table is as it was, and this task's files are deleted.",
        )
    if getattr(error, "errno", None) == errno.ENAMETOOLONG or "File name too long" in str(error):
        return StorageError(
            f"{what}, for a folder's name would be too long: {location}. Folders are named by the partition's values.",
            hint="Partition by less of the column, such as truncate(16, c), or make the table with properties="
            '{"write.object-storage.enabled": "true", "write.object-storage.partitioned-paths": "false"}.',
        )
    if on_s3(location):
        return _of_s3(error, location, what, io, table)
    if is_gone(error):
        return StorageError(
            f"{what}, for it is gone: {error}",
            hint="Was its snapshot expired, or the table dropped, by someone else?",
        )
    return StorageError(
        f"{what} at {location}: {error}", hint="Does the worker have permission (and credentials) for it?"
    )


def read_error(error: OSError, path: str, what: str, table: str, io: FileIO) -> ShoalError:
    """The error for a file of a table that could not be read: TableChangedError if it is gone, else StorageError."""
    if _CUT in str(error):
        error = _by_its_head(error, path, io)
    told = storage_error(error, path, f"A {what} of {table} could not be read", io=io, table=table)
    if type(told) is StorageError and is_gone(error):
        return TableChangedError(
            f"A {what} of {table} vanished while it was read: {path}",
            hint="Was the table dropped, or its snapshot expired, by someone else? Read it again.",
        )
    return told


@contextmanager
def told(what: str, location: str, *, io: FileIO | None = None, table: str = "") -> Iterator[None]:
    """An access to files in the block that fails raises a StorageError; see :func:`storage_error`."""
    try:
        yield
    except OSError as error:
        # Of a catalog's connection, not of a file.
        if isinstance(error, ConnectionError) or type(error).__module__.startswith("requests"):
            raise
        raise storage_error(error, location, what, io=io, table=table) from error


def is_gone(error: Exception) -> bool:
    """Whether a file is not there, as far as its own request says."""
    return isinstance(error, FileNotFoundError) or _GONE.search(str(error)) is not None


def _by_its_head(error: OSError, path: str, io: FileIO) -> OSError:
    """What a request for the file's head says; the same error where that says nothing."""
    try:
        there = io.new_input(path).exists()
    except OSError as asked:
        return asked
    return error if there else FileNotFoundError(errno.ENOENT, "No such file", path)


def _of_s3(error: Exception, location: str, what: str, io: FileIO | None, table: str) -> StorageError:
    words = _words(error)
    # A table's files may be in another bucket than the catalog's warehouse, which may be all that is known.
    said = _BUCKET.search(words)
    bucket = next(filter(None, said.groups())) if said is not None else urlsplit(location).netloc
    if bucket != urlsplit(location).netloc:
        location = f"s3://{bucket}"
    found = _meaning(words)
    # A request for a file's head is answered with a number alone, and one for no file looks like one for no bucket.
    vague = found is None or "HEAD" in words.upper() or is_gone(error)
    if vague and io is not None and (asked := _ask_again(io, bucket)) is not None:
        again = _words(asked)
        found, words = (_meaning(again), again) if _meaning(again) is not None else (found, words)
    known: dict[str, str] = {"bucket": bucket, "location": location, **({"table": table} if table else {})}
    if found is not None:
        _, kind, meaning, hint = found
        return kind(f"{what} in the bucket {bucket}: {meaning} ({location}: {words}).", hint=hint, **known)
    if is_gone(error):
        return StorageError(
            f"{what} in the bucket {bucket}, for it is gone: {words}",
            hint="Was its snapshot expired, or the table dropped, by someone else?",
            **known,
        )
    return StorageError(f"{what} at {location}: {words}", hint="The server's own log says more.", **known)


def _words(error: BaseException) -> str:
    """What was said, by it and by what caused it: PyIceberg leaves the reason out of its own error."""
    said = [str(error)]
    if isinstance(error.__cause__, OSError):
        said.append(str(error.__cause__))
    return " / ".join(said)


def _meaning(words: str) -> _Meaning | None:
    bare = _PATHS.sub(" ", words)
    return next((meaning for meaning in _MEANINGS if re.search(meaning[0], bare)), None)


def _ask_again(io: FileIO, bucket: str) -> Exception | None:
    """How the server refuses to list a folder that is not there: with a reason, for that answer has a body."""
    from pyarrow.fs import FileSelector, FileType

    if not isinstance(io, PyArrowFileIO) or not bucket:
        return None
    try:
        filesystem = io.fs_by_scheme("s3", bucket)
        filesystem.get_file_info(FileSelector(f"{bucket}/{_DIAGNOSIS}", allow_not_found=True))
        # Where nothing need be there, nothing is said of a bucket that is not there.
        if filesystem.get_file_info(bucket).type == FileType.NotFound:
            return OSError("NoSuchBucket: the server knows of no bucket of this name")
    except OSError as error:
        return error
    return None


def renewing(io: FileIO, action: Callable[[], T]) -> T:
    """Run ``action``; if its keys were refused and others have come in their place, run it again.

    For actions that may be repeated. Keys that expired are waited for as long as the catalog's timeout says.
    """
    for _ in range(RENEWALS):
        used = keys_used(io)
        try:
            return action()
        except StorageRefusedError as error:
            if not others_came(error, io.properties, used):
                raise
    return action()


def others_came(error: Exception, properties: Mapping[str, str], used: Mapping[str, str]) -> bool:
    """Whether there are other keys now than those that ``error`` is about."""
    if not isinstance(error, StorageRefusedError):
        return False
    return await_other_keys(properties, used, wait=isinstance(error, CredentialsExpiredError))
