"""Tables of a format version that cannot be changed from here.

Why it exists: PyIceberg reads version 3, but writes neither its manifests nor its metadata files, and says so in the
middle of a commit, when an empty metadata file is there already. What it must not do: refuse what can be done.
"""

from __future__ import annotations

import pyiceberg
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.table import Table

from shoal.tables.errors import NotSupportedError

_WRITTEN = 2


def refuse_newer(table: Table, name: str, hint: str, *, metadata_only: bool = False) -> None:
    """Raise :class:`NotSupportedError` for a table whose format version PyIceberg does not write.

    ``metadata_only``: of a change that writes no manifest; a REST catalog writes the metadata by itself.
    """
    if table.metadata.format_version <= _WRITTEN or (
        metadata_only and isinstance(table.catalog, RestCatalog)
    ):
        return
    raise NotSupportedError(
        f"The table {name} is of format version {table.metadata.format_version}, and PyIceberg "
        f"{pyiceberg.__version__} writes up to version {_WRITTEN}.",
        hint=hint,
    )
