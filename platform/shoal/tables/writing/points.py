"""The moments at which a write may be killed.

Why it exists: "nothing is lost or doubled" is only true of moments that were tried, so they have names, and a
test that kills at each; a name without a case fails the tests. In ordinary use every point does nothing.
What it must not do: depend on the environment (only a test's own code can set the hook).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class WritePoint(StrEnum):
    """Moments of a write, in order."""

    WORKER_BEFORE_FILE = "worker, before it makes a file"
    WORKER_IN_FILE = "worker, with a file half written"
    WORKER_AFTER_FILES = "worker, its files written, its answer not sent"
    CLIENT_BEFORE_WRITE = "client, before any file"
    CLIENT_AFTER_FILES = "client, all files written, commit not begun"
    CLIENT_BEFORE_SWAP = "client, manifests written, catalog not changed"
    CLIENT_AFTER_SWAP = "client, catalog changed, its answer lost"
    CLIENT_BEFORE_SWEEP = "client, commit acknowledged, leftovers not deleted"


hook: Callable[[WritePoint], None] | None = None
"""Set by tests; ``None`` in ordinary use."""


def reached(point: WritePoint) -> None:
    """Say that a write has come to this moment."""
    if hook is not None:
        hook(point)
