"""Flows to start from: each is a function that gives an ordinary Prefect flow from a few arguments.

Why it exists: most pipelines differ in a function and three names; the rest (clusters, a quality gate, what was done
already, what a retry finds) is the same each time, and easily wrong. ``shoal init --flow etl NAME`` writes a file
that uses one.

What it must not do: write or read tables, or start clusters, in a way of its own (``tables`` and ``prefect`` do);
import Prefect before a flow is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from shoal.errors import MissingExtraError
from shoal.machine import prefect_api

if TYPE_CHECKING:
    from shoal.flows.analytics import analytics
    from shoal.flows.etl import etl
    from shoal.flows.ml_training import ml_training
    from shoal.flows.reporting import Plot

_HOME_OF = {
    "etl": "shoal.flows.etl",
    "analytics": "shoal.flows.analytics",
    "ml_training": "shoal.flows.ml_training",
    "Plot": "shoal.flows.reporting",
}

__all__ = ["Plot", "analytics", "etl", "ml_training"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'shoal.flows' has no attribute {name!r}")
    prefect_api.settle()
    try:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "prefect":
            raise
        raise MissingExtraError.of("shoal.flows", "Prefect", "prefect") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
