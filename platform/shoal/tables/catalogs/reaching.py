"""Trying again while a catalog is locked or down, and telling that from a catalog that says no.

Why it exists: a lock is gone in a moment and a wrong password never is; a person who waits learns which at once.

What it must not do: know what is asked of the catalog (whoever asks says so in words).
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from shoal.tables.credentials import current_keys
from shoal.tables.errors import CatalogRefusedError, CatalogUnavailableError

if TYPE_CHECKING:
    from shoal.tables.catalogs.opening import CatalogSettings

T = TypeVar("T")


def reach(given: CatalogSettings, doing: str, action: Callable[[], T]) -> T:
    """Run ``action`` against the catalog; while the catalog is locked or down, try again until ``timeout``.

    Only for actions that may be repeated. Raises :class:`CatalogUnavailableError` with the time tried.
    """
    import requests
    from pyiceberg.exceptions import ServerError, ServiceUnavailableError, TooManyRequestsError
    from sqlalchemy.exc import InterfaceError, OperationalError

    passing = (ServerError, ServiceUnavailableError, TooManyRequestsError)
    away = (OperationalError, InterfaceError, requests.ConnectionError, requests.Timeout, ConnectionError)
    start, wait, renewals = time.monotonic(), 0.05, 0
    while True:
        used = current_keys(given.for_storage) if given.credentials else {}
        try:
            return action()
        except (*away, *passing) as error:
            tried_for = time.monotonic() - start
            reason = _reason(error)
            if (hint := _refusal(reason)) is not None:
                raise CatalogRefusedError(
                    f"Could not {doing}: the catalog {given.shown_uri} refused it ({reason}).",
                    hint=hint,
                    tried_for=tried_for,
                    kind=given.kind,
                ) from error
            if tried_for + wait > given.timeout:
                raise CatalogUnavailableError(
                    f"Could not {doing}: the catalog {given.shown_uri} "
                    f"{'failed' if isinstance(error, passing) else 'did not answer'} "
                    f"for {tried_for:.1f} s ({reason}).",
                    hint="Does another process hold a lock on it?"
                    if given.kind == "sqlite"
                    else "Is its server running, and can this machine reach it?",
                    tried_for=tried_for,
                ) from error
        except OSError as error:
            told = _of_files(given, doing, error)
            renewals += 1
            if not (given.credentials and renewals < 5 and _others_came(given, told, used)):
                raise told from error
            continue
        time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        wait = min(wait * 2, 1.0)


def _reason(error: Exception) -> str:
    """In one line, without what a library adds of itself."""
    inner = error.args[0] if error.args else None
    error = (
        getattr(error, "orig", None) or getattr(inner, "reason", None) or error
    )  # urllib3's is within requests'
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.rpartition("): ")[2] if "ConnectionPool(" in line or "Connection(" in line else line


def _of_files(given: CatalogSettings, doing: str, error: OSError) -> Exception:
    """What is wrong with a table's metadata, which is a file."""
    if type(error).__module__.startswith("requests"):
        return error
    # Not at the top: it imports what opens files, which few commands need.
    from shoal.tables.catalogs.opening import access
    from shoal.tables.storage import storage_error

    return storage_error(error, given.warehouse, f"Could not {doing}", io=access(given))


def _others_came(given: CatalogSettings, error: Exception, used: dict[str, str]) -> bool:
    from shoal.tables.storage import others_came

    return others_came(error, given.for_storage, used)


# What a database says when it is there and will not: by its words, for a connection that was never made has
# no code. A server that speaks another language is tried until the timeout, as before.
_REFUSALS = (
    (r"authentication failed|no password supplied", "Check the user and password in the catalog's URI."),
    (r'database ".*" does not exist', "Create the database first, or correct its name in the catalog's URI."),
    (r'role ".*" does not exist|no pg_hba\.conf entry', "Ask the database's administrator for access."),
    (
        r"permission denied",
        "This user needs the right to use, and at the first use to create, the catalog's tables.",
    ),
    (
        r"\[SSL: |certificate verify failed",
        "Does the server speak TLS (https://), and is its certificate trusted here? For a REST catalog, "
        "REQUESTS_CA_BUNDLE names a file with the authorities to trust.",
    ),
    (r"unable to open database file", "Check that the catalog's folder exists and may be written."),
)


def _refusal(reason: str) -> str | None:
    """What to do about a refusal that trying again would not change; None for anything else."""
    for pattern, hint in _REFUSALS:
        if re.search(pattern, reason):
            return hint
    return None
