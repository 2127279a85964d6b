"""Flows to start from: each is a function that gives an ordinary Prefect flow from a few arguments.

Why it exists: most pipelines differ in a function and three names; the rest (clusters, a quality gate, what was done
already, what a retry finds) is the same each time, and easily wrong. ``shoal init --flow etl NAME`` writes a file
that uses one.

What it must not do: write or read tables, or start clusters, in a way of its own (``tables`` and ``prefect`` do);
import Prefect before a flow is asked for.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from shoal.errors import MissingExtraError

if TYPE_CHECKING:
    from shoal.flows.etl import etl

_HOME_OF = {"etl": "shoal.flows.etl"}

__all__ = ["etl"]

# Of Prefect's own API, which a flow starts where no server is named; they count if Prefect is not imported yet.
_SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine takes longer than Prefect waits
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",  # a lock that it waits for does not belong in a flow's log
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'shoal.flows' has no attribute {name!r}")
    for setting, wanted in _SETTINGS.items():
        os.environ.setdefault(setting, wanted)
    try:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "prefect":
            raise
        raise MissingExtraError(
            "shoal.flows needs Prefect, which is not installed",
            hint="pip install 'shoal[prefect]'",
            extra="prefect",
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
