"""What is in force: the projects that were applied to a server, as the governor and whoever asks go by them.

Why it exists: templates of several projects live side by side, policies have one owner, and a project that is at fault
changes nothing: what was good before stays in force.

What it must not do: import a client.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from shoal.errors import ConfigError, InfrastructureError, NotFoundError, ShoalError
from shoal.homes.kubernetes.applied import (
    Applied,
    ProjectStatus,
    applied_name,
    applied_of,
    names_unknown,
    template_of,
    template_written,
)
from shoal.homes.kubernetes.errors import RightsError
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.names import PROJECT, Json
from shoal.homes.kubernetes.structure import read, written
from shoal.project.loading import Project, defaults, load
from shoal.project.policy import Policy
from shoal.project.targets import Beside, Machine, Target
from shoal.project.templates import Template
from shoal.project.yamlfile import Fault, raise_faults
from shoal.words import did_you_mean, listed

if TYPE_CHECKING:
    from shoal.homes.kubernetes.api import Api
    from shoal.homes.kubernetes.caches import Cache
    from shoal.homes.kubernetes.drift import DriftWatch

_log = logging.getLogger("shoal.homes")


class NotAppliedError(InfrastructureError):
    """Nobody has applied a project to this server yet."""

    def __init__(self, system: str) -> None:
        super().__init__(
            f"no project is applied: there is no Project in force in namespace {system}",
            hint="An administrator runs `shoal apply` in the project's folder.",
        )
        self.args = (self.message,)


_UNREAD = (RightsError, NotFoundError, NotAppliedError)  # by an older Role, or before the first `shoal apply`


@cache
def _shipped() -> Policy:
    return load(defaults(), "kubernetes").policy


@dataclass(frozen=True)
class InForce:
    """The good ones, by name. ``owner``: whose policies are in force (None: the shipped ones)."""

    system: str
    projects: Mapping[str, Applied] = field(default_factory=dict)
    owner: str | None = None
    policy: Policy = field(default_factory=_shipped)

    @classmethod
    def of(cls, system: str, projects: Mapping[str, Applied], owner: str | None) -> InForce:
        """With the owner's policies."""
        policies = projects[owner].policies if owner is not None else None
        return cls(system, projects, owner, _shipped() if policies is None else policies.policy)

    @property
    def beside(self) -> Beside:
        """What other pods may take beside clusters, as the policies' owner says."""
        cloud = self.projects[self.owner].kubernetes if self.owner is not None else None
        return cloud.beside if cloud is not None and cloud.beside is not None else Beside()

    @property
    def machine(self) -> Machine | None:
        """What the place holds, where the policies' owner says so."""
        return self.projects[self.owner].machine if self.owner is not None else None

    def has(self, name: str, project: str = "") -> bool:
        """Whether a template of that name was applied (by that project)."""
        return any(name in its.templates for key, its in self.projects.items() if project in ("", key))

    def template(self, name: str, project: str = "") -> tuple[Template, Target]:
        """The template of that name, and the target as its project sees it. ``project``: of that one alone.

        Raises:
            NotAppliedError: there is no project at all.
            NotFoundError: none has it, or more than one.
        """
        applied = self.having(name, project)
        return applied.templates[name], applied.there

    def having(self, name: str, project: str = "") -> Applied:
        """The project that has the template: as :meth:`template`."""
        where = self.named(project)
        having = [each for each in where if name in self.projects[each].templates]
        if len(having) == 1:
            return self.projects[having[0]]
        if having:
            raise NotFoundError(
                f"template {name!r} is in the projects {listed(having)}: say of which",
                hint=f"In shoal.yaml, `kubernetes: {{project: {having[0]}}}` of the target does; an object has "
                "spec.applied for it.",
            )
        known = sorted({each for its in where for each in self.projects[its].templates})
        raise NotFoundError(
            f"there is no template {name!r}" + (f" in project {project}" if project else ""),
            hint=f"{did_you_mean(name, known)}.",
        )

    def brought(self, name: str, data: Json, project: str = "") -> tuple[Template, Target]:
        """A template that a request brings itself. What an administrator applied it uses by name alone.

        Raises:
            NotAppliedError: there is no project at all.
            ConfigError: with every fault of it.
        """
        self.named(project)
        applied, faults = self.around(project), list[Fault]()
        template = template_of(data, name, "spec.template", faults)
        if template is not None:
            faults += names_unknown(template, applied)
            known = {name for its in applied.templates.values() for name in its.secrets}
            known |= set(applied.kubernetes.secrets if applied.kubernetes is not None else ())
            for secret in template.secrets:
                if secret not in known:
                    wrong = f"Secret {secret!r} is in no applied template or target"
                    faults.append(Fault("spec.template", 1, "secrets", wrong, did_you_mean(secret, known)))
            for engine, settings in template.engines.items():
                for key in settings.conf:
                    if key.startswith("spark.kubernetes."):
                        wrong, right = "is not a person's to set", "leave it out"
                        faults.append(Fault("spec.template", 1, f"engines.{engine}.conf.{key}", wrong, right))
        raise_faults(faults)
        assert template is not None
        return template, applied.there

    def meant(self, name: str, project: str, brought: Json | None) -> tuple[Template, Target]:
        """The template that a request means: its own, or the applied one; as these two."""
        return self.template(name, project) if brought is None else self.brought(name, brought, project)

    def around(self, project: str = "", template: str = "") -> Applied:
        """Of which project the images, mounts, sizes and prices are: the named one, else the one that has the template,
        else the policies' owner. NotAppliedError where there is none."""
        having = [its for its in self.projects.values() if template in its.templates]
        if project in self.projects:
            return self.projects[project]
        if len(having) == 1:
            return having[0]
        every = self.named("")
        return self.projects[self.owner if self.owner is not None else every[0]]

    def named(self, project: str) -> list[str]:
        """The project of this name; of no name: all. NotFoundError, NotAppliedError."""
        if not self.projects:
            raise NotAppliedError(self.system)
        if project and project not in self.projects:
            raise NotFoundError(
                f"there is no project {project!r} in namespace {self.system}",
                hint=f"{did_you_mean(project, self.projects)}.",
            )
        return [project] if project else sorted(self.projects)


def asked(project: Project, api: Api, template: str | None = None) -> Project:
    """:func:`overlaid` with what is in force on the server, as far as that may be read."""
    try:
        in_force = Projects(api, Location.of(project.target).system).look()
        if not in_force.projects:
            raise NotAppliedError(in_force.system)
    except _UNREAD as error:
        said = f"by the files in {project.folder}: what is in force cannot be read here ({error.message})"
        return replace(project, numbers=said)
    return overlaid(project, in_force, template)


def overlaid(project: Project, in_force: InForce, template: str | None) -> Project:
    """A person's project with what is in force on the server in place of its own.

    ``template``: which one is asked for: prices, images and sizes are those of the project that has it. Templates that
    nobody applied are the person's own. ``numbers`` says what came of it.

    Raises:
        NotFoundError: more than one project has it.
    """
    which = applied_name(project)
    target, templates = project.target, dict(project.templates)
    for name, applied in in_force.projects.items():
        if which in ("", name):
            templates |= applied.templates
    known = template is not None and in_force.has(template, which)
    in_force.named(which)
    if template is not None:
        target = (in_force.having(template, which) if known else in_force.around(which)).within(target)
    target = target.model_copy(update={"machine": in_force.machine})
    named = which or in_force.owner or listed(sorted(in_force.projects))
    said = f"by project {named}, as applied to namespace {in_force.system}"
    if template in project.templates and not known:
        said += f"; template {template} is this folder's own"
    return replace(project, target=target, templates=templates, policy=in_force.policy, numbers=said)


def own(project: Project, api: Api, template: str) -> Json | None:
    """The person's own template of that name, to be sent along; None where one was applied, or that cannot be read."""
    if template not in project.templates:
        return None
    try:
        there = Projects(api, Location.of(project.target).system).look()
    except _UNREAD:
        return None
    if not there.projects or there.has(template, applied_name(project)):
        return None
    return template_written(project.templates[template])


def judged(projects: Mapping[str, Json], system: str) -> tuple[InForce, dict[str, ProjectStatus]]:
    """Of Projects as they are on the server, by name: what is in force, and what the status of each is to say."""
    good: dict[str, Applied] = {}
    said: dict[str, ProjectStatus] = {}
    for name, found in projects.items():
        applied, said[name] = _judged(found)
        if applied is not None:
            good[name] = applied
    # Of several that bring policies, those of the one that was there first.
    having = sorted(
        (str(projects[name]["metadata"].get("creationTimestamp", "")), name)
        for name, applied in good.items()
        if applied.policies is not None
    )
    owner = having[0][1] if having else None
    for _, name in having[1:]:
        good[name] = replace(good[name], policies=None)
        said[name] = replace(said[name], fault=said[name].fault or second(owner or ""))
    return InForce.of(system, good, owner), said


def second(owner: str) -> str:
    """What a project is told whose policies come second."""
    return f"its policies are not in force: the policies of this place are those of project {owner!r}"


def standing_of(found: Json) -> ProjectStatus:
    """What the governor said of a Project last."""
    return read(ProjectStatus, found.get("status") or {})


def _judged(found: Json) -> tuple[Applied | None, ProjectStatus]:
    generation = int(found["metadata"].get("generation", 1))
    try:
        return applied_of(found["spec"]), ProjectStatus(generation, generation, "", found["spec"])
    except ConfigError as error:
        before = standing_of(found)
        standing = replace(before, observed=generation, fault=error.message[:8000])
    try:
        return (None if before.spec is None else applied_of(before.spec)), standing
    except ConfigError:
        return None, standing


class Projects:
    """The projects of a place, read again at each look (from ``cache``, if there is one), and judged again when one
    changed."""

    def __init__(
        self, api: Api, system: str, cache: Cache | None = None, drift: DriftWatch | None = None
    ) -> None:
        self._api, self._system, self._cache, self._drift = api, system, cache, drift
        self._seen: dict[str, str] = {}
        self._strays: dict[str, tuple[str, ...]] = {}  # that were told
        self._in_force = InForce(system)

    def look(self, *, tell: bool = False) -> InForce:
        """What is in force now. ``tell``: write into each what is in force of it."""
        try:
            there = self._there()
        except NotFoundError:  # the kind itself is not there yet
            there = []
        seen = {each["metadata"]["uid"]: each["metadata"]["resourceVersion"] for each in there}
        strays = self._drift.found if self._drift is not None else {}
        if seen == self._seen and strays == self._strays:
            return self._in_force
        found = {each["metadata"]["name"]: each for each in there}
        self._in_force, said = judged(found, self._system)
        if tell:
            for name, standing in said.items():
                self._tell(found[name], replace(standing, drift=strays.get(name, ())))
        self._seen, self._strays = seen, strays
        return self._in_force

    def _there(self) -> list[Json]:
        if self._cache is not None:
            return list(self._cache.items().values())
        return list(self._api.list(PROJECT.path(self._system))[0])

    def _tell(self, found: Json, standing: ProjectStatus) -> None:
        status = written(standing)
        if status == found.get("status"):
            return
        name = found["metadata"]["name"]
        if standing.fault:
            _log.error("project %s: %s", name, standing.fault)
        try:
            path = PROJECT.path(self._system, name, "status")
            self._api.replace(path, {**found, "status": status})
        except ShoalError as error:
            _log.warning("the status of project %s is written in the next round: %s", name, error)
