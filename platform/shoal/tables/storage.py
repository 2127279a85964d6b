"""What a failed access to files means, in words that say what to do.

Why it exists: PyArrow and the AWS SDK tell a wrong key, a bucket that is not there and a server that is down by
words inside one ``OSError``; a person needs to know which, and which setting to change.

What it must not do: try again (the file systems do), or touch any file.
"""

from __future__ import annotations

import errno
import re

from shoal.tables.errors import StorageError

_KEYS = "s3.access-key-id and s3.secret-access-key in the catalog's properties"
# Read in this order: the first that fits says it.
_MEANINGS = (
    (
        r"Anonymous|Unable to load credentials|No credentials",
        "no keys were found for it",
        f"Set {_KEYS}, or the AWS environment variables, where the workers run.",
    ),
    (
        r"NoSuchBucket|NO_SUCH_BUCKET|bucket does not exist|bucket .* not found",
        "there is no such bucket",
        "Create the bucket, or correct the catalog's warehouse.",
    ),
    (
        r"PermanentRedirect|IllegalLocationConstraint|AuthorizationHeaderMalformed|301",
        "the bucket is in another region",
        "Set s3.region in the catalog's properties to the bucket's region.",
    ),
    (
        r"InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|ACCESS_DENIED|AccessDenied|UserNotFound|Forbidden|403",
        "the server refused these keys there",
        f"Check {_KEYS}, and that they may read and write this path.",
    ),
    (
        r"ExpiredToken|EXPIRED_TOKEN",
        "the credentials have expired",
        "Renew them, and start the cluster again so that its workers have the new ones.",
    ),
    (
        r"SSL connect error|TLS connect|certificate",
        "no TLS connection to the server could be made",
        "Check s3.endpoint in the catalog's properties: https:// for a server with TLS, http:// without.",
    ),
    (
        r"NETWORK_CONNECTION|Could not connect|Couldn't resolve|timed? ?out",
        "the server did not answer",
        "Check s3.endpoint in the catalog's properties, and that the server is running.",
    ),
)


def storage_error(error: OSError, location: str, doing: str) -> StorageError:
    """The StorageError for an access that failed. ``doing``: what could not be done, as in "could not be written"."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return StorageError(
            f"No space is left at {location}: {error}",
            hint="Free some and run it again; the table is as it was, and this task's files are deleted.",
        )
    if location.startswith(("s3://", "s3a://", "s3n://")):
        for pattern, meaning, hint in _MEANINGS:
            if re.search(pattern, str(error)):
                return StorageError(f"A file {doing} at {location}: {meaning} ({error}).", hint=hint)
    return StorageError(
        f"A file {doing} at {location}: {error}",
        hint="Does the worker have permission (and credentials) for it?",
    )
