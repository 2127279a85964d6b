"""Small helpers for sentences that people read.

Why it exists: "did you mean", lists and plurals are said the same way in every error.

What it must not do: know anything about clusters; it is below everything.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'etl'? Known: analytics, etl"``, or only what is known when nothing is near.

    >>> did_you_mean("elt", ["etl", "analytics"])
    "did you mean 'etl'? Known: analytics, etl"
    """
    names = sorted(known)
    lower = {known.lower(): known for known in reversed(names)}
    near = [lower[found] for found in difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)]
    listed = f"Known: {', '.join(names)}" if names else "none is defined"
    return f"did you mean {near[0]!r}? {listed}" if near else listed


def sentence(text: str) -> str:
    """``text`` as a sentence of its own.

    >>> sentence("did you mean 'etl'? Known: etl")
    "Did you mean 'etl'? Known: etl."
    """
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def listed(names: Iterable[str], last: str = "and") -> str:
    """``"a, b and c"``."""
    items = list(names)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def count(number: float, one: str, many: str | None = None) -> str:
    """``"1 worker"``, ``"3 workers"``, ``"1,200,000 rows"``."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {one if shown == '1' else many or one + 's'}"
