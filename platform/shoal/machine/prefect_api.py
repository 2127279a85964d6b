"""Prefect's own API: what a flow starts on this computer where no server is named.

Why it exists: its settings are read when Prefect is imported, so whoever imports it for a person settles them first.

What it must not do: import Prefect.
"""

from __future__ import annotations

import os

START = 120
"""s that its start may take: Prefect's own limit is too short for a fresh home on two busy cores (up to 63 s)."""

_SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(START),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",  # that it waits for a lock, and retries, concerns nobody
}


def settle() -> None:
    """Have it start with patience, without telemetry or chatter, where the environment does not say otherwise."""
    for setting, wanted in _SETTINGS.items():
        os.environ.setdefault(setting, wanted)
