"""A check: one thing that a part of Shoal proves of itself, for ``shoal doctor`` and ``shoal validate``.

Why it exists: homes prove themselves, and commands show what came of it, without knowing each other.
"""

from __future__ import annotations

from collections.abc import Callable


class Warned(Exception):
    """Not as it should be, and one can work nevertheless. ``fix``: the command or step that fixes it."""

    def __init__(self, said: str, fix: str) -> None:
        super().__init__(said)
        self.said, self.fix = said, fix


class Failed(Exception):
    """Proved wrong. ``fix``: the command or step that fixes it."""

    def __init__(self, said: str, fix: str) -> None:
        super().__init__(said)
        self.said, self.fix = said, fix


Check = tuple[str, Callable[[], str]]
"""Its name, and what proves it: returns what it saw, or raises Warned, Failed or a ShoalError."""
