"""Which home stands behind a target: the one place that knows the homes.

Why it exists: callers say which target; only this knows which class stands behind it. A package may bring a home
of its own, by two entry points whose name is what ``home:`` says in shoal.yaml: one of the group ``shoal.homes``
(called with a project, gives a :class:`shoal.homes.base.Home`) and one of ``shoal.desks`` (called with a cluster's
id in its head, gives a :class:`shoal.homes.base.Desk`).

What it must not do: anything else; or import a home that is not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shoal.errors import MissingExtraError, UsageError
from shoal.model.homes import HomeKind

if TYPE_CHECKING:
    from shoal.homes.base import Desk, Home
    from shoal.model.outlook import Outlook
    from shoal.project.loading import Project


def open_home(project: Project) -> Home:
    """The home of the project's target; UsageError for one that this version does not have."""
    name = project.target.home
    if name == HomeKind.LOCAL:
        from shoal.homes.local.home import LocalHome

        return LocalHome(project)
    if name == HomeKind.KUBERNETES:
        with _extra():
            from shoal.homes.kubernetes.home import KubernetesHome

        return KubernetesHome(project)
    if (brought := _brought("shoal.homes", name)) is not None:
        home: Home = brought(project)
        return home
    raise UsageError(
        f"target {project.target.name!r} has home {name!r}, which this version does not have",
        hint="Use a target with `home: local` (--target local).",
    )


def open_desk(home: str, cluster_id: str) -> Desk:
    """Where the head of this cluster reports to and asks, at the home of this name; UsageError for an unknown one."""
    if home == HomeKind.LOCAL:
        from shoal.homes.local.desk import LocalDesk

        return LocalDesk(cluster_id)
    if home == HomeKind.KUBERNETES:
        with _extra():
            from shoal.homes.kubernetes.desk import KubernetesDesk

        return KubernetesDesk(cluster_id)
    if (brought := _brought("shoal.desks", home)) is not None:
        desk: Desk = brought(cluster_id)
        return desk
    raise UsageError(f"there is no home {home!r} here", hint="Install the package that brings it.")


class Program(Protocol):
    """A program that governs a place."""

    def run(self) -> None:
        """Until :meth:`stop`."""
        ...

    def stop(self) -> None:
        """End soon; may be called by a signal."""
        ...


def govern(
    project: Project, health: int = 0, system: str | None = None, namespaces: tuple[str, ...] = ()
) -> Program:
    """What governs the project's target, to be run. ``health``: the port on which it tells whether it lives.

    ``system``, ``namespaces``: where the governor's own objects are, and what it looks after, whatever the target says.

    Raises:
        UsageError: the target's home needs no program to govern it.
    """
    _only_kubernetes(project, "`shoal governor` is for Kubernetes: home {home!r} needs no governor")
    with _extra():
        from shoal.homes.kubernetes.governing import governing_of

        return governing_of(project, health, system, namespaces)


def manifests(
    project: Project, users: tuple[str, ...] | None = None, *, definitions: bool = False
) -> list[dict[str, Any]]:
    """The objects that the project's target needs before clusters can be asked for; for these users alone.

    ``definitions``: only those that have to be there before the others.

    Raises:
        UsageError: the target's home needs none.
    """
    _only_kubernetes(project, "`shoal render` is for Kubernetes: home {home!r} needs nothing prepared")
    from shoal.homes.kubernetes.manifests import rendered

    every = rendered(project, users)
    return [each for each in every if each["kind"] == "CustomResourceDefinition"] if definitions else every


def in_force(project: Project, template: str | None = None) -> Project:
    """The project as its target goes by it: where one is applied to a server, that counts, and not these files.

    ``template``: the one that is asked for.
    """
    if not project.target.in_pods:
        return project
    try:
        with _extra():
            from shoal.homes.kubernetes.api import Api
            from shoal.homes.kubernetes.in_force import asked
            from shoal.homes.kubernetes.location import Location

        api = Api.of(Location.of(project.target).context)
    except UsageError as error:  # planned for from somewhere else
        return replace(project, numbers=f"by the files in {project.folder}: {error.message}")
    return asked(project, api, template)


class Putting(Protocol):
    """Puts a project on the server of its target."""

    def outlook(self) -> Outlook:
        """What would change; nothing is changed."""
        ...

    def apply(self, outlook: Outlook) -> None:
        """Do it."""
        ...

    def in_force(self, seconds: float = 0.0) -> tuple[int, int, str]:
        """The generation that is applied, the one in force, and what is wrong."""
        ...


def applying(project: Project) -> Putting:
    """What puts the project on the server of its target.

    Raises:
        UsageError: the target's home reads the project's files itself.
    """
    _only_kubernetes(
        project, "`shoal apply` is for Kubernetes: home {home!r} reads the project's files at each command"
    )
    with _extra():
        from shoal.homes.kubernetes.applying import Applying

        return Applying(project)


def _only_kubernetes(project: Project, said: str) -> None:
    if not project.target.in_pods:
        names = [name for name, each in project.targets.items() if each.in_pods]
        way = f"Use --target {' or '.join(names)}." if names else "Add a target with `home: kubernetes`."
        raise UsageError(said.format(home=project.target.home), hint=way)


@contextmanager
def _extra() -> Iterator[None]:
    """MissingExtraError where what a home needs is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("home 'kubernetes'", str(error.name), "kubernetes") from error


def _brought(group: str, name: str) -> Any:
    """What an installed package brings under this name; None where none does."""
    from importlib.metadata import entry_points

    found = list(entry_points(group=group, name=name))
    return found[0].load() if found else None


def user_of(project: Project) -> str:
    """Who is asking, by the project's home; the login name where that home is not to be had here."""
    try:
        return open_home(project).user()
    except UsageError:
        from shoal.machine.people import login

        return login()


def ahead(
    engine: str, project: str | Path | None = None, target: str | None = None, cluster_id: str | None = None
) -> AbstractContextManager[str]:
    """Inside the block a head's process may be on its way for the cluster whose id this gives.

    See :func:`shoal.homes.local.ahead.ahead`: the one home that does this looks by itself whether the target is
    one of its own. Before anything heavy is imported.
    """
    from shoal.homes.local.ahead import ahead as started

    return started(engine, project, target, cluster_id)
