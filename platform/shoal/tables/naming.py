"""What a table may be called, and what is said of one that cannot be read.

Why it exists: apart from the catalog, so that both stay short. What it must not do: import anything heavy at its top,
for every command imports it.
"""

from __future__ import annotations

from shoal.errors import UsageError
from shoal.tables.errors import NotSupportedError


def is_name(part: str) -> bool:
    """Whether this can be a part of a table's name, which becomes the name of a folder too."""
    # Of the address of a file, "#" and "?" are the end of its path.
    whole = bool(part) and part.strip() == part and part.isprintable() and len(part) <= 200
    return whole and not set("/#?") & set(part)


def no_settings(given: object) -> UsageError:
    """The error for ``catalog=`` that is something else."""
    return UsageError(
        f"catalog={given!r} is {type(given).__name__}, not CatalogSettings.",
        hint='For example catalog=shoal.tables.catalogs.opening.CatalogSettings(uri="sqlite:////data/catalog.db").',
    )


def unreadable(name: str, error: Exception) -> NotSupportedError:
    """The error for a table whose metadata PyIceberg does not understand."""
    import pyiceberg

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Pydantic's report, also inside PyIceberg's own error: the fault stands below its place.
    reason = next(
        (line.split(" [type=")[0] for line in lines if " [type=" in line), lines[0] if lines else ""
    )
    return NotSupportedError(
        f"The metadata of {name} holds what PyIceberg {pyiceberg.__version__} cannot read: {reason}.",
        hint="Variant and geometry columns are examples. Spark reads it, and can copy the other columns: "
        f"CREATE TABLE ... AS SELECT ... FROM shoal.{name}",
    )
