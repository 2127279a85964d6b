"""The project in force, and a cluster of the user's by its name.

Why it exists: `shoal ls`, `why`, `quota` and the like look and open nothing; they are called often, and what opens
clusters takes longer to import than they take to answer.

What it must not do: import a handle or an engine.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from shoal.client.wiring import wire
from shoal.errors import NotFoundError, UsageError
from shoal.homes.base import Home
from shoal.model.cluster import Cluster
from shoal.project.loading import Project, load
from shoal.project.yamlfile import Fault

_NAMED = 10  # clusters that a hint names
_warned: set[tuple[Fault, ...]] = set()  # faults that this process was warned of


def open_project(
    folder: str | Path | None = None, target: str | None = None, *, looking: bool = False
) -> Project:
    """The project in force, with its catalog made the one that tables are read from.

    ``looking``: for what has to work with wrong values in ``shoal.yaml``, too (see :func:`shoal.project.loading.load`).
    """
    project = load(Path(folder) if folder is not None else None, target, tolerant=True, looking=looking)
    if project.faults and project.faults not in _warned:
        _warned.add(project.faults)
        lines = "\n".join(f"  {fault}" for fault in project.faults)
        print(
            f"Warning: the parts of the project that have these faults are ignored:\n{lines}", file=sys.stderr
        )
    wire(project)
    return project


def find(home: Home, name: str, *, ended: bool = False) -> Cluster:
    """The user's live cluster of that name; NotFoundError with names that are like it, UsageError for no text.

    ``ended``: else the last one of that name that has ended.
    """
    if not isinstance(name, str):
        raise UsageError(f"{name!r} is not a cluster's name", hint="Pass a string; `shoal ls` lists yours.")
    found = home.find(name, home.user())
    if found is not None and (ended or not found.state.ended):
        return found
    known = list(dict.fromkeys(c.name for c in home.clusters(owner=home.user(), ended=ended)))
    which = "" if ended else "live "
    if like := difflib.get_close_matches(name, known, n=3):
        hint = f"Did you mean {' or '.join(like)}?"
    elif known:
        more = f", and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        hint = f"Your {which}clusters: {', '.join(known[:_NAMED])}{more}."
    else:
        hint = "`shoal up` starts one." if ended else "`shoal ls --all` lists those that have ended."
    last = f" (the last one of that name ended: {found.reason}, {found.message})" if found else ""
    message = f"you have no {which}cluster named {name!r}{last}"
    raise NotFoundError(message, hint=hint, name=name, known=known)
