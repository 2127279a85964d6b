"""PyIceberg's client of a REST catalog, with deadlines, and with refusals that say what to do.

Why it exists: that client waits for an answer for ever, tells a refusal in a type of its own for each status, and has
to be told which class opens files. What it must not do: decide what is tried again (``catalogs.reaching`` does).

Written against PyIceberg 0.12.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    BadRequestError,
    CommitStateUnknownException,
    ForbiddenError,
    OAuthError,
    RESTError,
    ServerError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
)
from pyiceberg.io import FileIO
from pyiceberg.table import StagedTable, Table
from pyiceberg.typedef import EMPTY_DICT, Properties
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from shoal.tables.credentials import IMPLEMENTATION, TABLE, on_s3, timeout_of
from shoal.tables.errors import CatalogRefusedError

PASSING = (ServerError, ServiceUnavailableError, TooManyRequestsError)
"""What another try may not meet again."""
_LOGIN = (UnauthorizedError, OAuthError, AuthorizationExpiredError)
_FOREIGN = re.compile(r"json|ConfigResponse", re.IGNORECASE)
"""In what PyIceberg says of an answer that no REST catalog gives."""
_CALLS = (
    "commit_table",
    "create_namespace",
    "create_table",
    "create_table_transaction",
    "drop_namespace",
    "drop_table",
    "list_namespaces",
    "list_tables",
    "load_namespace_properties",
    "load_table",
    "purge_table",
    "register_table",
    "rename_table",
    "table_exists",
    "update_namespace_properties",
    "view_exists",
)


class _Patient(HTTPAdapter):
    """Requests that end: each may take ``seconds`` to be answered."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        options["timeout"] = options.get("timeout") or self._seconds
        return super().send(request, *args, **options)


class PatientRestCatalog(RestCatalog):
    """A REST catalog whose requests have a deadline, whose refusals are CatalogRefusedError, and whose tables' files on
    S3 are opened as those of all other catalogs."""

    def __init__(self, name: str, **properties: str) -> None:
        try:
            super().__init__(name, **properties)
        except (RESTError, ValidationError) as error:
            raise told(error, properties["uri"], "open the catalog") from error

    def _config_headers(self, session: Session) -> None:
        """Called first of all for a session, which then fetches a token."""
        super()._config_headers(session)
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Patient(timeout_of(self.properties)))

    def _load_file_io(self, properties: Properties = EMPTY_DICT, location: str | None = None) -> FileIO:
        ours = (
            {"py-io-impl": IMPLEMENTATION}
            if on_s3(location or "") and "py-io-impl" not in self.properties
            else {}
        )
        return super()._load_file_io({**ours, **properties}, location)

    def _response_to_table(self, identifier_tuple: tuple[str, ...], table_response: Any) -> Table:
        table = super()._response_to_table(identifier_tuple, table_response)
        table.io.properties[TABLE] = ".".join(identifier_tuple)
        return table

    def _response_to_staged_table(
        self, identifier_tuple: tuple[str, ...], table_response: Any
    ) -> StagedTable:
        table = super()._response_to_staged_table(identifier_tuple, table_response)
        table.io.properties[TABLE] = ".".join(identifier_tuple)
        return table


def told(error: Exception, uri: str, doing: str) -> Exception:
    """What to raise for what a REST catalog answered; the error itself where another try may help, or where nobody
    knows what came of it."""
    if isinstance(error, (*PASSING, CommitStateUnknownException)):
        return error
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    foreign = "Is this the address of an Iceberg REST catalog? It is what comes before /v1/config."
    if _FOREIGN.search(said) and not isinstance(error, OAuthError):
        hint = foreign
    elif isinstance(error, _LOGIN):
        hint = "Check credential (client id:secret), token and oauth2-server-uri in the catalog's properties."
        hint = f"{hint} {foreign}" if _FOREIGN.search(said) else hint
    elif isinstance(error, ForbiddenError):
        hint = "Ask the catalog's administrator for this right."
    elif isinstance(error, BadRequestError):
        hint = "Are the catalog's warehouse and the names right?"
    else:
        hint = "Its log may say more."
    return CatalogRefusedError(
        f"Could not {doing}: the catalog {uri} refused it ({said}).", hint=hint, tried_for=0.0, kind="rest"
    )


def _telling(name: str) -> Callable[..., Any]:
    call = getattr(RestCatalog, name)

    @functools.wraps(call)
    def asked(self: PatientRestCatalog, *args: Any, **options: Any) -> Any:
        try:
            return call(self, *args, **options)
        except RESTError as error:
            raise told(error, self.uri, name.replace("_", " ")) from error

    return asked


for _name in _CALLS:
    setattr(PatientRestCatalog, _name, _telling(_name))
