"""What putting a project on a server would change, told before it is done.

Why it exists: the home knows what differs, a command shows it, and neither needs the other's modules for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class What(StrEnum):
    """What happens to an object."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True)
class Change:
    """One object. ``lines``: what of it changes, as ``path: before -> after``. ``touches``: running clusters.

    ``object``: as it is to be.
    """

    what: What
    kind: str
    namespace: str
    name: str
    lines: tuple[str, ...] = ()
    touches: tuple[str, ...] = ()
    object: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Outlook:
    """What applying would do. ``waits``: what cannot be done yet, as sentences."""

    project: str
    server: str
    changes: tuple[Change, ...]
    waits: tuple[str, ...] = ()
