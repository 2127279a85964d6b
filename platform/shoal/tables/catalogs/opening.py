"""Which catalog, where it lives, and how it is reached.

Why it exists: every engine has to see the same tables, so one value, :class:`CatalogSettings`, names the
catalog, and everything else (PyIceberg's catalog here, Spark's settings in ``spark_conf``) is made from it.

What it must not do: read project files (whoever owns those calls :func:`use`), or put secrets where they
can be seen: not in ``repr``, not in what is sent to workers.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from shoal.errors import UsageError
from shoal.tables.catalogs.drivers import with_driver
from shoal.tables.catalogs.names import is_path, no_table, read_only, refuse_view
from shoal.tables.catalogs.reaching import reach
from shoal.tables.credentials import CREDENTIALS, IMPLEMENTATION, TIMEOUT, on_s3
from shoal.tables.naming import is_name, no_settings, unreadable

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.io import FileIO
    from pyiceberg.table import Table

Identifier = tuple[str, ...]

_SECRET = re.compile(
    # What a REST catalog is sent in a header, or logs in with, as well.
    r"secret|password|token|credential|access-key|session|sas|account-key|^header\.|^auth(\.|$)",
    re.IGNORECASE,
)
_REST = "shoal.tables.pyiceberg_rest.PatientRestCatalog"


def is_secret(key: str) -> bool:
    """Whether a catalog or storage property of this name holds something that nobody may read."""
    return _SECRET.search(key) is not None


@dataclass(frozen=True)
class CatalogSettings:
    """Where the tables are. Its ``repr`` shows no secrets."""

    name: str = "shoal"
    """The catalog's name, in Spark's SQL too (``shoal.nyc.flights``). It keys the catalog's rows, so it has
    to be the same for every engine."""
    uri: str = ""
    """``sqlite:///...``, ``postgresql+psycopg2://...``, ``http(s)://...`` (Iceberg REST) or ``thrift://...``
    (Hive). Default: an SQLite file in the user's data folder, which is right for one machine; teams use
    PostgreSQL or REST."""
    warehouse: str = ""
    """Where the tables' files go: a folder or an ``s3://`` URI. Default: beside the SQLite file."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """Further PyIceberg properties, such as ``s3.endpoint``."""
    timeout: float = 30.0
    """Seconds for which a catalog that is locked or down is tried before :class:`CatalogUnavailableError`, and S3
    that is down or asks to slow down before :class:`StorageUnavailableError`."""
    credentials: str = ""
    """A file with the keys of S3, in the form of AWS's own credentials file. It is read again when it changes, so
    that a job outlives its keys; every process looks at its own copy. Default: keys are among ``properties``, or
    where the AWS SDK finds them."""

    @property
    def kind(self) -> str:
        """``sqlite``, ``postgresql``, ``rest`` or ``hive``, by the URI's scheme."""
        scheme = self.uri.split(":", 1)[0].split("+", 1)[0].lower()
        kinds = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql"}
        kinds |= {"http": "rest", "https": "rest", "thrift": "hive"}
        if scheme not in kinds:
            raise UsageError(
                f"The catalog's URI starts with {scheme!r}, which is not a supported kind of catalog.",
                hint="Use sqlite:///PATH, postgresql+psycopg2://..., https://... or thrift://...",
            )
        return kinds[scheme]

    @property
    def for_storage(self) -> dict[str, str]:
        """The further properties, with what our own access to S3 has to know."""
        properties = {TIMEOUT: f"{self.timeout:g}", **self.properties}
        return {**properties, CREDENTIALS: self.credentials} if self.credentials else properties

    @property
    def shown_uri(self) -> str:
        """The URI without its password."""
        return without_password(self.uri)

    @property
    def sqlite_file(self) -> Path | None:
        """The SQLite catalog's file; ``None`` for other kinds and for a database in memory."""
        if self.kind != "sqlite":
            return None
        # Not by SQLAlchemy, which takes longer to import than all else that a command needs.
        database = self.uri.partition(":///")[2].partition("?")[0]
        return Path(database) if database and database != ":memory:" else None

    def __repr__(self) -> str:
        shown = {k: "***" if is_secret(k) else v for k, v in sorted(self.properties.items())}
        return (
            f"CatalogSettings(name={self.name!r}, uri={self.shown_uri!r}, warehouse={self.warehouse!r}, "
            f"properties={shown!r}, timeout={self.timeout!r}, credentials={self.credentials!r})"
        )

    def __hash__(self) -> int:
        properties = tuple(sorted(self.properties.items()))
        return hash((self.name, self.uri, self.warehouse, properties, self.timeout, self.credentials))


def without_password(uri: str) -> str:
    """A catalog's URI as it may be shown."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        shown = make_url(uri).render_as_string(hide_password=True)
    except ArgumentError:
        return re.sub(r"//[^/]*@", "//***@", uri)
    # To the last @: one in a password need not be written as %40.
    return re.sub(r":\*\*\*@[^/]*@", ":***@", shown)


_hook: Callable[[], CatalogSettings | None] | None = None
_before_default: Callable[[], None] | None = None


def use(
    source: CatalogSettings | Callable[[], CatalogSettings | None] | None,
    before_default: Callable[[], None] | None = None,
) -> None:
    """Set what :func:`settings` falls back on before its own defaults.

    ``source`` is a value, a function that is asked each time (``None`` from it means "no opinion"), or
    ``None`` to take the hook away. Fields left empty in it are filled by the defaults. ``before_default`` is called
    where nobody names a catalog, and may raise: a file of this machine is not right everywhere.
    """
    global _before_default, _hook
    _before_default = before_default
    if isinstance(source, CatalogSettings):
        value = source
        _hook = lambda: value  # noqa: E731 - a named function would say no more
    else:
        _hook = source


def settings(
    explicit: CatalogSettings | None = None, *, uri: str | None = None, warehouse: str | None = None
) -> CatalogSettings:
    """The catalog in force: arguments, else ``SHOAL_CATALOG_URI`` / ``SHOAL_CATALOG_WAREHOUSE`` /
    ``SHOAL_CATALOG_CREDENTIALS`` / ``SHOAL_CATALOG_TIMEOUT`` (seconds) / ``SHOAL_CATALOG_PROPERTIES`` (a JSON
    object), else what :func:`use` was given, else the default.

    Settled field by field; an ``explicit`` settings object with a URI is taken as it is. Touches no file.
    """
    if not isinstance(explicit, CatalogSettings | None):
        raise no_settings(explicit)
    if explicit is not None and explicit.uri:
        return _complete(explicit)
    base = explicit or (_hook() if _hook is not None else None) or CatalogSettings()
    env = os.environ
    # A URI from a nearer source must not be joined with the warehouse of a farther one.
    chosen_uri = uri or env.get("SHOAL_CATALOG_URI") or ""
    chosen_warehouse = (
        warehouse or env.get("SHOAL_CATALOG_WAREHOUSE") or ("" if chosen_uri else base.warehouse)
    )
    if not (chosen_uri or base.uri) and _before_default is not None:
        _before_default()
    properties = dict(base.properties)
    if raw := env.get("SHOAL_CATALOG_PROPERTIES"):
        try:
            properties |= {str(k): str(v) for k, v in json.loads(raw).items()}
        except (ValueError, AttributeError) as error:
            raise UsageError(
                "SHOAL_CATALOG_PROPERTIES is not a JSON object.",
                hint='For example: {"s3.endpoint": "http://..."}',
            ) from error
    return _complete(
        replace(
            base,
            uri=chosen_uri or base.uri,
            warehouse=chosen_warehouse,
            properties=properties,
            credentials=env.get("SHOAL_CATALOG_CREDENTIALS") or base.credentials,
            timeout=_timeout(env.get("SHOAL_CATALOG_TIMEOUT"), base.timeout),
        )
    )


def _timeout(text: str | None, otherwise: float) -> float:
    try:
        return float(text) if text else otherwise
    except ValueError as error:
        raise UsageError(
            f"SHOAL_CATALOG_TIMEOUT is {text!r}, which is not a number of seconds.", hint="For example 60."
        ) from error


def _complete(given: CatalogSettings) -> CatalogSettings:
    uri, warehouse = given.uri, given.warehouse
    if not uri:
        chosen = os.environ.get("SHOAL_DATA")
        folder = Path(chosen).absolute() if chosen else platformdirs.user_data_path("shoal")
        uri = f"sqlite:///{folder / 'catalog.db'}"
    elif (file := replace(given, uri=uri).sqlite_file) and not file.is_absolute():
        uri = f"sqlite:///{file.absolute()}"
    credentials = str(Path(given.credentials).expanduser().absolute()) if given.credentials else ""
    settled = replace(given, uri=uri, credentials=credentials)
    _check_endpoint(given.properties.get("s3.endpoint", ""))
    if not warehouse:
        if (file := settled.sqlite_file) is not None:
            warehouse = str(file.parent / "warehouse")
        elif settled.kind in ("postgresql", "sqlite"):
            raise UsageError(
                f"The catalog {settled.shown_uri} does not say where the tables' files go.",
                hint="Set the warehouse (SHOAL_CATALOG_WAREHOUSE) to a folder or an s3:// URI.",
            )
    if warehouse and "://" not in warehouse and not warehouse.startswith("file:") and settled.kind != "rest":
        warehouse = f"file://{Path(warehouse).expanduser().absolute()}"
    return replace(settled, warehouse=warehouse)


def _check_endpoint(endpoint: str) -> None:
    """UsageError for an endpoint that each engine would read differently."""
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise UsageError(
            f"s3.endpoint is {endpoint!r}, without http:// or https://.",
            hint=f"Write it as https://{endpoint}, or http://{endpoint} for a server without TLS.",
            endpoint=endpoint,
        )


def _make_folders(given: CatalogSettings) -> None:
    """The folders of a local catalog, readable by their owner alone. What exists keeps its mode."""
    folders = []
    if (file := given.sqlite_file) is not None:
        folders.append(file.parent)
    if given.warehouse.startswith("file://"):
        folders.append(Path(given.warehouse.removeprefix("file://")))
    for folder in folders:
        missing = [p for p in (folder, *folder.parents) if not p.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)


def pyiceberg_properties(given: CatalogSettings) -> dict[str, str]:
    """What ``pyiceberg.catalog.load_catalog`` is told."""
    types = {"sqlite": "sql", "postgresql": "sql", "hive": "hive"}
    properties = {"uri": given.uri, **given.for_storage}
    if given.kind == "rest":
        properties = {"py-catalog-impl": _REST, **for_rest(given), **properties}
    else:
        properties["type"] = types[given.kind]
    properties = {**implementation(given.warehouse, properties), **properties}
    if given.warehouse:
        properties["warehouse"] = given.warehouse
    if given.kind == "sqlite":
        from sqlalchemy.engine import make_url

        # Seconds that SQLite itself waits for a lock before `reach` tries again: short, so that
        # a given deadline is kept, long enough that a commit next door is waited for in one go.
        url = make_url(given.uri).update_query_dict({"timeout": str(min(5.0, given.timeout))})
        properties["uri"] = url.render_as_string(hide_password=False)
    if given.kind == "postgresql":
        properties["uri"] = with_driver(given.uri)
    return properties


def for_rest(given: CatalogSettings) -> dict[str, str]:
    """What both engines' clients of a REST catalog are told of how to log in, which each would guess otherwise."""
    named = "oauth2-server-uri" in given.properties or "credential" not in given.properties
    return {} if named else {"oauth2-server-uri": f"{given.uri.rstrip('/')}/v1/oauth/tokens"}


def access(given: CatalogSettings) -> FileIO:
    """Access to the files of the warehouse."""
    from pyiceberg.io import load_file_io

    return load_file_io(pyiceberg_properties(given), given.warehouse)


def implementation(location: str, properties: Mapping[str, str]) -> dict[str, str]:
    """Which class gives access to files, where nobody said so: our own for S3, PyIceberg's choice elsewhere."""
    ours = on_s3(location) or any(name.startswith("s3.") for name in properties)
    return {"py-io-impl": IMPLEMENTATION} if ours else {}


_open: dict[
    tuple[int, CatalogSettings], Catalog
] = {}  # one per process, so that a fork never shares a connection
_lock = threading.Lock()


def catalog(given: CatalogSettings | None = None) -> Catalog:
    """The PyIceberg catalog of these settings (default: those in force), with its own tables made.

    PyIceberg makes the catalog's tables and Spark is told not to: on SQLite, a Spark that finds them
    missing keeps a read transaction open and locks everyone out.

    Raises :class:`CatalogUnavailableError` when it cannot be reached within ``timeout``.
    """
    settled = settings(given)
    key = (os.getpid(), settled)
    with _lock:
        if key not in _open:
            _make_folders(settled)
            _open[key] = reach(settled, "open the catalog", lambda: _load(settled))
        return _open[key]


def _load(settled: CatalogSettings) -> Catalog:
    from pyiceberg.catalog import load_catalog
    from sqlalchemy.exc import OperationalError, ProgrammingError

    try:
        return load_catalog(settled.name, **pyiceberg_properties(settled))
    except (OperationalError, ProgrammingError) as error:
        # Two processes made the tables at once; the second finds them on its next look.
        if "already exists" not in str(error):
            raise
        return load_catalog(settled.name, **pyiceberg_properties(settled))


def identifier(name: str, given: CatalogSettings) -> Identifier:
    """``"nyc.flights"`` or ``"shoal.nyc.flights"`` -> ``("nyc", "flights")``.

    The catalog's own name in front, as Spark's SQL wants it, is taken off.
    """
    if is_path(name):
        raise read_only(name)
    parts = tuple(name.split(".")) if isinstance(name, str) else ()
    if len(parts) > 2 and parts[0] == given.name:
        parts = parts[1:]
    if len(parts) < 2 or not all(map(is_name, parts)):
        raise UsageError(
            f"{name!r} is not a table name.",
            hint='A table is named "namespace.table", such as "nyc.flights"; without /, # and ?, which no folder of it '
            "can have in its name.",
        )
    return parts


def load(name: str, given: CatalogSettings | None = None) -> Table:
    """The table as it is now. Raises :class:`TableNotFoundError`, with the names that are like it, and
    :class:`NotSupportedError` for a view."""
    if (found := find(name, given)) is not None:
        return found
    settled = settings(given)
    opened, ident = catalog(settled), identifier(name, settled)
    raise reach(settled, "list the tables", lambda: no_table(opened, ident, settled.shown_uri))


def find(name: str, given: CatalogSettings | None = None) -> Table | None:
    """The table as it is now, or None. For whoever goes on without: names that are like it are not looked for, which
    takes as long as the catalog is large. Raises :class:`NotSupportedError` for a view."""
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError, ValidationError

    settled = settings(given)
    ident = identifier(name, settled)
    opened = catalog(settled)
    try:
        return reach(settled, f"load the table {name}", lambda: opened.load_table(ident))
    except (ValueError, NotImplementedError, ValidationError) as error:  # also pydantic's
        raise unreadable(".".join(ident), error) from error
    except (NoSuchTableError, NoSuchNamespaceError):
        reach(settled, f"look for {name}", lambda: refuse_view(opened, ident))
        return None
