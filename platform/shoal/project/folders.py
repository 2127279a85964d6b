"""Finds the project folder. Light: it is asked before anything else is imported.

Why it exists: what is done ahead of a decision has to know the folder long before its files are checked.

What it must not do: read what is in it (``project`` does).
"""

from __future__ import annotations

import os
from pathlib import Path

FILE = "shoal.yaml"


def defaults() -> Path:
    """The shipped project folder: in the wheel, or the repository itself in an editable install."""
    shipped = Path(__file__).parents[1] / "_defaults"
    return shipped if (shipped / FILE).is_file() else Path(__file__).resolve().parents[3]


def find(start: Path | None = None) -> Path:
    """The nearest folder from ``start`` (default: the current one) upwards with a ``shoal.yaml``.

    Without ``start``, the environment's ``SHOAL_PROJECT`` goes before it. Without any: the shipped defaults.
    """
    chosen = os.environ.get("SHOAL_PROJECT") if start is None else None
    if chosen:
        return Path(chosen)  # where there is none, whoever reads it says so
    return nearest(start or Path.cwd()) or defaults()


def nearest(start: Path) -> Path | None:
    """The nearest folder from ``start`` upwards with a ``shoal.yaml``; None where there is none."""
    here = start.resolve()
    return next((folder for folder in (here, *here.parents) if (folder / FILE).is_file()), None)
