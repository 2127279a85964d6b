"""Which home stands behind a target: the one place that knows the homes.

Why it exists: callers say which target; only this knows which class stands behind it. A package may bring a home
of its own, by an entry point (group ``shoal.homes``) whose name is what ``home:`` says in shoal.yaml.

What it must not do: anything else; or import a home that is not asked for.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.errors import UsageError

if TYPE_CHECKING:
    from shoal.homes.base import Home
    from shoal.project.loading import Project


def open_home(project: Project) -> Home:
    """The home of the project's target; UsageError for one that this version does not have."""
    name = project.target.home
    if name == "local":
        from shoal.homes.local.home import LocalHome

        return LocalHome(project)
    from shoal.project.targets import installed_homes

    if (brought := installed_homes().get(name)) is not None:
        home: Home = brought.load()(project)
        return home
    raise UsageError(
        f"target {project.target.name!r} has home {name!r}: not in this version",
        hint="Use a target with `home: local` (--target local).",
    )


def user_of(project: Project) -> str:
    """Who is asking, by the project's home; the login name where this version does not have that home."""
    try:
        home = open_home(project)
    except UsageError:
        from shoal.machine.people import login

        return login()
    return home.user()


def ahead(
    engine: str, project: str | Path | None = None, target: str | None = None, cluster_id: str | None = None
) -> AbstractContextManager[str]:
    """Inside the block a head's process may be on its way for the cluster whose id this gives.

    See :func:`shoal.homes.local.ahead.ahead`: the one home that does this looks by itself whether the target is
    one of its own. Before anything heavy is imported.
    """
    from shoal.homes.local.ahead import ahead as started

    return started(engine, project, target, cluster_id)
