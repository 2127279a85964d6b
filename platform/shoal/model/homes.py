"""The homes that Shoal brings itself, by the names that ``home:`` of a target in ``shoal.yaml`` has for them.

Why it exists: what is compared with such a name is typed; installed packages may bring homes of other names.
"""

from __future__ import annotations

from enum import StrEnum


class HomeKind(StrEnum):
    """A home of Shoal's own."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"
