"""Policy: tiers, users and teams, and the limits of one user (``policies/*.yaml``).

Why it exists: whoever is told no has a right to know which limit said it and where that limit is written.

How values combine, for one user:
 1. What the user's own line says counts, whether it is more or less than the tier's.
 2. Else the strictest of the tier's and the team's value counts, for limits per cluster (workers, head,
    duration, priority); for totals (clusters, cores, memory, GPUs, scratch) the tier's value counts.
 3. A team's totals count for all its members together, besides each one's own, whatever a user's line says.
    A user's line that gives more than the team has in all is a fault in the files.
 4. A budget combines as a total does: the user's own or else the tier's, and the team's, that of the template, and
    everybody's besides.

What it must not do: read files (``project``) or decide on a request (``admission``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from shoal.errors import ContradictionError, NotFoundError, UsageError
from shoal.model.resource import Resource
from shoal.project.budget import Budget, BudgetLimit
from shoal.project.settings import Checked, Natural, Positive
from shoal.project.yamlfile import Fault, raise_faults
from shoal.units import Bytes, Seconds
from shoal.words import did_you_mean

# What is limited in total, and what per cluster, with the key in the files.
TOTALS = {
    Resource.CLUSTERS: "concurrent_clusters",
    Resource.CORES: "cores",
    Resource.MEMORY: "memory",
    Resource.GPUS: "gpus",
    Resource.SCRATCH: "scratch",
}
PER_CLUSTER = {
    Resource.WORKERS: "workers_per_cluster",
    Resource.HEAD: "head",
    Resource.DURATION: "max_duration",
    Resource.PRIORITY: "max_priority",
}

# From 0, which everybody's requests have that do not say another, to the highest there is.
Priority = Annotated[int, Field(strict=True, ge=0, le=10)]


class Caps(Checked):
    """Limits that a tier, a user or a team may set. None: not said here."""

    # No home in pods holds a budget yet: none is written into a cluster's objects.
    not_in_objects: ClassVar[tuple[str, ...]] = ("budget",)

    concurrent_clusters: Positive | None = None
    workers_per_cluster: Positive | None = None
    cores: Annotated[float, Field(gt=0)] | None = None
    memory: Bytes | None = None
    gpus: Natural | None = None
    scratch: Bytes | None = None
    max_duration: Seconds | None = None
    head: Bytes | None = None
    max_priority: Priority | None = None
    budget: Budget | None = None

    @field_validator("memory", "max_duration", "head")
    @classmethod
    def _above_zero(cls, value: float | None) -> float | None:
        if value == 0:
            raise ContradictionError("is 0: no cluster could ever start", hint="write more than 0")
        return value


class Tier(Caps):
    """What each of its users may have. No ``gpus``: none; no ``cores`` or ``scratch``: as memory allows."""

    concurrent_clusters: Positive
    workers_per_cluster: Positive
    memory: Bytes
    max_duration: Seconds
    head: Bytes
    gpus: Natural = 0


class Subject(Checked):
    """Whom of Kubernetes' a user is; one of the three. ``service_account`` is ``NAMESPACE/NAME``."""

    user: str | None = None
    group: str | None = None
    service_account: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9.-]+$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Subject:
        if len(said := [each for each in (self.user, self.group, self.service_account) if each]) != 1:
            raise ContradictionError(
                f"{'nobody' if not said else 'more than one'} is named",
                hint="write {user: NAME}, {group: NAME} or {service_account: NAMESPACE/NAME}",
            )
        return self


class User(Caps):
    """One user: the tier, the team, and what differs from the tier. ``subjects``: who that is on Kubernetes (none:
    whom the API server knows by that name)."""

    tier: str
    team: str | None = None
    subjects: tuple[Subject, ...] = ()


class Team(Caps):
    """What all members may have together; ``weight`` is its share of a full place, against other teams'."""

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class Shared(Checked):
    """What all users together may spend: on everything, or on the clusters of one template."""

    budget: Budget


@dataclass(frozen=True)
class Limit:
    """One limit: its value (a count, :class:`Bytes` or :class:`Seconds`) and where it is written."""

    value: float
    source: str


@dataclass(frozen=True)
class Limits:
    """What one user may have. A limit that is not there does not limit.

    ``totals`` and ``team_totals`` are of :data:`TOTALS`, ``per_cluster`` is of :data:`PER_CLUSTER`. ``budget`` is for
    the user alone, ``team_budget`` for all members of the team together, ``everybody_budget`` for all users, and
    ``template_budgets`` for all users of a template, by its name.
    """

    user: str
    tier: str
    team: str | None
    weight: float
    totals: Mapping[Resource, Limit]
    per_cluster: Mapping[Resource, Limit]
    team_totals: Mapping[Resource, Limit] = field(default_factory=dict)
    budget: BudgetLimit | None = None
    team_budget: BudgetLimit | None = None
    everybody_budget: BudgetLimit | None = None
    template_budgets: Mapping[str, BudgetLimit] = field(default_factory=dict)

    @property
    def budgeted(self) -> bool:
        """Whether any budget may be in the way of a request."""
        one = self.budget or self.team_budget or self.everybody_budget
        return one is not None or bool(self.template_budgets)


@dataclass(frozen=True)
class Policy:
    """All tiers, users and teams, and what everybody, or the users of a template, may spend together.

    ``where`` says where each is written: ``"tiers.standard.memory"`` -> ``"policies/tiers.yaml:2"``. ``faults``: what
    is wrong in the files, where that was tolerated; nobody has limits then.
    """

    tiers: Mapping[str, Tier]
    users: Mapping[str, User] = field(default_factory=dict)
    teams: Mapping[str, Team] = field(default_factory=dict)
    default: User | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    everybody: Shared | None = None
    templates: Mapping[str, Shared] = field(default_factory=dict)
    # A policy never changes, and every decision asks it for everybody.
    _known: dict[str, Limits] = field(default_factory=dict, repr=False, compare=False)

    def check(self) -> None:
        """ConfigError with what is wrong in the files: half a policy must not decide on anything."""
        raise_faults(self.faults)

    def user(self, name: str) -> User:
        """The user called ``name``, or the default; NotFoundError without one, UsageError for no name, ConfigError."""
        self.check()
        if not name or not name.isprintable() or name != name.strip():
            raise UsageError(f"{name!r} is not a user name", hint="A name is printable text.", name=name)
        found = self.users.get(name, self.default)
        if found is None:
            place = self.where.get("users", "policies/users.yaml")
            raise NotFoundError(
                f"There is no user {name!r}, and no default for unknown users",
                hint=f"Add {name!r} or 'default: {{tier: …}}' to {place}"
                + (f": {did_you_mean(name, self.users)}." if self.users else ", which names nobody yet."),
                name=name,
            )
        return found

    def limits_of(self, name: str) -> Limits:
        """What the user called ``name`` may have, each limit with where it is written."""
        if name not in self._known:
            self._known[name] = self._combine(name)
        return self._known[name]

    def _combine(self, name: str) -> Limits:
        user = self.user(name)
        tier = self.tiers[user.tier]
        team = self.teams[user.team] if user.team else None
        user_path = f"users.{name if name in self.users else 'default'}"
        tier_path = f"tiers.{user.tier}"
        team_path = f"teams.{user.team}"

        def own(key: str, *, with_team: bool) -> Limit | None:
            if (value := getattr(user, key)) is not None:
                return self._limit(value, f"user {name}", user_path, key)
            found = [
                self._limit(value, text, path, key)
                for caps, text, path in (
                    (tier, f"tier {user.tier}", tier_path),
                    (team if with_team else None, f"team {user.team}", team_path),
                )
                if caps is not None and (value := getattr(caps, key)) is not None
            ]
            return min(found, key=lambda limit: limit.value, default=None)

        def budget(*among: tuple[Caps | Shared | None, str, str]) -> BudgetLimit | None:
            for caps, text, path in among:
                if caps is not None and caps.budget is not None:
                    return BudgetLimit(caps.budget, self._source(text, path, "budget"))
            return None

        return Limits(
            user=name,
            tier=user.tier,
            team=user.team,
            weight=team.weight if team else 1.0,
            totals={what: limit for what, key in TOTALS.items() if (limit := own(key, with_team=False))},
            per_cluster={
                what: limit for what, key in PER_CLUSTER.items() if (limit := own(key, with_team=True))
            },
            team_totals={
                what: self._limit(value, f"team {user.team}", team_path, key)
                for what, key in TOTALS.items()
                if (value := getattr(team, key, None)) is not None
            },
            budget=budget((user, f"user {name}", user_path), (tier, f"tier {user.tier}", tier_path)),
            team_budget=budget((team, f"team {user.team}", team_path)),
            everybody_budget=budget((self.everybody, "everybody", "everybody")),
            template_budgets={
                name: BudgetLimit(
                    caps.budget, self._source(f"template {name}", f"templates.{name}", "budget")
                )
                for name, caps in self.templates.items()
            },
        )

    def budgets(self) -> dict[str, Budget]:
        """Every budget that is written, by its path: ``"tiers.standard.budget"``."""
        parts: dict[str, Mapping[str, Caps | Shared]] = {"tiers": self.tiers, "users": self.users}
        parts |= {"teams": self.teams, "templates": self.templates}
        every = {f"{part}.{name}": caps for part, named in parts.items() for name, caps in named.items()}
        if self.default is not None:
            every["users.default"] = self.default
        if self.everybody is not None:
            every["everybody"] = self.everybody
        return {f"{path}.budget": caps.budget for path, caps in every.items() if caps.budget is not None}

    @property
    def stops(self) -> bool:
        """Whether any budget ends what runs."""
        return any(budget.stops for budget in self.budgets().values())

    def _limit(self, value: float, text: str, path: str, key: str) -> Limit:
        return Limit(value, self._source(text, path, key))

    def _source(self, text: str, path: str, key: str) -> str:
        place = self.where.get(f"{path}.{key}") or self.where.get(path)
        return f"{text} ({place})" if place else text
