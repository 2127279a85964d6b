"""Variables of the environment in a target: ``${NAME}`` and ``${NAME:-default}``, so that secrets stay out of files.

Why it exists: where clusters are and where tables are is known separately, and one may be unset where the other is not.

What it must not do: read files.
"""

from __future__ import annotations

import os
import re
from typing import Any

from shoal.errors import UsageError
from shoal.project.folders import FILE
from shoal.project.targets import Target
from shoal.project.yamlfile import dotted


class UnsetVariableError(UsageError):
    """A value of ``shoal.yaml`` needs a variable of the environment that is not set."""


def _expand(text: str | None, *path: str) -> str | None:
    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], match[2])
        if found is None:
            raise UnsetVariableError(
                f"{FILE}: {dotted(path)} needs the environment variable {match[1]}, which is not set",
                hint=f"Set {match[1]}, or write ${{{match[1]}:-default}}.",
                path=path,
                variable=match[1],
            )
        return found

    return None if text is None else re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text)


def with_store(target: Target) -> Target:
    """The target with its ledger's variables read; UnsetVariableError."""
    return target.model_copy(update={"store": _expand(target.store, "targets", target.name, "store")})


def with_catalog(target: Target) -> Target:
    """The target with its catalog's variables read; UnsetVariableError."""
    if target.catalog is None:
        return target
    path, said = ("targets", target.name, "catalog"), target.catalog
    update: dict[str, Any] = {
        key: _expand(getattr(said, key), *path, key) for key in ("uri", "warehouse", "credentials")
    }
    update["properties"] = {
        key: _expand(value, *path, "properties", key) for key, value in said.properties.items()
    }
    return target.model_copy(update={"catalog": said.model_copy(update=update)})
