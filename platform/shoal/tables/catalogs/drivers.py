"""Which driver a PostgreSQL is spoken to by, for catalogs and ledgers alike.

Why it exists: SQLAlchemy's own choice for ``postgresql://`` moves with its version, and need not be installed.

What it must not do: connect.
"""

from __future__ import annotations

import importlib.util

from shoal.errors import MissingExtraError


def with_driver(uri: str) -> str:
    """A PostgreSQL URI that names a driver which is installed; one that names its own is left alone.

    Raises:
        MissingExtraError: none is installed.
    """
    scheme, _, rest = uri.partition("://")
    if "+" in scheme:
        return uri
    for driver in ("psycopg2", "psycopg"):
        if importlib.util.find_spec(driver) is not None:
            return f"postgresql+{driver}://{rest}"
    raise MissingExtraError(
        "PostgreSQL needs a driver, and neither psycopg2 nor psycopg is installed.",
        hint="pip install 'shoal[postgresql]'",
        extra="postgresql",
    )
