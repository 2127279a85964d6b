"""The home that a project's target names.

Why it exists: callers say which target; only this knows which class stands behind it.

What it must not do: anything else.
"""

from __future__ import annotations

from shoal.errors import UsageError
from shoal.homes.local.home import LocalHome
from shoal.project.loading import Project


def open_home(project: Project) -> LocalHome:
    """The home of the project's target; UsageError for one that this version does not have."""
    if project.target.home == "local":
        return LocalHome(project)
    raise UsageError(
        f"target {project.target.name!r} has home {project.target.home!r}: not in this version",
        hint="Use a target with `home: local` (--target local).",
    )
